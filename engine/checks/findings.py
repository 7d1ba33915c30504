"""What a checker is and what checking finds; plain data.

A checker looks at one row at a time and keeps at most a few bytes of it. It says what is wrong,
never mends it, and raises for no row that was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from queue_store.rows import Row

Level = Literal["standard", "deep"]
Severity = Literal["error", "warning"]

LEVELS = ("quick", "standard", "deep")
"""Levels of checking: the row spec alone; what is looked at before training; everything."""

SHOWN = 100
"""How many findings a report holds; its counts cover all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a checker has against a row."""

    text: str
    severity: Severity = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of the row at `line` (from 1), and who says so."""

    checker: str
    version: str
    level: Level
    severity: Severity
    line: int
    text: str


class Checker(Protocol):
    """`version` changes with every change of what it finds. Rows are looked at in order; what
    only the whole file shows comes from `finish`, as (line, problem)."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def level(self) -> Level: ...

    def look(self, row: Row) -> Problem | None: ...

    def finish(self) -> Iterable[tuple[int, Problem]]: ...


@dataclass(frozen=True)
class RowChecker:
    """A checker that is a function of one row. `judge` gives the problem, or its text where it
    is a warning."""

    name: str
    version: str
    level: Level
    judge: Callable[[Row], Problem | str | None]

    def look(self, row: Row) -> Problem | None:
        found = self.judge(row)
        return Problem(found) if isinstance(found, str) else found

    def finish(self) -> Iterable[tuple[int, Problem]]:
        return ()


@dataclass(frozen=True)
class CheckReport:
    """`findings`: the first of each checker, in the order of lines, SHOWN together at the most.
    `counts`: rows with a finding, by checker (0 where there is none); `versions` of those that
    looked. `rows` were looked at.
    """

    level: str
    rows: int
    findings: tuple[Finding, ...]
    counts: dict[str, int]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """{level, rows, versions, counts, findings: [{checker, version, level, severity, line,
        text}]}"""
        return {
            "level": self.level,
            "rows": self.rows,
            "versions": self.versions,
            "counts": self.counts,
            "findings": [
                {name: getattr(found, name) for name in Finding.__slots__}
                for found in self.findings
            ],
        }


def answers(row: Row) -> list[str]:
    """The texts of a row that train: the assistant's turns, or the whole of a text."""
    if row.messages is None:
        return [row.text or ""]
    return [turn.content for turn in row.messages if turn.role == "assistant"]


def texts(row: Row) -> list[str]:
    """Every text of a row."""
    if row.messages is None:
        return [row.text or ""]
    return [turn.content for turn in row.messages]


def after_thinking(text: str) -> str:
    """An answer without a think block before it."""
    return text.rpartition("</think>")[2].strip()


def quoted(text: str, width: int = 40) -> str:
    """A text for a line that a person reads: one line, in quotes, cut."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= width else flat[: width - 1] + "…")
