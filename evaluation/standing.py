"""How one model stands on one set, by its stored answers. Reads only; asks no model.

An answer that is missing, an error or one that nobody could judge is no wrong answer: it is
counted apart, and accuracy is of the answers that were judged.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any

from evaluation.compare import speed
from evaluation.rates import rate
from queue_store import tallies
from queue_store.results import Results
from queue_store.tallies import Tally, verdict

Json = dict[str, Any]
NEVER = {"unknown": "it was never evaluated"}


def standing(results: Results, evaluation: int) -> Json:
    """{set, digest, config, items, answered, right, accuracy RATE, tiers{tier: RATE},
    errors{kind: n}, missing, speed[]}: RATE as rates.rate has it, `speed` as compare.speed;
    `missing` were never asked. Raises NotFound for an unknown evaluation."""
    one = results.evaluation(evaluation)
    outcomes = results.outcomes(evaluation)
    errors: Counter[str] = Counter()
    tiers: dict[str, list[bool]] = defaultdict(list)
    missing = 0
    for outcome in outcomes:
        said = verdict(outcome)
        if said is not None:
            tiers[outcome.tier].append(said)
        elif outcome.answered:
            errors["scorer"] += 1
        elif outcome.error_kind == "missing":
            missing += 1
        else:
            errors[outcome.error_kind] += 1
    verdicts = [said for mine in tiers.values() for said in mine]
    return {
        **{"set": one.set_name, "digest": one.set_digest, "config": one.config},
        **{"items": one.items, "answered": one.complete, "right": sum(verdicts)},
        "accuracy": rate(sum(verdicts), len(verdicts)),
        "tiers": {tier: rate(sum(mine), len(mine)) for tier, mine in sorted(tiers.items()) if tier},
        **{"errors": dict(errors), "missing": missing, "speed": speed(outcomes)},
    }


def scores(db: sqlite3.Connection, models: Collection[str]) -> dict[str, Json]:
    """{model: {SET: {right, n, accuracy, low, high, items, digest, config}}} of models by their
    weights' digests: the newest evaluation of each set, its share right with the 95 % interval;
    of one that was never evaluated {"unknown": why}. `db` is a connection to metrics.db."""
    found = tallies.newest(tallies.tallies(db, models))
    return {
        model: {name: score(one) for name, one in sorted(found[model].items())}
        if model in found
        else NEVER
        for model in models
    }


def score(one: Tally) -> Json:
    """One of `scores`."""
    told = rate(one.right, one.n)
    return {
        **{"right": one.right, "n": one.n, "accuracy": told["share"]},
        **{"low": told["low"], "high": told["high"]},
        **{"items": one.items, "digest": one.set_digest, "config": one.config},
    }
