"""Samples made of evaluation answers: with a host, training itself asks no fixed example.

A job asks all items of the sets, the fixed examples among them, so what it was answered is a
sample tick at the step of the checkpoint that has these weights. Rests on stored answers and asks
no model; kept again, what is on record is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from engine.judging.evaluating import Evaluating
from engine.training import examples
from evaluation.sets import load_sets
from queue_store import journal, records
from queue_store.config import Config
from queue_store.database import State
from queue_store.errors import DataError
from queue_store.heldout import set_files
from queue_store.metrics import Example, Metrics, Sample, set_example
from queue_store.results import Result


@dataclass(frozen=True)
class Moment:
    """A place of the metrics: what was measured in `run`, at `step` of `branch`."""

    run: int
    branch: int
    step: int


def keep(state: State, config: Config, asking: Evaluating) -> int:
    """Add the answers to the fixed examples as samples of every moment at which these were the
    weights; how many are new. A model that never trained here has none. Raises OSError."""
    moments = _moments(state, asking.model.digest)
    answered = list(_answered(state, config, asking)) if moments else []
    if not answered:
        return 0
    count = 0
    with closing(Metrics(state.home)) as metrics:
        metrics.set_examples([row for row, _ in answered])
        for at in moments:
            samples = [one for one in (_sample(at, *a, asking) for a in answered) if one]
            added = metrics.add_missing_samples(at.run, at.step, samples)
            if added:
                sets = {row.id: row.set_name for row, _ in answered}
                _journal(state, at, added, sets)
            count += len(added)
    return count


def _moments(state: State, digest: str) -> list[Moment]:
    """Where a checkpoint with these weights was saved; for the base model, or another that came
    from outside, where runs began from it."""
    same = [one for one in records.checkpoints(state, deleted=True) if one.weights_digest == digest]
    saved = [Moment(one.run, one.branch, one.step) for one in same if one.run is not None]
    if saved:
        return list(dict.fromkeys(saved))
    began = "SELECT id, branch, step FROM runs WHERE checkpoint = ? ORDER BY id"
    return [Moment(*row) for one in same for row in state.db.execute(began, (one.id,))]


def _answered(state: State, config: Config, asking: Evaluating) -> Iterator[tuple[Example, Result]]:
    """The fixed examples, those that a sample tick would ask, with their answers. Of what was
    refused or went wrong there is none."""
    known = set_files(state.home)
    names = [name for name in config.evaluation.sets or known if name in known]
    try:
        found = load_sets(state.home, names) if names else []
    except DataError:
        return  # the engine warns of it: its validation loss lacks the set, too
    chosen = examples.fixed_of(found, config.samples.count)
    answers = {
        one.name: asking.answers(one.digest, [e.id for of, e in chosen if of is one])
        for one in found
    }
    for position, (one, example) in enumerate(chosen):
        result = answers[one.name].get(example.id)
        if result is not None:
            name = set_example(one.name, one.digest, example.id)
            yield examples.row_of(name, one.name, example, position), result


def _sample(at: Moment, row: Example, result: Result, asking: Evaluating) -> Sample | None:
    try:
        exact, similarity = examples.verdict(row, result.answer, asking.profile)
    except Exception:  # one's own profile or scorer: where it fails nothing is known of the answer
        return None
    return Sample(
        branch=at.branch,
        step=at.step,
        example=row.id,
        answer=result.answer,
        exact=exact,
        similarity=similarity,
        tokens=result.tokens or 0,
        seconds=(result.ms or 0.0) / 1000,
        host=result.host,
    )


def _journal(state: State, at: Moment, added: Sequence[Sample], sets: dict[str, str]) -> None:
    shares: dict[str, list[bool]] = {}
    for one in added:
        shares.setdefault(sets[one.example], []).append(one.exact)
    hosts = sorted({one.host for one in added})
    told = ", ".join(f"{name} {sum(s)}/{len(s)}" for name, s in shares.items())
    with state.transaction():
        journal.record(
            state,
            "samples",
            f"samples exact: {told}, answered by {', '.join(hosts)}",
            branch=at.branch,
            step=at.step,
            data={
                "exact": sum(one.exact for one in added),
                "count": len(added),
                "seconds": sum(one.seconds for one in added),
                "sets": {name: [sum(s), len(s)] for name, s in shares.items()},
                "hosts": hosts,
            },
        )
