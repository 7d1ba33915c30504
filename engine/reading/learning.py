"""Does it get better? The curves, the held-out scores and what they say of the present line.

Everything is read of what is stored, nothing is measured anew, and a verdict names the figures
that it rests on. Where there are too few, or they are not comparable, that is said instead.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from engine import lines
from engine.judging import verdicts
from engine.lines import Segment
from engine.messages import unknown
from evaluation import hints
from evaluation.learning import Held, Point, Span, effects, learning, noise
from evaluation.rates import rate
from queue_store import journal, records, tallies
from queue_store.database import State, now
from queue_store.metrics import SPLIT, VAL_LOSS
from queue_store.results import Evaluation, Results
from queue_store.tallies import Tally
from snapshots import labels, named, versions

if TYPE_CHECKING:
    from engine.reading.views import Views

Json = dict[str, Any]
POINTS = 1000
"""Of the training curve; each stands for the steps since the one before."""
EVENTS = ("evaluation.regression", "evaluation.canary", "best.moved", "best.kept")
EVENTS_SHOWN = 100
HARD_SHOWN = 50
TEXT = 400
"""Letters of a prompt or an answer that are told."""


@dataclass(frozen=True)
class Judged:
    """A model of the line that was evaluated: its name (the newest version's with these weights,
    else the checkpoint's), and where it stands."""

    name: str
    digest: str
    step: int


def report(views: Views) -> Json:
    """`trainctl report --learning --json` (its --help has the shape). Reads only."""
    state, metrics, line = views.state, views.metrics, views.line()
    head = records.head(state)
    ticks = _validations(metrics, line)
    stretches = [list(same) for _, same in groupby(ticks.pop(VAL_LOSS, []), lambda t: t[2])]
    last = [Point(step, loss) for step, loss, _ in stretches[-1]] if stretches else []
    train = lines.series(metrics, line, "loss", width=POINTS, start=None, end=None)["points"]
    mean = [Point(step, value) for step, _, _, value, _ in train if value is not None]
    with Results(views.home, metrics) as results:
        models = _models(state, line)
        stored = tallies.tallies(metrics, {one.digest for one in models})
        held = _held(models, stored)
        scores = [
            _scores(results, models, stored, question)
            for question, _ in tallies.commonest(stored).values()
        ]
        hard = [row for one in scores for row in _hard(results, one)]
    said = learning(mean, last, [Held(one["step"], one["right"], one["n"]) for one in held])
    first = stretches[-1][0][0] if stretches else 0
    best = labels.best(state)
    told = [_event(e) for e in journal.events(state, kinds=EVENTS, limit=1 << 30)][-EVENTS_SHOWN:]
    return {
        "made": now(),
        "branch": head.branch if head else unknown("nothing has trained yet"),
        "step": train[-1][0] if train else 0,
        "verdict": {**said, "noise": noise([point.loss for point in last])},
        "comparable_from": first if len(stretches) > 1 else unknown("all validations are alike"),
        "curves": {
            "train": train,
            "val": [[step, loss] for one in stretches for step, loss, _ in one],
            "sets": {name: [[s, loss] for s, loss, _ in found] for name, found in ticks.items()},
        },
        "marks": views.marks(),
        "held": held,
        "scores": scores,
        "best": best.name if best else unknown("no version is tagged best"),
        "judged": _judged(state, line),
        "events": told,
        "hard": hard,
        "effects": _effects(state, metrics, line, stretches),
        "examples": _examples(views),
    }


def _validations(
    metrics: sqlite3.Connection, line: Sequence[Segment]
) -> dict[str, list[tuple[int, float, int]]]:
    """(step, loss, tokens) of every validation with a loss, by the name of its set, VAL_LOSS for
    the one figure. Other tokens are other rows: not to be compared."""
    found: dict[str, list[tuple[int, float, int]]] = {}
    for part in line:
        rows = metrics.execute(
            "SELECT name, step, loss, tokens FROM validations WHERE run = ? AND step > ?"
            " AND step <= ? AND loss IS NOT NULL ORDER BY step, id",
            (part.run, part.low, part.high),
        )
        for name, step, loss, tokens in rows:
            told = "rows of the item in training" if name == SPLIT else name
            found.setdefault(told, []).append((step, loss, tokens))
    return found


def _models(state: State, line: Sequence[Segment]) -> list[Judged]:
    """The models of the line, the base model first: each once, by the digest of its weights."""
    high = {part.run: part.high for part in line}
    name = {one.weights_digest: one.name for one in versions.versions(state)}
    found: dict[str, Judged] = {}
    for point in records.checkpoints(state, deleted=True):
        digest = point.weights_digest
        if point.kind == "base":
            found[digest] = Judged(named.BASE, digest, point.step)
        elif point.run is not None and point.step <= high.get(point.run, -1):
            found.setdefault(digest, Judged(name.get(digest, point.name), digest, point.step))
    return sorted(found.values(), key=lambda one: one.step)


def _held(models: Sequence[Judged], stored: Sequence[Tally]) -> list[Json]:
    """The pooled accuracy of the models that were asked the same questions, by step."""
    asked = tallies.alike(stored, {one.digest for one in models})
    told = []
    for one in models:
        if mine := asked.get(one.digest):
            right, n = sum(tally.right for tally in mine), sum(tally.n for tally in mine)
            sets = [tally.set_name for tally in mine]
            told.append({"name": one.name, "step": one.step, **_rate(right, n), "sets": sets})
    return told


def _rate(right: int, n: int) -> Json:
    found = rate(right, n)
    low, high = found.get("low", 0.0), found.get("high", 1.0)
    return {"right": right, "n": n, "accuracy": found["share"], "low": low, "high": high}


def _scores(
    results: Results, models: Sequence[Judged], stored: Sequence[Tally], question: tallies.Question
) -> Json:
    """A set's accuracy by step and tier, of the models that were asked in the same way."""
    of = {one.model: one.evaluation for one in stored if one.question == question}
    rows = []
    asked: Evaluation | None = None
    for model in models:
        if model.digest not in of:
            continue
        asked = results.evaluation(of[model.digest])
        tiers: dict[str, list[bool]] = {}
        for outcome in results.outcomes(asked.id):
            if (said := tallies.verdict(outcome)) is not None:
                tiers.setdefault(outcome.tier, []).append(said)
        every = [said for mine in tiers.values() for said in mine]
        rows.append(
            {
                **{"name": model.name, "step": model.step, "digest": model.digest},
                **_rate(sum(every), len(every)),
                "tiers": {t: _rate(sum(v), len(v)) for t, v in sorted(tiers.items()) if t},
                "evaluation": asked.id,
            }
        )
    assert asked is not None
    return {
        **{"set": question[0], "digest": question[1], "config": question[2]},
        **{"items": asked.items, "settings": asked.settings, "models": rows},
    }


def _hard(results: Results, scores: Json) -> list[Json]:
    """The items of a set that stay wrong over the trained models of the line, the most stubborn
    first: those never right among them."""
    ids = [row["evaluation"] for row in scores["models"] if row["name"] != named.BASE]
    history = hints.history(results, ids)
    found = hints.hard(history)[:HARD_SHOWN]
    asked = {one.id: one for one in results.items(scores["digest"], [one.item for one in found])}
    last = {}
    for answer in results.results(ids[-1], list(asked)) if found else ():
        last[answer.item] = answer.answer
    return [
        {
            **{"set": scores["set"], "item": one.item, "wrong": one.wrong, "of": one.of},
            "never": not any(history[one.item]),
            "prompt": next((t["content"] for t in reversed(asked[one.item].prompt)), "")[:TEXT],
            "expected": asked[one.item].expected[:TEXT],
            "answer": last.get(one.item, "")[:TEXT],
        }
        for one in found
    ]


def _judged(state: State, line: Sequence[Segment]) -> Json:
    """The verdict on the newest judged model of the line."""
    found = verdicts.newest(state, line)
    if found is None:
        return unknown("no model of this line was judged yet: trainctl evaluate")
    return {key: value for key, value in found.items() if key not in ("key", "waits_for")}


def _event(event: journal.Event) -> Json:
    step = unknown("it is of no step") if event.step is None else event.step
    return {"kind": event.kind, "time": event.time, "step": step, "text": event.text}


def _effects(
    state: State,
    metrics: sqlite3.Connection,
    line: Sequence[Segment],
    stretches: Sequence[Sequence[tuple[int, float, int]]],
) -> list[Json]:
    """What each file did to the validation loss, as learning.effects has it; validations of other
    rows are not compared with each other."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for part in line:
        rows = metrics.execute(
            "SELECT item, MIN(step), MAX(step) FROM steps WHERE run = ? AND step > ? AND step <= ?"
            " GROUP BY item",
            (part.run, part.low, part.high),
        )
        for item, low, high in rows:
            first[item] = min(low, first.get(item, low))
            last[item] = max(high, last.get(item, high))
    names = dict(state.db.execute("SELECT id, name FROM items").fetchall())
    spans = [Span(item, names.get(item, f"item {item}"), first[item], last[item]) for item in first]
    every = [tick for stretch in stretches for tick in stretch]
    told: dict[int, Json] = {}
    for row in effects([Point(step, loss) for step, loss, _ in every], spans):
        if len(stretches) > 1 and "clear" in row:
            why = unknown("the validations before and after it are of other rows")
            row = {"item": row["item"], "name": row["name"], "change": why}
        told[row["item"]] = row
    for stretch in stretches:
        for row in effects([Point(step, loss) for step, loss, _ in stretch], spans):
            if "clear" in row:
                told[row["item"]] = row
    return [told[span.item] for span in sorted(spans, key=lambda one: (one.first, one.last))]


def _examples(views: Views) -> Json:
    """What became of the fixed examples from the first sample tick of the line to the last."""
    marks = views.sample_marks()
    ticks = sorted({mark[0] for mark in marks})
    if len(ticks) < 2:
        return unknown(f"{len(ticks)} sample ticks on this line, 2 are needed")
    by: dict[str, dict[int, bool]] = {}
    for step, example, exact, _ in marks:
        by.setdefault(example, {})[step] = exact
    now_, ever = {}, {}
    for example, seen in by.items():
        if ticks[-1] in seen:
            now_[example] = seen[ticks[-1]]
            ever[example] = [seen[step] for step in ticks[:-1] if step in seen]
    return {
        **{"first": ticks[0], "last": ticks[-1], "ticks": len(ticks), "examples": len(now_)},
        "learned": sum(right and not all(ever[e]) for e, right in now_.items()),
        "lost": sum(not right and any(ever[e]) for e, right in now_.items()),
        "always": sum(right and all(ever[e]) for e, right in now_.items()),
        "never": sum(not right and not any(ever[e]) for e, right in now_.items()),
    }
