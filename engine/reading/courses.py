"""How an example goes over the ticks: when it was learned and lost, and what the last tick changed.

An answer improves where it becomes exact, or, exact neither before nor now, where its similarity
to the expected one grows by MOVED; it regresses the other way round, and is stable else. Told of
each tick against the example's own tick before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MOVED = 0.05
"""A smaller change of the similarity is none: one other word does not make an answer better."""

IMPROVING, REGRESSING, STABLE, NEW = "improving", "regressing", "stable", "new"
CHANGES = (IMPROVING, REGRESSING, STABLE, NEW)


@dataclass(frozen=True)
class Course:
    """An example at a tick. `learned`: the step at which it was right for the first time, None =
    not yet. `lost`: the step since which it is wrong after it had been right, None = it is not.
    `since`: the step of its tick before, None = this is its first; `change`: one of CHANGES."""

    learned: int | None
    lost: int | None
    since: int | None
    change: str


Tick = tuple[int, str]
"""(step, example)."""


def courses(marks: Iterable[tuple[int, str, bool, float]]) -> dict[Tick, Course]:
    """The course at each of `marks`, (step, example, exact, similarity) by step."""
    found: dict[Tick, Course] = {}
    last: dict[str, tuple[int, bool, float]] = {}
    for step, example, exact, similarity in marks:
        before = last.get(example)
        if before is None:
            learned, lost = (step if exact else None), None
            since, change = None, NEW
        else:
            was = found[before[0], example]
            since, change = before[0], moved(before[1:], (exact, similarity))
            learned = was.learned if was.learned is not None or not exact else step
            lost = None if exact else step if before[1] else was.lost
        found[step, example] = Course(learned, lost, since, change)
        last[example] = step, exact, similarity
    return found


def moved(before: tuple[bool, float], now: tuple[bool, float]) -> str:
    """What changed between two answers, each (exact, similarity)."""
    if before[0] != now[0]:
        return IMPROVING if now[0] else REGRESSING
    by = 0.0 if now[0] else now[1] - before[1]
    if abs(by) < MOVED:
        return STABLE
    return IMPROVING if by > 0 else REGRESSING


def counts(of: Mapping[Tick, Course], step: int) -> dict[str, int]:
    """How many examples did what at the tick of `step`: {improving, regressing, stable, new}."""
    told = Counter(course.change for (at, _), course in of.items() if at == step)
    return {change: told[change] for change in CHANGES}
