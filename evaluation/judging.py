"""From a set to the items that are asked, and from answers to scores that are kept.

An answer is judged without the thinking that it opens with and without what the profile adds to
answers (`plain`, as training's own samples are judged), and kept as the model gave it. Where a
scorer fails the score says so: nobody takes it for a wrong answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from evaluation.scorers import Scorer, apply, scorer_for
from evaluation.sets import EvalSet
from evaluation.thinking import answer_of
from queue_store.errors import DataError
from queue_store.results import Result, Results, Scored, SetItem

Plain = Callable[[str], str]
"""An answer without what a profile adds; `str` where there is none."""

BATCH = 500


def set_items(one: EvalSet) -> list[SetItem]:
    """The rows of a set as the results keep them, in its order."""
    return [
        SetItem(
            id=example.id,
            position=position,
            prompt=list(example.prompt),
            expected=example.expected,
            skill=example.skill,
            level=example.level,
            tier=example.tier,
            metadata=example.metadata,
        )
        for position, example in enumerate(one.examples)
    ]


def judged(item: SetItem, result: Result, plain: Plain = str) -> Result:
    """The result with the score of its item's scorer; one that is an error stays as it is."""
    if not result.complete:
        return result
    return dataclasses.replace(result, scores=(judge(item, result.answer, plain),))


def judge(item: SetItem, answer: str, plain: Plain = str) -> Scored:
    """What the present version of an item's scorer says of an answer, or why it could not."""
    try:
        scorer = scorer_for(item.skill, item.expected, item.metadata)
    except DataError as error:
        return Scored(str(item.metadata.get("scorer", "")), "", None, error=str(error))
    return _by(scorer, item, answer, plain)


def _by(scorer: Scorer, item: SetItem, answer: str, plain: Plain) -> Scored:
    try:
        text = plain(answer_of(answer))
        score = apply(scorer, item.expected, text, item.metadata)
    except Exception as error:  # one's own profile is another's program, as one's own scorer is
        told = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        return Scored(scorer.name, scorer.version, None, error=told)
    return Scored(scorer.name, scorer.version, score.exact, score.parts)


def rejudge(results: Results, evaluation: int, plain: Plain = str) -> int:
    """Judge the stored answers that the present version of their scorer has not judged, and keep
    the scores beside those that are there. How many that were; no model is asked.
    Raises NotFound for an unknown evaluation."""
    asked = results.items(results.evaluation(evaluation).set_digest)
    items = {item.id: item for item in asked}
    waiting: list[str] = []
    for outcome in results.outcomes(evaluation):
        if outcome.answered and not _has(items[outcome.item], outcome.scores):
            waiting.append(outcome.item)
    for start in range(0, len(waiting), BATCH):
        scores = {
            one.item: [judge(items[one.item], one.answer, plain)]
            for one in results.results(evaluation, waiting[start : start + BATCH])
        }
        results.add_scores(evaluation, scores)
    return len(waiting)


def _has(item: SetItem, scores: Sequence[Scored]) -> bool:
    try:
        scorer = scorer_for(item.skill, item.expected, item.metadata)
    except DataError:
        return True  # there is nobody to judge it
    mine = (scorer.name, scorer.version)
    return any((one.scorer, one.version) == mine and not one.error for one in scores)
