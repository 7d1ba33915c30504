"""Lengths of rows in tokens, as bars: for the console and the command line.

Imports neither Textual nor numpy. Drawn with block characters, or with ASCII alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BARS = 12
"""Most bars drawn; neighbouring bins are put together."""
_PARTS = " ▏▎▍▌▋▊▉"


def bars(
    histogram: object, width: int, *, limit: int = 0, ascii: bool = False, most: int = BARS
) -> list[str]:
    """A line for each range of lengths: "0-95  ████ 120", in `width` columns; [] without rows.

    `histogram` is {"edges": int[n + 1], "counts": int[n]} in tokens, as a report has it. The bar
    in which `limit` (max_length, 0 for none) lies says so.
    """
    ranges = _ranges(histogram, most)
    if not ranges:
        return []
    top = max(count for _, _, count in ranges)
    names = [f"{low}-{high - 1}" for low, high, _ in ranges]
    left = max(map(len, names))
    right = len(f"{top:,}")
    notes = [
        f" {'<' if ascii else '◂'} max_length {limit}" if limit and low <= limit < high else ""
        for low, high, _ in ranges
    ]
    room = max(4, width - left - right - 2 - max(map(len, notes)))
    lines = []
    for name, note, (_, _, count) in zip(names, notes, ranges, strict=True):
        number = f"{count:,}".replace(",", " ")
        lines.append(f"{name:>{left}} {_bar(count, top, room, ascii)} {number:>{right}}{note}")
    return [line.rstrip() for line in lines]


def _ranges(histogram: object, most: int) -> list[tuple[int, int, int]]:
    """(first length, first length after, rows), without empty ones at both ends."""
    if not isinstance(histogram, Mapping):
        return []
    edges: list[Any] = list(histogram.get("edges") or ())
    counts: list[Any] = list(histogram.get("counts") or ())
    if not counts or len(edges) != len(counts) + 1 or not any(counts):
        return []
    first = next(n for n, count in enumerate(counts) if count)
    last = max(n for n, count in enumerate(counts) if count)
    each = -(-(last + 1 - first) // most)
    groups = [(n, min(n + each, last + 1)) for n in range(first, last + 1, each)]
    return [(int(edges[a]), int(edges[b]), sum(counts[a:b])) for a, b in groups]


def _bar(count: int, top: int, room: int, ascii: bool) -> str:
    """A bar of `room` columns; a count that is not zero is never an empty bar."""
    if ascii:
        full = max(1, round(count / top * room)) if count else 0
        return "#" * full + " " * (room - full)
    eighths = max(1, round(count / top * room * 8)) if count else 0
    full, part = divmod(eighths, 8)
    drawn = "█" * full + (_PARTS[part] if part else "")
    return drawn + " " * (room - len(drawn))
