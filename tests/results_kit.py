"""Stored results of made-up models: what a worker would have written, by a rule a test can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from queue_store.results import Result, Results, Scored, SetItem

SET = "5" * 64
SETTINGS = {"temperature": 0.0, "max_tokens": 64}
TIERS = ("easy", "medium", "hard")


def digest(sign: str) -> str:
    """A digest that is told by its first letter."""
    return sign * 64


def items(count: int, skill: str = "sums") -> list[SetItem]:
    """Items q0, q1 … of ten levels and three tiers in turn."""
    return [
        SetItem(
            id=f"q{n}",
            position=n,
            prompt=[{"role": "system", "content": "short"}, {"role": "user", "content": f"{n}+1?"}],
            expected=str(n + 1),
            skill=skill,
            level=n % 10 + 1,
            tier=TIERS[n % 3],
        )
        for n in range(count)
    ]


def answer(
    n: int, right: bool, *, scorer: str = "exact_match", version: str = "1.1.0", **parts: float
) -> Result:
    """The answer to item n, right or wrong."""
    score = Scored(scorer, version, right, parts or {"match": float(right)})
    text = str(n + 1) if right else "no idea"
    return Result(f"q{n}", text, "stop", 10, 500.0, 8, "plain", "box", scores=(score,))


def store(
    results: Results,
    model: str,
    made: Mapping[int, Result | None] | Callable[[int], Result | None],
    *,
    count: int = 40,
    set_digest: str = SET,
    set_name: str = "sums",
    settings: Mapping[str, Any] = SETTINGS,
    asked: Sequence[SetItem] | None = None,
) -> int:
    """Keep what `made` says of every item (None: never asked); the evaluation's id."""
    asked = items(count) if asked is None else asked
    evaluation = results.begin(model, set_digest, set_name, asked, settings)
    given = made if callable(made) else made.get
    results.put(evaluation, [one for n in range(len(asked)) if (one := given(n)) is not None])
    return evaluation
