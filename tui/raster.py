"""From arrays to braille: the arithmetic of the curve widget, without a widget.

A cell is 2 dots wide and 4 high. Every sub-column of dots shows the minimum and maximum of the
steps that fall into it, so that a million points cost a few vector operations and a spike of a
single step is seen. Imported after the first frame only, as it needs numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tui.series import Floats, Series

Dots = NDArray[np.bool_]
EMA_SHARE = 1 / 60
"""Share of the steps in view over which the smoothed line forgets to 1/e: as smooth to the eye
at every zoom."""

_WEIGHTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint16)


@dataclass(frozen=True)
class Columns:
    """A series over `n` sub-columns: float64[n], NaN where no step falls into one. `points` is how
    many fell into each, `bad` where one of them was not a number."""

    low: Floats
    high: Floats
    mean: Floats
    points: NDArray[np.int64]
    bad: Dots


def columns(series: Series, x0: float, x1: float, n: int) -> Columns:
    """`series` over n sub-columns from step x0 to step x1, both included."""
    empty = np.full(n, np.nan)
    edges = x0 + np.arange(n + 1) * ((x1 - x0 + 1) / n)
    bounds = np.searchsorted(series.steps, np.ceil(edges - 1e-9))
    points = np.diff(bounds)
    filled = np.flatnonzero(points)
    low, high, mean = empty.copy(), empty.copy(), empty.copy()
    bad = np.zeros(n, dtype=bool)
    if len(filled):
        starts = bounds[filled]
        end = int(bounds[-1])
        low[filled] = np.fmin.reduceat(series.low[:end], starts)
        high[filled] = np.fmax.reduceat(series.high[:end], starts)
        part = series.mean[:end]
        unknown = ~np.isfinite(part)
        if unknown.any():
            lost = np.add.reduceat(unknown, starts, dtype=np.int64)
            sums = np.add.reduceat(np.where(unknown, 0.0, part), starts)
            bad[filled] = lost > 0
            with np.errstate(invalid="ignore", divide="ignore"):
                mean[filled] = sums / (points[filled] - lost)
        else:
            mean[filled] = np.add.reduceat(part, starts) / points[filled]
    low[~np.isfinite(low)], high[~np.isfinite(high)] = np.nan, np.nan
    return Columns(low, high, mean, points, bad)


def smoothed(mean: Floats, points: NDArray[np.int64], memory: float) -> Floats:
    """Exponential moving average over the columns; NaN where `mean` is. A column that stands for
    many values moves the average accordingly more; `memory` is in values."""
    result = np.full(len(mean), np.nan)
    average = math.nan
    for index in np.flatnonzero(np.isfinite(mean)):
        value = float(mean[index])
        if math.isnan(average):
            average = value
        else:
            weight = 1.0 - math.exp(-float(points[index]) / memory)
            average += weight * (value - average)
        result[index] = average
    return result


def nice_range(low: float, high: float, *, log: bool) -> tuple[float, float]:
    """A range of round numbers around the values, so that the axis rests while values move."""
    if log:
        low = max(low, 1e-12)
        high = max(high, low * 1.01)
        return 10 ** (math.floor(math.log10(low) * 2) / 2), 10 ** (
            math.ceil(math.log10(high) * 2) / 2
        )
    # Closer together than the axis can write, values would have the same figure at both ends.
    least = max(abs(low), abs(high)) * 0.1 or 1.0
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    raw = (high - low) / 4
    power = 10 ** math.floor(math.log10(raw))
    tick = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    bottom, top = math.floor(low / tick) * tick, math.ceil(high / tick) * tick
    return (max(0.0, bottom) if low >= 0 else bottom), top


def dot_rows(values: Floats, y0: float, y1: float, height: int, *, log: bool) -> Floats:
    """The row of dots (0 at the top) of every value; NaN stays NaN."""
    if log:
        values = np.log10(np.maximum(values, 1e-12))
        y0, y1 = math.log10(max(y0, 1e-12)), math.log10(max(y1, 1e-12))
    share = (y1 - values) / max(y1 - y0, 1e-300)
    rows: Floats = np.clip(np.round(share * (height - 1)), 0, height - 1)
    return rows


def _between(top: Floats, bottom: Floats, height: int) -> Dots:
    """dots[height, n] from top to bottom, both included; nothing where either is NaN."""
    rows = np.arange(height)[:, None]
    with np.errstate(invalid="ignore"):
        dots: Dots = (rows >= top) & (rows <= bottom)
    return dots


def band_dots(top: Floats, bottom: Floats, height: int) -> Dots:
    """The band from maximum to minimum: half of the dots inside, all on its two edges."""
    dots = _between(top, bottom, height)
    rows, cols = np.arange(dots.shape[0])[:, None], np.arange(dots.shape[1])
    with np.errstate(invalid="ignore"):
        edge = (rows == top) | (rows == bottom)
    return dots & (edge | ((rows + cols) % 2 == 0))


def line_dots(rows: Floats, bad: Dots, height: int) -> Dots:
    """A line through the rows, joined over columns without a step, broken where one is bad."""
    n = len(rows)
    known = np.flatnonzero(np.isfinite(rows))
    if not len(known):
        return np.zeros((height, n), dtype=bool)
    filled = np.interp(np.arange(n), known, rows[known], left=np.nan, right=np.nan)
    # A gap that has a bad step in it stays open.
    breaks = np.cumsum(bad)
    before = np.searchsorted(known, np.arange(n), side="right") - 1
    after = np.minimum(before + 1, len(known) - 1)
    inside = before >= 0
    left, right = known[np.maximum(before, 0)], known[after]
    filled[inside & ~np.isfinite(rows) & (breaks[right] - breaks[left] > 0)] = np.nan
    filled[bad & ~np.isfinite(rows)] = np.nan
    rounded = np.round(filled)
    previous = np.concatenate(([np.nan], rounded[:-1]))
    previous = np.where(np.isfinite(previous), previous, rounded)
    # Each column reaches half way to its neighbour: a steep line has no holes.
    start = np.where(previous < rounded, np.minimum(previous + 1, rounded), rounded)
    end = np.where(previous > rounded, np.maximum(previous - 1, rounded), rounded)
    return _between(start, end, height)


def cells(dots: Dots) -> NDArray[np.uint16]:
    """Braille patterns (0..255) uint16[rows, columns] of dots[4 * rows, 2 * columns]."""
    height, width = dots.shape
    blocks = dots.reshape(height // 4, 4, width // 2, 2)
    return np.einsum("rycx,yx->rc", blocks.astype(np.uint16), _WEIGHTS)


def ascii_cell(pattern: int) -> str:
    """The character nearest to a braille pattern, for terminals without braille."""
    rows = [bool(pattern & mask) for mask in (0x09, 0x12, 0x24, 0xC0)]
    if sum(rows) > 2:
        return "|"
    if rows[0]:
        return "'"
    return "-" if rows[1] or rows[2] else "."
