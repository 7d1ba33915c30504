"""The skills that trainctl can make data for and judge: one table, for faces and commands."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from evaluation import binary, syllo
from evaluation.scorers import SCORERS, Scorer
from queue_store.errors import UsageError


class MakeRows(Protocol):
    def __call__(
        self, level: int, count: int, seed: int, held_out: bool = False
    ) -> Iterator[dict[str, Any]]: ...


@dataclass(frozen=True)
class Skill:
    id: str
    about: str
    levels: tuple[int, int]
    """Lowest and highest level."""
    make: MakeRows
    """(level, count, seed, held_out) -> rows with `messages` and `metadata`."""
    possible: Callable[[int, bool], int]
    """(level, held_out) -> how many different rows there are, at most."""
    generator_id: str
    generator_version: str
    scorer: Scorer


SKILLS: dict[str, Skill] = {
    skill.id: skill
    for skill in (
        Skill(
            "binary",
            "arithmetic with the digits ⓪ and ①; level N has operands of N + 1 bits",
            (binary.LEVELS[0], binary.LEVELS[-1]),
            binary.make,
            binary.possible,
            binary.GENERATOR_ID,
            binary.GENERATOR_VERSION,
            SCORERS["binary"],
        ),
        Skill(
            "syllo",
            "words from clues and a bank of syllable tiles; more and longer words by level",
            (min(syllo.LEVELS), max(syllo.LEVELS)),
            syllo.make,
            syllo.possible,
            syllo.GENERATOR_ID,
            syllo.GENERATOR_VERSION,
            SCORERS["syllo"],
        ),
    )
}


def get_skill(name: str) -> Skill:
    """Raises UsageError that names the neighbour of an unknown skill."""
    if name in SKILLS:
        return SKILLS[name]
    near = difflib.get_close_matches(name.lower(), SKILLS, 1, cutoff=0.4)
    known = f"known: {', '.join(SKILLS)}"
    raise UsageError(
        f"unknown skill {name!r}", mend=f"did you mean {near[0]}? {known}" if near else known
    )


def generate(
    skill: str, level: int, count: int, seed: int, held_out: bool = False
) -> list[dict[str, Any]]:
    """`count` different rows, the same for the same arguments.

    Raises UsageError for an unknown skill, a level out of range, or a count that is not possible.
    """
    found = get_skill(skill)
    low, high = found.levels
    if not low <= level <= high:
        raise UsageError(f"{skill} has no level {level}", mend=f"levels {low} to {high}")
    if count < 1:
        raise UsageError(f"count {count} makes no file", mend="give 1 or more")
    most = found.possible(level, held_out)
    if count > most:
        kind = "held-out rows" if held_out else "rows"
        raise UsageError(
            f"{skill} level {level} has no {count} different {kind}",
            mend=f"at most {most} in one file",
        )
    return list(found.make(level, count, seed, held_out))
