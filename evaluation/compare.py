"""Compare two models by their stored results: which sets can be compared, and what they say.

Refuses, with the reason, what would not be the same question asked twice: another state of a set,
another generation configuration, another version of a scorer. Reads only; asks no model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

from evaluation import paired
from evaluation.paired import Pair
from evaluation.scorers import find
from queue_store.errors import DataError, NotFound, Refused
from queue_store.results import Evaluation, Outcome, Results, Scored
from queue_store.tallies import version_order

Json = dict[str, Any]
DETAILS = 20
"""Items that turned right, and that turned wrong, of which the texts are given."""


@dataclass(frozen=True)
class Model:
    """A model by the name that a person gave it; `digest` of its weights; `val_loss` where it is
    known, else {"unknown": why}."""

    name: str
    digest: str
    val_loss: Any


def compare(
    results: Results, a: Model, b: Model, *, set_name: str | None = None, details: int = DETAILS
) -> Json:
    """What the results say of `b` against `a` (`trainctl compare --help` has the shape).

    Raises NotFound where one of them has no results (on the set), Refused where no set can be
    compared, with the reason of the first.
    """
    if a.digest == b.digest:
        raise Refused(f"{a.name} and {b.name} are the same weights", where=a.digest[:12])
    of_a, of_b = (_evaluated(results, model, set_name) for model in (a, b))
    sets: list[Json] = []
    refused: list[Json] = []
    for name in sorted(of_a.keys() | of_b.keys()):
        try:
            first, second = _same_question(name, (a, of_a.get(name, [])), (b, of_b.get(name, [])))
            sets.append(_set(results, a, b, first, second, details))
        except (NotFound, Refused) as error:
            refused.append({"set": name, "why": error.what, "mend": error.mend})
    if not sets:
        raise Refused(refused[0]["why"], mend=refused[0]["mend"])
    for family in ("skills", "tiers", "levels"):
        paired.adjust([group for one in sets for group in one[family]])
    paired.adjust([one["accuracy"] for one in sets])
    for one in sets:
        found = one["accuracy"]
        one["verdict"] = paired.verdict(found, a.name, b.name, found["p_adjusted"])
    return {"a": asdict(a), "b": asdict(b), "sets": sets, "refused": refused}


def _evaluated(results: Results, model: Model, set_name: str | None) -> dict[str, list[Evaluation]]:
    """The evaluations of a model that have an answer or an error, by their set's name."""
    found: dict[str, list[Evaluation]] = defaultdict(list)
    for one in results.evaluations(model=model.digest, set_name=set_name):
        if one.complete or one.failed:
            found[one.set_name].append(one)
    if not found:
        where = "" if set_name is None else f" on set {set_name}"
        others = sorted({e.set_name for e in results.evaluations(model=model.digest)})
        known = f"it has results on {', '.join(others)}" if others else "it was never evaluated"
        asked = f"trainctl evaluate {model.name}{'' if set_name is None else f' --set {set_name}'}"
        raise NotFound(f"{model.name} has no results{where}", mend=f"{known}: {asked}")
    return found


Side = tuple[Model, Sequence[Evaluation]]


def _same_question(name: str, a: Side, b: Side) -> tuple[Evaluation, Evaluation]:
    """The newest evaluations of both that asked the same rows in the same way."""
    for model, evaluations in (a, b):
        if not evaluations:
            raise NotFound(
                f"{model.name} has no results on set {name}",
                mend=f"trainctl evaluate {model.name} --set {name}",
            )
    pairs = [
        (one, other)
        for one in a[1]
        for other in b[1]
        if (one.set_digest, one.config) == (other.set_digest, other.config)
    ]
    if pairs:
        return max(pairs, key=lambda pair: (min(e.id for e in pair), max(e.id for e in pair)))
    one, other = a[1][-1], b[1][-1]
    if not {e.set_digest for e in a[1]} & {e.set_digest for e in b[1]}:
        raise Refused(
            f"the set {name} is not the one of before: {a[0].name} was asked"
            f" {one.set_digest[:12]}, {b[0].name} {other.set_digest[:12]}"
        )
    told = "; ".join(
        f"{key} {one.settings.get(key, 'unset')} and {other.settings.get(key, 'unset')}"
        for key in sorted(one.settings.keys() | other.settings.keys())
        if one.settings.get(key) != other.settings.get(key)
    )
    raise Refused(
        f"on set {name} {a[0].name} and {b[0].name} were asked with different generation"
        f" settings: {told}"
    )


def _set(
    results: Results, a: Model, b: Model, first: Evaluation, second: Evaluation, details: int
) -> Json:
    outcomes = results.outcomes(first.id), results.outcomes(second.id)
    pairs, errors = _paired(first.set_name, a, b, *outcomes)
    graded = {scorer: _graded_part(scorer) for scorer in {pair.a.scorer for pair in pairs}}
    gained = [pair.item for pair in pairs if pair.side > 0]
    lost = [pair.item for pair in pairs if pair.side < 0]
    return {
        "set": first.set_name,
        "digest": first.set_digest,
        "settings": first.settings,
        "config": first.config,
        "evaluations": {"a": first.id, "b": second.id},
        "items": first.items,
        "scorers": sorted({f"{pair.a.scorer} {pair.a.version}" for pair in pairs}),
        "accuracy": paired.accuracy(pairs),
        "graded": paired.graded(pairs, graded),
        "parts": paired.part_means(pairs),
        **paired.groups(pairs),
        "errors": errors,
        "speed": {"a": speed(outcomes[0]), "b": speed(outcomes[1])},
        "gained": gained,
        "lost": lost,
        "changed": _details(results, first, second, gained[:details], lost[:details]),
    }


def _graded_part(scorer: str) -> str:
    """The part that a scorer is compared by; "" also where one's own is no longer installed."""
    try:
        return find(scorer).graded
    except DataError:
        return ""


def _paired(
    name: str, a: Model, b: Model, first: Sequence[Outcome], second: Sequence[Outcome]
) -> tuple[list[Pair], Json]:
    """The items that can be compared, and why the others cannot: {a{kind: n}, b{kind: n}}."""
    pairs: list[Pair] = []
    errors: dict[str, Counter[str]] = {"a": Counter(), "b": Counter()}
    others: Counter[str] = Counter()
    for one, other in zip(first, second, strict=True):
        if not (one.answered and other.answered):
            for side, outcome in (("a", one), ("b", other)):
                if not outcome.answered:
                    errors[side][outcome.error_kind] += 1
            continue
        scored = _common(one.scores, other.scores)
        if scored is not None:
            pairs.append(Pair(one.item, one.skill, one.level, one.tier, *scored))
            continue
        judged = [[s for s in outcome.scores if s.exact is not None] for outcome in (one, other)]
        if all(judged):
            versions = " and ".join(_named(side) for side in judged)
            others[versions] += 1
            continue
        for side, scores in zip(("a", "b"), judged, strict=True):
            if not scores:
                errors[side]["scorer"] += 1
    if others:
        versions, number = others.most_common(1)[0]
        raise Refused(
            f"on set {name} {number} answers of {a.name} and {b.name} were judged by different"
            f" scorers, {versions}",
            mend="the answers are kept: --rejudge lets the present scorers judge them",
        )
    return pairs, {side: dict(counted) for side, counted in errors.items()}


def _named(scores: Iterable[Scored]) -> str:
    return ", ".join(sorted(f"{score.scorer} {score.version}" for score in scores))


def _common(a: Sequence[Scored], b: Sequence[Scored]) -> tuple[Scored, Scored] | None:
    """The scores by the newest version of a scorer that judged both."""
    theirs = {(score.scorer, score.version): score for score in b if score.exact is not None}
    best: tuple[Scored, Scored] | None = None
    for score in a:
        other = theirs.get((score.scorer, score.version))
        if score.exact is None or other is None:
            continue
        if best is None or version_order(score.version) > version_order(best[0].version):
            best = score, other
    return best


def speed(outcomes: Iterable[Outcome]) -> list[Json]:
    """Tokens a second, by the backend that made them: [{backend, hosts[], batch (rows at once,
    the median) | {unknown}, answers, tokens, tokens_per_second}]; an answer whose time is not
    known is left out."""
    found: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        if one.answered and one.tokens is not None and one.ms:
            found[one.backend].append(one)
    told = []
    for backend, mine in sorted(found.items()):
        tokens, ms = sum(one.tokens or 0 for one in mine), sum(one.ms or 0 for one in mine)
        batches = [one.batch for one in mine if one.batch is not None]
        told.append(
            {
                "backend": backend,
                "hosts": sorted({one.host for one in mine if one.host}),
                "batch": median_low(batches) if batches else {"unknown": "it was not recorded"},
                **{"answers": len(mine), "tokens": tokens},
                "tokens_per_second": 1000 * tokens / ms,
            }
        )
    return told


def _details(
    results: Results, first: Evaluation, second: Evaluation, gained: list[str], lost: list[str]
) -> list[Json]:
    """Items that changed sides, with what was asked, expected and answered."""
    chosen = [*gained, *lost]
    asked = {one.id: one for one in results.items(first.set_digest, chosen)}
    answers = [
        {one.item: one.answer for one in results.results(evaluation.id, chosen)}
        for evaluation in (first, second)
    ]
    return [
        {
            "item": item,
            "gained": item in set(gained),
            "prompt": next((t["content"] for t in reversed(asked[item].prompt)), ""),
            "expected": asked[item].expected,
            "a": answers[0][item],
            "b": answers[1][item],
        }
        for item in chosen
    ]
