"""Texts beside each other in columns. What is drawn has passed `safe`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from queue_store.safe import cell_width, safe

NARROWEST = 50
"""Columns that a text has to have: narrower, it reads worse than one after another."""
GAP = " | "


def fits(count: int, width: int) -> bool:
    """Whether so many texts have room beside each other in `width` columns."""
    return count > 1 and _each(count, width) >= NARROWEST


def beside(texts: Sequence[str], width: int) -> str:
    """The texts in as many columns of equal width; each text's lines are wrapped."""
    each = _each(len(texts), width)
    rows = zip_longest(*(list(wrapped(text, each)) for text in texts), fillvalue="")
    return "\n".join(
        GAP.join(line + " " * (each - cell_width(line)) for line in row) for row in rows
    )


def _each(count: int, width: int) -> int:
    return (width - len(GAP) * (count - 1)) // count


def wrapped(text: str, width: int) -> Iterator[str]:
    """The text's lines in at most `width` columns, broken at a space where there is one."""
    for line in safe(text).replace("\t", "    ").split("\n"):
        yield from _broken(line, width)


def _broken(line: str, width: int) -> Iterator[str]:
    while cell_width(line) > width:
        at = used = 0
        for character in line:
            used += cell_width(character)
            if used > width:
                break
            at += 1
        space = line.rfind(" ", at // 2, at + 1)
        end = space if space > 0 else max(1, at)
        yield line[:end]
        line = line[end:].removeprefix(" ")
    yield line
