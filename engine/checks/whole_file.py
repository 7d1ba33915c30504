"""What only the whole file shows: rows that occur twice, lengths that stand out.

Keeps 12 to 20 bytes of a row, whatever its length.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from blake3 import blake3

from engine.checks.findings import Level, Problem, answers
from queue_store.rows import Row, prompt_digest

ROWS_FOR_RATIO = 200
"""Rows that a file must have before a length can stand out of it."""

OUTLIER = 8.0
"""Standard deviations (by the median's deviation, so that outliers do not hide themselves) of the
logarithm of answer over prompt length."""


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


def _row_number(row: Row) -> int:
    """64 bits of everything in a row that a template sees."""
    if row.messages is None:
        text = f"text\x1f{row.text}"
    else:
        text = "\x1e".join(
            f"{turn.role}\x1f{turn.content}\x1f{turn.tool_calls or ''}" for turn in row.messages
        )
    return _number(blake3(text.encode("utf-8", "surrogatepass")).digest(length=8))


def _again(numbers: array[int]) -> Iterator[tuple[int, int]]:
    """(place, first place) of every entry that an earlier one equals, in order."""
    values = np.frombuffer(numbers, dtype=np.uint64) if numbers else np.zeros(0, dtype=np.uint64)
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    for place in np.flatnonzero(first[which] != np.arange(len(values))).tolist():
        yield place, int(first[which[place]])


class DuplicateRow:
    """Rows that are equal in every turn."""

    name = "duplicate_row"
    version = "1.0.0"
    level: Level = "deep"

    def __init__(self) -> None:
        self._rows = array("Q")
        self._lines = array("I")

    def look(self, row: Row) -> Problem | None:
        self._rows.append(_row_number(row))
        self._lines.append(row.line)
        return None

    def finish(self) -> Iterable[tuple[int, Problem]]:
        for place, first in _again(self._rows):
            yield self._lines[place], Problem(f"is line {self._lines[first]} once more")


class DuplicatePrompt:
    """Rows that ask what an earlier one asks, and answer otherwise."""

    name = "duplicate_prompt"
    version = "1.0.0"
    level: Level = "deep"

    def __init__(self) -> None:
        self._prompts = array("Q")
        self._rows = array("Q")
        self._lines = array("I")

    def look(self, row: Row) -> Problem | None:
        if row.messages is not None:
            self._prompts.append(_number(bytes.fromhex(prompt_digest(row)[:16])))
            self._rows.append(_row_number(row))
            self._lines.append(row.line)
        return None

    def finish(self) -> Iterable[tuple[int, Problem]]:
        for place, first in _again(self._prompts):
            if self._rows[place] != self._rows[first]:
                text = f"asks what line {self._lines[first]} asks, with another answer"
                yield self._lines[place], Problem(text)


class LengthRatio:
    """Answers that are far longer or shorter for their prompt than those of the other rows."""

    name = "length_ratio"
    version = "1.0.0"
    level: Level = "deep"

    def __init__(self) -> None:
        self._ratios = array("f")
        self._lines = array("I")

    def look(self, row: Row) -> Problem | None:
        if row.messages is not None:
            answered = sum(map(len, answers(row)))
            asked = sum(len(turn.content) for turn in row.messages if turn.role != "assistant")
            self._ratios.append(math.log((answered + 1) / (asked + 1)))
            self._lines.append(row.line)
        return None

    def finish(self) -> Iterable[tuple[int, Problem]]:
        if len(self._ratios) < ROWS_FOR_RATIO:
            return
        ratios = np.frombuffer(self._ratios, dtype=np.float32)
        middle = float(np.median(ratios))
        spread = 1.4826 * float(np.median(np.abs(ratios - middle)))
        if spread < 0.01:
            return  # rows of one length: any other would stand out
        for place in np.flatnonzero(np.abs(ratios - middle) > OUTLIER * spread).tolist():
            times = math.exp(abs(float(ratios[place]) - middle))
            how = "longer" if ratios[place] > middle else "shorter"
            text = f"its answer is {times:.0f} times {how} for its prompt than those of other rows"
            yield self._lines[place], Problem(text)
