"""The skills that trainctl can make data for and judge: one table, for faces and commands."""

from __future__ import annotations

import difflib
from collections import deque
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
    tiers: dict[str, tuple[int, int]]
    """Lowest and highest level of easy, medium and hard, which share out all levels."""
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
            {"easy": (1, 5), "medium": (6, 12), "hard": (13, 30)},
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
            {"easy": (1, 3), "medium": (4, 6), "hard": (7, 10)},
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


TIERS = ("easy", "medium", "hard")


def generate_tier(
    skill: str, tier: str, count: int, seed: int, held_out: bool = False
) -> list[dict[str, Any]]:
    """`count` different rows over all levels of a tier, in equal shares while a level has rows,
    the levels in turn, so that the first rows are of all of them. Their metadata names the tier.

    Raises UsageError for an unknown skill or tier, or a count that is not possible.
    """
    found = get_skill(skill)
    if tier not in found.tiers:
        raise UsageError(f"{skill} has no tier {tier!r}", mend=f"one of {', '.join(found.tiers)}")
    if count < 1:
        raise UsageError(f"count {count} makes no file", mend="give 1 or more")
    low, high = found.tiers[tier]
    possible = {level: found.possible(level, held_out) for level in range(low, high + 1)}
    # Each level's rows are drawn one after the other, so a stream may be left where it stands.
    sources = deque(found.make(level, most, seed, held_out) for level, most in possible.items())
    rows: list[dict[str, Any]] = []
    asked: set[str] = set()
    most = sum(possible.values())
    while sources and len(rows) < count <= most:
        row = next(sources[0], None)
        if row is None:
            sources.popleft()
            continue
        question = row["messages"][0]["content"]
        # tobinary(5) is a problem of several levels.
        if question not in asked:
            asked.add(question)
            row["metadata"]["tier"] = tier
            rows.append(row)
            sources.rotate(-1)
    if len(rows) < count:
        most = min(most, len(rows) or most)
        kind = "held-out rows" if held_out else "rows"
        raise UsageError(
            f"{skill} {tier} has no {count} different {kind}",
            mend=f"at most {most} in one file",
        )
    return rows
