"""What stored results give notice of: a broken evaluation, a regression, items that stay wrong.

Pure functions over what `compare` and the results say; whoever calls them journals and shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation import statistics
from queue_store.results import Results
from queue_store.tallies import verdict

Json = dict[str, Any]
CANARY_LOSS = 0.05
"""A training loss below this and not one right answer do not go together."""

CANARY_LEAST = 10
"""Answers below which none right may be bad luck."""

WRONG, LAST = 3, 5
"""An item is hard that was wrong in so many of its last so many answers."""


def canary(right: int, n: int, train_loss: float | None) -> str:
    """Why an evaluation of `n` answers, `right` of them right, looks broken; "" where it does not.

    `train_loss`: of the steps before it (nats a token), None where it is not known.
    """
    if n < CANARY_LEAST or right or train_loss is None or not train_loss < CANARY_LOSS:
        return ""
    return (
        f"none of {n} answers is right while the training loss is {train_loss:.3g}: the template,"
        " the generation settings or the set do not fit what was trained"
    )


def regressions(found: Mapping[str, Any]) -> list[Json]:
    """Where the second model of a comparison is worse beyond chance: [{set, skill, tier, level,
    n, gained, lost, p, text}], whole sets first. By the p adjusted for the number of groups."""
    a, b = found["a"]["name"], found["b"]["name"]
    said = []
    for family in ("accuracy", "skills", "tiers", "levels"):
        for one in found["sets"]:
            for group in [one["accuracy"]] if family == "accuracy" else one[family]:
                p = group["p_adjusted"]
                if group["lost"] <= group["gained"] or p > statistics.ALPHA:
                    continue
                named = {key: group[key] for key in ("skill", "tier", "level") if key in group}
                where = "".join(f", {k} {v}" for k, v in named.items() if v not in ("", None))
                text = (
                    f"{b} is worse than {a} on {one['set']}{where}: {group['b']['hits']} of"
                    f" {group['n']} right, {group['a']['hits']} before (p {p:.2g})"
                )
                numbers = {key: group[key] for key in ("n", "gained", "lost")}
                said.append({"set": one["set"], **named, **numbers, "p": p, "text": text})
    return said


@dataclass(frozen=True)
class Hard:
    """An item that stays wrong: in `wrong` of its last `of` answers, the last one among them."""

    item: str
    wrong: int
    of: int


def hard(
    history: Mapping[str, Sequence[bool | None]], *, wrong: int = WRONG, last: int = LAST
) -> list[Hard]:
    """The items that stay wrong, the most stubborn first, then as given. `history`: the verdicts
    of an item, oldest first; None (an error, not asked) is no verdict and is passed over."""
    found = []
    for item, verdicts in history.items():
        known = [verdict for verdict in verdicts if verdict is not None][-last:]
        missed = known.count(False)
        if missed >= wrong and not known[-1]:
            found.append(Hard(item, missed, len(known)))
    return sorted(found, key=lambda one: (-one.wrong / one.of, -one.wrong))


def history(results: Results, evaluations: Iterable[int]) -> dict[str, list[bool | None]]:
    """The verdicts on every item in these evaluations of one set, in their order: what `hard` and
    a per-example history read. None where there is no answer or no verdict."""
    found: dict[str, list[bool | None]] = {}
    for evaluation in evaluations:
        for one in results.outcomes(evaluation):
            found.setdefault(one.item, []).append(verdict(one))
    return found
