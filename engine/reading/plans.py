"""The plan of a rollback as faces show it: what it would lose and keep, beside what is now.

The plan itself, its token and its refusal when stale are snapshots.rollback's; this adds what
the metrics tell of a running engine, which is ahead of its head. Reads only.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from engine.lines import EVERY_STEP, Segment, line_of, newest_row, runs_of
from engine.messages import known
from evaluation import standing
from queue_store import queue, records
from queue_store.database import State
from queue_store.errors import Refused
from queue_store.items import ItemState
from queue_store.records import Progress
from snapshots import rollback, versions


def rollback_plan(
    state: State, metrics: sqlite3.Connection, name: str | None, line: list[Segment]
) -> dict[str, Any]:
    """What going back to version `name` would mean; without a name, to the newest verified
    version of the head's line with an earlier step. `line` is the present one.

    {version, branch, step, created, description, loss, val_loss, scores, samples, now{branch, step,
    checkpoint, loss, val_loss, samples}, steps_lost, hours_lost, samples_lost, validations_lost,
    items[{id, name, state, becomes}], keeps, reads, plan}; `reads` tells that the version has to
    be verified first, `samples` are {step, exact, total} of the newest sample tick, or unknown.
    Raises NotFound, Refused.
    """
    from engine.reading.versionrows import tally

    head = records.head(state)
    if head is None:
        raise Refused("nothing has trained yet, so there is nothing to roll back")
    newest = newest_row(metrics, line)
    live = bool(line) and line[-1].high == EVERY_STEP
    step = max(head.checkpoint.step, newest["step"]) if live and newest is not None else None
    made = rollback.plan(
        state,
        name,
        live_step=step,
        live_progress=_progress(state, metrics, head, line[-1].run) if live else None,
    )
    to = versions.get(state, made.version)
    then = records.checkpoint(state, to.checkpoint)
    lost = lost_parts(state, line, then)
    return {
        "version": to.name,
        "branch": to.branch,
        "step": to.step,
        "created": to.created,
        "description": to.description,
        "loss": known(to.loss, "no step yet"),
        "val_loss": known(to.val_loss, "no validation yet"),
        "scores": standing.scores(metrics, [to.weights_digest])[to.weights_digest],
        "samples": tally(metrics, line_of(state, then.id)),
        "now": {
            "branch": head.branch,
            "step": made.step,
            "checkpoint": head.checkpoint.name,
            "loss": known(newest["loss"] if newest is not None else None, "no step yet"),
            "val_loss": known(head.checkpoint.val_loss, "no validation yet"),
            "samples": tally(metrics, line),
        },
        "steps_lost": made.steps_lost,
        "hours_lost": made.hours_lost,
        "samples_lost": _ticks(metrics, "samples", lost),
        "validations_lost": _ticks(metrics, "validations", lost),
        "items": [
            {**item, "state": queue.get(state, item["id"]).state.value} for item in made.items
        ],
        "keeps": made.keeps,
        "reads": not versions.untouched(state, to),
        "plan": made.token,
    }


def lost_parts(state: State, line: list[Segment], then: records.Checkpoint) -> list[Segment]:
    """The parts of the present line that are not on that of checkpoint `then`."""
    kept = {run: last for run, last in runs_of(state, then.id)}
    parts = (Segment(p.run, max(p.low, kept.get(p.run, -1)), p.high) for p in line)
    return [part for part in parts if part.low < part.high]


def _progress(state: State, metrics: sqlite3.Connection, head: records.Head, run: int) -> Progress:
    """How far each item is in the engine's running run: the head's progress and what its steps
    have added."""
    trained = {item.id for item in queue.items(state, ItemState.TRAINED)}
    cursors = dict(head.checkpoint.progress.cursors)
    for row in metrics.execute(
        "SELECT item, MAX(cursor_to), COUNT(*) FROM steps WHERE run = ? GROUP BY item", (run,)
    ):
        before = cursors.get(row[0], (0, 0))
        cursors[row[0]] = (max(before[0], row[1]), before[1] + row[2])
    finished = head.checkpoint.progress.finished | trained
    return Progress({k: v for k, v in cursors.items() if k not in finished}, finished)


def _ticks(metrics: sqlite3.Connection, table: str, parts: list[Segment]) -> int:
    return sum(
        metrics.execute(
            f"SELECT COUNT(DISTINCT step) FROM {table} WHERE run = ? AND step > ? AND step <= ?",
            (part.run, part.low, part.high),
        ).fetchone()[0]
        for part in parts
    )
