"""What happened along the curve, as one row of signs above it. Pure.

Every kind has a sign of its own, in ASCII, so that it reads without colour: a hundred items
must not bury the curve, so the signs have a row to themselves, and where several fall into one
column the gravest stands for all; the read-out under the cursor tells each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from tui.figures import real
from tui.frame import Record
from tui.safe import Line, Span, clip, safe_line

SIGNS = {"restart": "+", "item": ">", "version": "|", "rollback": "<", "failure": "x"}
"""From the lightest to the gravest."""
TONES = {"restart": "dim", "item": "dim", "version": "good", "rollback": "warn", "failure": "bad"}
UPRIGHTS = ("version", "rollback", "failure")
"""Kinds that also draw a broken line through the picture, behind the curve."""
SETS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("all", tuple(SIGNS)),
    ("versions", ("version",)),
    ("items", ("item",)),
    ("faults", ("rollback", "failure", "restart")),
    ("none", ()),
)
"""What the key cycles through."""
SHORTEST = 8
"""Letters of a name below which it is left out."""
SPARSE = 12
"""Columns for each upright; where there is less room there are none."""


@dataclass(frozen=True)
class Mark:
    """`name` stands beside the sign where there is room, `text` in the read-out."""

    kind: str
    step: int
    name: str
    text: str


def marks(records: Sequence[Record], kinds: Sequence[str]) -> list[Mark]:
    """The marks of these kinds out of the store's, in the order of steps."""
    found = []
    for one in records:
        step, kind = real(one.get("step")), str(one.get("kind"))
        if kind in kinds and kind in SIGNS and step is not None:
            name, text = _narrow(one.get("name", "")), safe_line(str(one.get("text", "")))
            found.append(Mark(kind, int(step), name.removesuffix(".jsonl"), text))
    return found


def _narrow(name: object) -> str:
    """A name of which every character is one column wide."""
    return "".join(c if cell_len(c) == 1 else "?" for c in safe_line(str(name)))


def by_column(
    marks: Sequence[Mark], column_of: Callable[[float], int], width: int
) -> dict[int, Mark]:
    """The gravest mark of every column that has one, the newest of those."""
    order = list(SIGNS)
    found: dict[int, Mark] = {}
    for mark in marks:
        x = column_of(mark.step)
        if not 0 <= x < width:
            continue
        other = found.get(x)
        if other is None or order.index(mark.kind) >= order.index(other.kind):
            found[x] = mark
    return found


def uprights(placed: dict[int, Mark], width: int) -> list[int]:
    """The columns in which a broken line is drawn: none where they would bury the curve."""
    columns = [x for x, mark in placed.items() if mark.kind in UPRIGHTS]
    return columns if len(columns) * SPARSE <= width else []


def row(placed: dict[int, Mark], width: int) -> Line:
    """The signs in their columns, with names where there is room to the right of a sign (or, at
    the right edge, to the left of it)."""
    text, tones = [" "] * width, [""] * width

    def write(x: int, word: str, tone: str) -> None:
        for index, letter in enumerate(word):
            text[x + index], tones[x + index] = letter, tone

    columns = sorted(placed)
    used = 0
    for number, x in enumerate(columns):
        mark, tone = placed[x], TONES[placed[x].kind]
        write(x, SIGNS[mark.kind], tone)
        after = columns[number + 1] - 1 if number + 1 < len(columns) else width
        room, name = max(0, after - x - 1), mark.name
        wanted = min(len(name), SHORTEST)
        if name and room >= wanted and (room >= len(name) or x - used <= len(name)):
            name = clip(name, room)
            write(x + 1, name, tone)
            used = x + 1 + len(name)
        elif name and after == width and x - used > len(name):
            write(x - len(name), name, tone)
            used = x + 1
        else:
            used = x + 1
    return tuple(spans(text, tones))


def spans(text: Sequence[str], tones: Sequence[str]) -> list[Span]:
    """Characters with a tone each, neighbours of one tone together."""
    spans: list[Span] = []
    start = 0
    for x in range(1, len(text) + 1):
        if x == len(text) or tones[x] != tones[start]:
            spans.append(("".join(text[start:x]), tones[start]))
            start = x
    return spans
