"""Statistics that a few wild values do not move, over plain lists of floats. No numpy: a status
without an engine must not pay for its import."""

from __future__ import annotations

import math
from collections.abc import Sequence

NORMAL = 1.4826
"""Median deviation times this is the standard deviation of a normal spread."""
WILD = 6.0
"""Values further than so many spreads from the median are drawn in before a line is fitted."""


def median(values: Sequence[float]) -> float:
    """The middle value. At least one is needed."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def spread(values: Sequence[float]) -> float:
    """The standard deviation as the median deviation tells it; never quite 0."""
    middle = median(values)
    return max(NORMAL * median([abs(v - middle) for v in values]), 1e-9)


def drawn_in(values: Sequence[float]) -> list[float]:
    """The values, wild ones moved to the edge of the usual band."""
    middle, width = median(values), WILD * spread(values)
    return [min(max(v, middle - width), middle + width) for v in values]


def change(steps: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """How far a straight line through the values rises from the first step to the last, and the
    standard error of that. At least three points at two steps."""
    n = len(values)
    mean_x, mean_y = sum(steps) / n, sum(values) / n
    sxx = sum((x - mean_x) ** 2 for x in steps)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(steps, values, strict=True)) / sxx
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(steps, values, strict=True))
    reach = steps[-1] - steps[0]
    return slope * reach, math.sqrt(rest / (n - 2) / sxx) * reach
