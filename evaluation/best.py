"""Whether a model becomes the best one: decided by a paired test, and by nothing else.

Pure: it takes what `compare` found and says yes or no, with the reason that is to be recorded.
Every new version is tested once against the present best; a lucky one of equal worth passes such
a test in 2.5 % of cases. Must never move on a gain that is not significant, on a set that lost
significantly, nor on a model of which answers are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation import statistics
from queue_store.tallies import UNANSWERED


@dataclass(frozen=True)
class Decision:
    """`move` the tag or not, and `why`, in a sentence; the numbers that it was decided by:
    items compared, those gained and lost over all sets, and the exact p of the two. Not `final`
    where answers are still to come."""

    move: bool
    why: str
    n: int
    gained: int
    lost: int
    p: float
    final: bool = True


def decide(found: Mapping[str, Any], *, alarm: str = "") -> Decision:
    """Whether the second model of a comparison (`compare.compare`: the present best, or the base
    model where there is none, against the candidate) becomes the best.

    All sets that could be compared count together, an item each; `alarm` is what the canary says
    of the candidate ("" for nothing).
    """
    best, candidate = found["a"]["name"], found["b"]["name"]
    tests = [one["accuracy"] for one in found["sets"]]
    n = sum(test["n"] for test in tests)
    gained, lost = (sum(test[side] for test in tests) for side in ("gained", "lost"))
    p = statistics.mcnemar(gained, lost)

    def said(move: bool, why: str, final: bool = True) -> Decision:
        return Decision(move, why, n, gained, lost, p, final)

    if alarm:
        return said(False, f"{candidate} is not judged: {alarm}")
    if not n:
        return said(False, f"{candidate} and {best} have no item in common that both answered")
    asked = sum(one["items"] for one in found["sets"])
    failed = sum(sum(one["errors"]["b"].values()) for one in found["sets"])
    if failed > UNANSWERED * asked:
        why = f"{candidate} is not judged yet: {failed} of {asked} items have no answer of it"
        return said(False, why, final=False)
    numbers = f"gained {gained}, lost {lost} of {n} items (p {p:.2g})"
    for one in found["sets"]:
        test = one["accuracy"]
        if test["lost"] > test["gained"] and test["p"] <= statistics.ALPHA:
            return said(
                False,
                f"{candidate} is worse than {best} on set {one['set']}: gained {test['gained']},"
                f" lost {test['lost']} of {test['n']} items (p {test['p']:.2g})",
            )
    if gained > lost and p <= statistics.ALPHA:
        return said(True, f"{candidate} is better than {best}: {numbers}")
    if gained > lost:
        return said(False, f"{candidate} is not shown to be better than {best}: {numbers}")
    return said(False, f"{candidate} is no better than {best}: {numbers}")
