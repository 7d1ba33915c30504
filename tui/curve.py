"""A plot as lines of text: band, line, markers, axis. Pure; numpy only inside, after first frame.

Braille by default, plain ASCII where asked. Every series has a glyph of its own, so that the
picture reads without colour: the line solid, the band half its dots, validation `*`, a value
that is not a number `!`, a version a dashed upright with its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tui.figures import count, short
from tui.safe import Line, Span

if TYPE_CHECKING:
    from tui.raster import Columns
    from tui.series import Series

AXIS = 8
"""Columns of the y axis: a figure of six, a space and the axis itself."""
MARGIN = 1.0


@dataclass(frozen=True)
class Look:
    """What to draw of the series: `x0` to `x1` are global steps, both included; `cursor` is the
    column of cells of the read-out, None without one."""

    x0: float
    x1: float
    band: bool = True
    ema: bool = True
    log: bool = False
    ascii: bool = False
    cursor: int | None = None


@dataclass(frozen=True)
class Plot:
    """`lines` from the top, the x axis last. The rest is what a legend or a read-out needs:
    `line_at`, `range_at` and `bad_at` (a value that is not a number) per column of cells, and
    the newest value of the drawn line."""

    lines: list[Line]
    newest: float
    step_at: Callable[[int], float]
    line_at: list[float]
    range_at: list[tuple[float, float]]
    bad_at: list[bool]
    steps_per_dot: float


def _y_range(parts: Sequence[Columns], log: bool) -> tuple[float, float] | None:
    """Round numbers around everything that is drawn; None when nothing is a number."""
    import numpy as np

    from tui.raster import nice_range

    lows = np.concatenate([part.low for part in parts])
    highs = np.concatenate([part.high for part in parts])
    lows, highs = lows[np.isfinite(lows)], highs[np.isfinite(highs)]
    if log:
        lows = lows[lows > 0]
    if not len(lows) or not len(highs):
        return None
    return nice_range(float(lows.min()), float(highs.max()), log=log)


def _label(value: float) -> str:
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10_000:
        return short(value)
    if size >= 100:
        return f"{value:.0f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


class Canvas:
    """A grid of characters with a tone each."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.text = [[" "] * width for _ in range(height)]
        self.tones = [[""] * width for _ in range(height)]

    def put(self, x: int, y: int, character: str, tone: str) -> None:
        if 0 <= x < self.width and 0 <= y < self.height:
            self.text[y][x], self.tones[y][x] = character, tone

    def spans(self, y: int) -> list[Span]:
        """Row y, neighbours of one tone together."""
        spans: list[Span] = []
        start = 0
        tones, text = self.tones[y], self.text[y]
        for x in range(1, self.width + 1):
            if x == self.width or tones[x] != tones[start]:
                spans.append(("".join(text[start:x]), tones[start]))
                start = x
        return spans


def plot(
    series: Series,
    validation: Series | None,
    versions: Sequence[tuple[int, str]],
    look: Look,
    width: int,
    height: int,
) -> Plot:
    """`series` as a line with a band, `validation` as sparse markers, in width x height cells."""
    import numpy as np

    from tui import raster

    columns, rows = max(4, width - AXIS), max(1, height - 1)
    dots_wide, dots_high = columns * 2, rows * 4
    span = look.x1 - look.x0 + 1
    # Left of the picture the average warms up, so that it does not jump while one pans.
    part = raster.columns(series, look.x0 - span, look.x1, dots_wide * 2)
    memory = max(1.0, float(part.points[dots_wide:].sum()) * raster.EMA_SHARE)
    average = raster.smoothed(part.mean, part.points, memory)[dots_wide:]
    part = raster.Columns(*(getattr(part, name)[dots_wide:] for name in part.__annotations__))
    drawn = average if look.ema else part.mean
    marks = raster.columns(validation, look.x0, look.x1, columns) if validation else None
    y_range = _y_range([part, *([marks] if marks else [])], look.log)
    canvas = Canvas(columns, rows)

    def column_of(step: float) -> int:
        return int((step - look.x0) / span * columns)

    for step, name in versions:
        x = column_of(step)
        if look.x0 <= step <= look.x1:
            for y in range(rows):
                canvas.put(x, y, "|" if look.ascii else "┊", "dim")
            start = x + 1 if x + 1 + len(name) <= columns else x - len(name)
            for index, letter in enumerate(name):
                canvas.put(start + index, 0, letter, "dim")
    if y_range is not None:
        y0, y1 = y_range

        def dot(values: raster.Floats, high: int = dots_high) -> raster.Floats:
            return raster.dot_rows(values, y0, y1, high, log=look.log)

        line = raster.cells(raster.line_dots(dot(drawn), part.bad, dots_high))
        band = np.zeros_like(line)
        if look.band:
            band = raster.cells(raster.band_dots(dot(part.high), dot(part.low), dots_high))
        _paint(canvas, line, band, look.ascii)
        if marks is not None:
            places = dot(marks.mean, rows)
            for at in np.flatnonzero(np.isfinite(places)):
                canvas.put(int(at), int(places[at]), "*", "mark")
    for at in np.flatnonzero(part.bad):
        canvas.put(int(at) // 2, rows - 1, "!", "bad")
    if look.cursor is not None:
        for y in range(rows):
            if canvas.text[y][min(look.cursor, columns - 1)] == " ":
                canvas.put(min(look.cursor, columns - 1), y, "|" if look.ascii else "│", "accent")
    known = drawn[np.isfinite(drawn)]
    return Plot(
        lines=_with_axes(canvas, y_range, look),
        newest=float(known[-1]) if len(known) else math.nan,
        step_at=lambda x: look.x0 + (x + 0.5) * span / columns,
        line_at=[_last(drawn[x * 2 : x * 2 + 2]) for x in range(columns)],
        range_at=[
            (_least(part.low[x * 2 : x * 2 + 2]), -_least(-part.high[x * 2 : x * 2 + 2]))
            for x in range(columns)
        ],
        bad_at=[bool(part.bad[x * 2 : x * 2 + 2].any()) for x in range(columns)],
        steps_per_dot=span / dots_wide,
    )


def _last(values: Iterable[float]) -> float:
    known = [float(value) for value in values if math.isfinite(value)]
    return known[-1] if known else math.nan


def _least(values: Iterable[float]) -> float:
    known = [float(value) for value in values if math.isfinite(value)]
    return min(known) if known else math.nan


def _paint(canvas: Canvas, line: object, band: object, as_ascii: bool) -> None:
    """The line over the band: a cell that has the line in it shows nothing else."""
    from tui.raster import ascii_cell

    for y, (line_row, band_row) in enumerate(zip(line.tolist(), band.tolist(), strict=True)):  # type: ignore[attr-defined]
        for x, (front, back) in enumerate(zip(line_row, band_row, strict=True)):
            if front:
                canvas.put(x, y, ascii_cell(front) if as_ascii else chr(0x2800 + front), "line")
            elif back:
                canvas.put(x, y, ":" if as_ascii else chr(0x2800 + back), "band")


def _with_axes(canvas: Canvas, y_range: tuple[float, float] | None, look: Look) -> list[Line]:
    """The canvas with figures to its left and the steps under it."""
    rows = canvas.height
    upright, corner, across = ("|", "+", "-") if look.ascii else ("│", "└", "─")
    labels: dict[int, str] = {}
    if y_range is not None:
        y0, y1 = y_range
        middle = math.sqrt(y0 * y1) if look.log and y0 > 0 else (y0 + y1) / 2
        labels = {0: _label(y1), rows - 1: _label(y0)}
        if rows >= 6:
            labels[(rows - 1) // 2 if rows % 2 else rows // 2] = _label(middle)
    result: list[Line] = []
    for y in range(rows):
        result.append((((f"{labels.get(y, ''):>6} {upright}"), "dim"), *canvas.spans(y)))
    left, right = count(round(look.x0)), count(round(look.x1))
    middle_text = count(round((look.x0 + look.x1) / 2))
    gap = canvas.width - len(left) - len(right) - len(middle_text)
    if gap >= 8:
        first = canvas.width // 2 - len(middle_text) // 2 - len(left)
        last = gap - first
        foot = f"{left} {across * (first - 2)} {middle_text} {across * (last - 2)} {right}"
    else:
        foot = f"{left} {across * max(0, canvas.width - len(left) - len(right) - 2)} {right}"
    result.append(((f"{'step':>6} {corner}", "dim"), (foot, "dim")))
    return result
