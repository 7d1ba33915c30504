"""Histories as small bars: a column of a terminal a stretch of time, the newest at the right.

Imports neither Textual nor numpy. Drawn with block characters, or with ASCII alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from tui.figures import real

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-:=+*#"


SPAN = 150
"""Values that a whole history has (see engine.machine.meters)."""


def bins(values: Sequence[object], number: int, width: int, span: int = SPAN) -> list[float | None]:
    """At most `width` means of the newest values. `number` is that of the last value ever taken:
    the bins are counted from the first, so that none changes but the last, and those before move
    left by a whole column when a new one begins. A bin has as many values as `width` of them need
    for `span`, also before there are so many: a column is the same time from the first on."""
    if width <= 0 or not values:
        return []
    per = -(-max(span, len(values)) // width)
    first = number - len(values)
    found: dict[int, list[float]] = {}
    for offset, value in enumerate(values):
        into = found.setdefault((first + offset) // per, [])
        figure = real(value)
        if figure is not None:
            into.append(figure)
    means = [sum(part) / len(part) if part else None for _, part in sorted(found.items())]
    return means[-width:]


def spark(
    values: Sequence[object],
    number: int,
    width: int,
    *,
    top: float = 100.0,
    ascii: bool = False,
    span: int = SPAN,
) -> str:
    """`values` between 0 and `top` as bars, `width` columns, filled from the right; a blank is a
    time of which nothing is known."""
    signs = ASCII if ascii else BLOCKS
    drawn = ""
    for value in bins(values, number, width, span):
        if value is None or top <= 0:
            drawn += " "
        else:
            share = max(0.0, min(1.0, value / top))
            drawn += signs[min(len(signs) - 1, int(share * len(signs)))]
    return drawn.rjust(width)
