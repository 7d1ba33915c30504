"""How many answers of each stored evaluation are right: what lists, ranks and curves need.

One statement over the results, without the texts: a list of a hundred versions must not read a
hundred thousand answers one by one. An error or an answer that nobody could judge is in no count.
Reads only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import orjson

from queue_store.results import Outcome, Scored

Question = tuple[str, str, str]
"""A set's name and digest, and the digest of the generation configuration."""

UNANSWERED = 0.05
"""The share of items without an answer up to which a model is judged by a set at all: what fails
is often what is hard or long."""


@dataclass(frozen=True)
class Tally:
    """An evaluation in numbers: of the set's `items`, `n` have an answer that was judged, `right`
    of them right. `model` is the digest of its weights."""

    evaluation: int
    model: str
    set_name: str
    set_digest: str
    config: str
    items: int
    right: int
    n: int

    @property
    def whole(self) -> bool:
        """Whether so few items lack a verdict that the share stands for the set."""
        return self.items - self.n <= UNANSWERED * self.items

    @property
    def question(self) -> Question:
        """What was asked, and how: equal for evaluations that can be compared."""
        return self.set_name, self.set_digest, self.config


def tallies(db: sqlite3.Connection, models: Collection[str] | None = None) -> list[Tally]:
    """Every evaluation (of these models, by their weights' digests) with a judged answer, in the
    order in which they were begun. `db` is a connection to metrics.db."""
    chosen = None if models is None else orjson.dumps(list(models)).decode()
    rows = db.execute(
        "SELECT e.id, e.model, e.set_name, e.set_digest, e.config,"
        " (SELECT COUNT(*) FROM evaluation_items i WHERE i.set_digest = e.set_digest),"
        " SUM(s.exact), COUNT(*), COUNT(DISTINCT s.answer)"
        " FROM evaluations e JOIN answers a ON a.evaluation = e.id AND a.complete"
        " JOIN scores s ON s.answer = a.id AND s.exact IS NOT NULL"
        " WHERE ?1 IS NULL OR e.model IN (SELECT value FROM json_each(?1))"
        " GROUP BY e.id ORDER BY e.id",
        (chosen,),
    ).fetchall()
    found = []
    for evaluation, model, name, digest, config, items, right, scores, answers in map(tuple, rows):
        if scores > answers:  # several scorers, or versions of one, judged the same answer
            right = _newest_right(db, evaluation)
        found.append(Tally(evaluation, model, name, digest, config, items, right, answers))
    return found


def _newest_right(db: sqlite3.Connection, evaluation: int) -> int:
    """How many answers are right by the newest version of their scorer."""
    best: dict[int, tuple[list[tuple[int, str]], int]] = {}
    for answer, version, exact in db.execute(
        "SELECT s.answer, s.version, s.exact FROM answers a JOIN scores s ON s.answer = a.id"
        " WHERE a.evaluation = ? AND a.complete AND s.exact IS NOT NULL"
        " ORDER BY s.answer, s.scorer, s.version",
        (evaluation,),
    ):
        key = version_order(version)
        if answer not in best or key > best[answer][0]:
            best[answer] = key, exact
    return sum(exact for _, exact in best.values())


def newest(found: Iterable[Tally]) -> dict[str, dict[str, Tally]]:
    """{model: {set: the evaluation of it that was begun last}}."""
    told: dict[str, dict[str, Tally]] = {}
    for one in sorted(found, key=lambda tally: tally.evaluation):
        told.setdefault(one.model, {})[one.set_name] = one
    return told


def commonest(found: Collection[Tally]) -> dict[str, tuple[Question, int]]:
    """{set: (the state and manner in which most models were asked it, how many)}, the sets by
    name; of equals the one that was asked last."""
    models: dict[Question, set[str]] = {}
    last: dict[Question, int] = {}
    for one in found:
        models.setdefault(one.question, set()).add(one.model)
        last[one.question] = max(last.get(one.question, 0), one.evaluation)
    best: dict[str, tuple[Question, int]] = {}
    for question in sorted(models, key=lambda asked: (len(models[asked]), last[asked])):
        best[question[0]] = question, len(models[question])
    return dict(sorted(best.items()))


def alike(found: Collection[Tally], models: Collection[str]) -> dict[str, list[Tally]]:
    """{model: its evaluations}, all of one and the same questions, for shares of others are no
    comparison: the commonest of each set, of the sets that at least half as many were asked as of
    the set that most were. Not in it: a model that lacks one of them, or was asked but a part."""
    fit = [one for one in found if one.model in models and one.whole]
    asked: dict[str, dict[Question, Tally]] = {}
    for one in fit:
        asked.setdefault(one.model, {})[one.question] = one
    best = commonest(fit).values()
    most = max((number for _, number in best), default=0)
    questions = [question for question, number in best if 2 * number >= most]
    return {
        model: [mine[question] for question in questions]
        for model, mine in asked.items()
        if all(question in mine for question in questions)
    }


def verdict(outcome: Outcome) -> bool | None:
    """What the newest version of its scorer said of an answer; None where nothing is known."""
    judged: list[Scored] = [score for score in outcome.scores if score.exact is not None]
    if not outcome.answered or not judged:
        return None
    return max(judged, key=lambda score: version_order(score.version)).exact


def version_order(version: str) -> list[tuple[int, str]]:
    """A version's place among others: its numbers count as numbers."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in version.split(".")]
