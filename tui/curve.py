"""A plot as lines of text: band, line, markers, axis. Pure; numpy only inside, after first frame.

Braille by default, plain ASCII where asked. Every series has a glyph of its own, so that the
picture reads without colour: the line solid, the band half its dots, validation `*`, a value
that is not a number `!`, other curves a letter each (tui.marks has the signs of what happened).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tui.figures import count
from tui.marks import Mark, by_column, row, spans, uprights
from tui.metrics import axis
from tui.safe import Line

if TYPE_CHECKING:
    from tui.raster import Columns, Dots
    from tui.series import Floats, Series

AXIS = 8
"""Columns of the y axis: a figure of six, a space and the axis itself."""
HEADED = 6
"""Rows from which there is one for the marks."""


@dataclass(frozen=True)
class Look:
    """What to draw of the series: `x0` to `x1` are global steps, both included; `cursor` is the
    step of the read-out, None without one; `metric` says how the axis writes its figures."""

    x0: float
    x1: float
    band: bool = True
    ema: bool = True
    log: bool = False
    ascii: bool = False
    cursor: int | None = None
    metric: str = "loss"


@dataclass(frozen=True, eq=False)
class Other:
    """A curve beside the main one, drawn as `sign` in every `every`th column of cells. `whole`: the
    y axis makes room for all of it, and it stands before the line."""

    series: Series
    sign: str
    tone: str
    every: int = 1
    whole: bool = False


@dataclass(frozen=True)
class Plot:
    """`lines` from the top, the x axis last. The rest is what a legend or a read-out needs:
    `line_at`, `mean_at`, `range_at` and `bad_at` (a value that is no number) per column, and
    the newest value of the drawn line and of each of the others."""

    lines: list[Line]
    newest: float
    newest_beside: list[float]
    column_of: Callable[[float], int]
    step_at: Callable[[int], float]
    line_at: list[float]
    mean_at: list[float]
    range_at: list[tuple[float, float]]
    bad_at: list[bool]
    steps_per_column: float


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


class Canvas:
    """A grid of characters with a tone each."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.text = [[" "] * width for _ in range(height)]
        self.tones = [[""] * width for _ in range(height)]

    def put(self, x: int, y: int, character: str, tone: str) -> None:
        if 0 <= x < self.width and 0 <= y < self.height:
            self.text[y][x], self.tones[y][x] = character, tone


def plot(
    series: Series,
    validation: Series | None,
    marks: Sequence[Mark] | None,
    look: Look,
    width: int,
    height: int,
    others: Sequence[Other] = (),
) -> Plot:
    """`series` as a line with a band, `others` as signs, `validation` as sparse markers, in width x
    height cells. The first row is that of the marks, None for no such row."""
    import numpy as np

    from tui import raster

    headed = marks is not None and height >= HEADED
    columns, rows = max(4, width - AXIS), max(1, height - 1 - headed)
    dots_wide, dots_high = columns * 2, rows * 4
    span = look.x1 - look.x0 + 1
    part, average = _columns(series, look, dots_wide)
    drawn = average if look.ema else part.mean
    ticks = raster.columns(validation, look.x0, look.x1, columns) if validation else None
    beside = [_columns(other.series, look, columns) for other in others]
    y_range = _y_range([part, *([ticks] if ticks else [])], look.log)
    shown = [its_average if look.ema else its_part.mean for its_part, its_average in beside]
    for other, values in zip(others, shown, strict=True):
        y_range = _stretched(y_range, values, look.log, whole=other.whole)
    canvas = Canvas(columns, rows)

    def column_of(step: float) -> int:
        return math.floor((step - look.x0) / span * columns)

    placed = by_column(marks or (), column_of, columns)
    for x in uprights(placed, columns):
        for y in range(0, rows, 2 if look.ascii else 1):
            canvas.put(x, y, "|" if look.ascii else "┊", "dim")
    if y_range is not None:
        y0, y1 = y_range

        def dot(values: raster.Floats, high: int = dots_high) -> raster.Floats:
            return raster.dot_rows(values, y0, y1, high, log=look.log)

        line = raster.cells(raster.line_dots(dot(drawn), part.bad, dots_high))
        band = np.zeros_like(line)
        if look.band:
            band = raster.cells(raster.band_dots(dot(part.high), dot(part.low), dots_high))
        _paint(canvas, line, band, look.ascii)
        for other, (its_part, _), values in zip(others, beside, shown, strict=True):
            _sign(canvas, raster.line_dots(dot(values, rows), its_part.bad, rows), other)
        if ticks is not None:
            places = dot(ticks.mean, rows)
            for at in np.flatnonzero(np.isfinite(places)):
                canvas.put(int(at), int(places[at]), "*", "mark")
    for at in np.flatnonzero(part.bad):
        canvas.put(int(at) // 2, rows - 1, "!", "bad")
    if look.cursor is not None:
        x = min(max(0, column_of(look.cursor)), columns - 1)
        for y in range(rows):
            if canvas.text[y][x] in " ┊":
                canvas.put(x, y, "|" if look.ascii else "│", "accent")
    known = drawn[np.isfinite(drawn)]
    head: list[Line] = [(((" " * AXIS), ""), *row(placed, columns))] if headed else []
    return Plot(
        lines=head + _with_axes(canvas, y_range, look),
        newest=float(known[-1]) if len(known) else math.nan,
        newest_beside=[_last(values) for values in shown],
        column_of=column_of,
        step_at=lambda x: look.x0 + (x + 0.5) * span / columns,
        line_at=[_last(drawn[x * 2 : x * 2 + 2]) for x in range(columns)],
        mean_at=[_last(part.mean[x * 2 : x * 2 + 2]) for x in range(columns)],
        range_at=[
            (_least(part.low[x * 2 : x * 2 + 2]), -_least(-part.high[x * 2 : x * 2 + 2]))
            for x in range(columns)
        ],
        bad_at=[bool(part.bad[x * 2 : x * 2 + 2].any()) for x in range(columns)],
        steps_per_column=span / columns,
    )


def _columns(series: Series, look: Look, n: int) -> tuple[Columns, Floats]:
    """The series over n columns of what is in view, and its moving average there. Left of the
    picture the average warms up, so that it does not jump while one pans."""
    from tui import raster

    span = look.x1 - look.x0 + 1
    part = raster.columns(series, look.x0 - span, look.x1, n * 2)
    memory = max(1.0, float(part.points[n:].sum()) * raster.EMA_SHARE)
    average = raster.smoothed(part.mean, part.points, memory)[n:]
    return raster.Columns(*(getattr(part, name)[n:] for name in part.__annotations__)), average


def _stretched(
    y_range: tuple[float, float] | None, values: Floats, log: bool, *, whole: bool
) -> tuple[float, float] | None:
    """The range with room for another curve: for all of it, or, where it is not `whole`, for at
    most as much again, so that a branch that blew up does not flatten the present line."""
    import numpy as np

    from tui import raster

    values = values[np.isfinite(values)]
    if log:
        values = values[values > 0]
    if not len(values):
        return y_range
    low, high = float(values.min()), float(values.max())
    if y_range is None:
        return raster.nice_range(low, high, log=log)
    y0, y1 = y_range
    if y0 <= low and high <= y1:
        return y_range
    if not whole:
        room = y1 - y0
        low, high = max(low, y0 - room if not log else y0 / 10), min(high, y1 + room)
    return raster.nice_range(min(low, y0), max(high, y1), log=log)


def _sign(canvas: Canvas, dots: Dots, other: Other) -> None:
    """A curve as a sign in every `every`th column; it goes behind the line where it is not
    `whole`."""
    import numpy as np

    for y, x in zip(*np.nonzero(dots), strict=True):
        if x % other.every == 0 and (other.whole or canvas.tones[y][x] != "line"):
            canvas.put(int(x), int(y), other.sign, other.tone)


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
        labels = {0: axis(look.metric, y1), rows - 1: axis(look.metric, y0)}
        if rows >= 6:
            labels[(rows - 1) // 2 if rows % 2 else rows // 2] = axis(look.metric, middle)
    result: list[Line] = []
    for y in range(rows):
        result.append(
            (
                ((f"{labels.get(y, ''):>6} {upright}"), "dim"),
                *spans(canvas.text[y], canvas.tones[y]),
            )
        )
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
