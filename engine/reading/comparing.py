"""Two versions side by side: what the store knows of both, and the fixed examples that the one
answers right and the other does not. Reads only, and generates nothing: the answers are those of
the sample ticks at which each stood.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from engine import lines
from engine.lines import Segment, line_of
from engine.messages import known, unknown
from engine.reading.versionrows import NO_TICK, answers, with_scores
from engine.verify import verifying
from queue_store.database import State
from queue_store.errors import Refused
from snapshots import difference
from snapshots.difference import End

if TYPE_CHECKING:
    from engine.reading.views import Views

PROMPT = 400
"""Letters of a prompt that are told: enough to know it by."""


def compare(
    state: State,
    metrics: sqlite3.Connection,
    first: str,
    second: str | None,
    present: list[Segment],
) -> dict[str, Any]:
    """`difference.difference`, the `scores` of both (see standing.scores), and `samples`: {a, b:
    {step, exact, total} or unknown, both, none (how many both answer right, or neither), gained,
    lost: [{example, set, position, prompt}] (right in b alone, right in a alone)}, or unknown where
    one has no sample tick.

    Without `second` the present state stands for it: its samples and losses are the newest of the
    line `present`, which a running engine has trained beyond the head; `same_weights` and `files`
    are unknown then. Raises NotFound.
    """
    a, b = difference.end(state, first), difference.end(state, second)
    line = line_of(state, b.checkpoint.id) if second is not None else present
    if second is None:
        b = _live(b, metrics, present)
    found = difference.between(state, a, b)
    with_scores(metrics, [found["a"], found["b"]])
    if second is None:
        found["steps"]["b"] = b.told["step"] - found["fork"]["step"]
        if b.told["step"] > b.checkpoint.step:  # what is on disk is the head, not what trains
            found["same_weights"] = found["files"] = found["b"]["scores"] = unknown(
                f"the present state is in memory: the newest checkpoint is of step"
                f" {b.checkpoint.step}"
            )
    mine = answers(metrics, line_of(state, a.checkpoint.id))
    return {**found, "samples": samples(mine, answers(metrics, line))}


def _live(head: End, metrics: sqlite3.Connection, present: list[Segment]) -> End:
    """The head with the step and the loss of the newest step that was measured."""
    newest = lines.newest_row(metrics, present)
    if newest is None or newest["step"] <= head.told["step"]:
        return head
    told = {
        **head.told,
        "step": newest["step"],
        "loss": known(newest["loss"], "not a number"),
        "val_loss": known(_validated(metrics, present), "no validation yet"),
    }
    return End(told, head.checkpoint, head.folder)


def _validated(metrics: sqlite3.Connection, line: list[Segment]) -> float | None:
    points = lines.series(metrics, line, "val_loss", width=1, start=None, end=None)["points"]
    return points[-1][-1] if points else None


def samples(a: dict[str, sqlite3.Row], b: dict[str, sqlite3.Row]) -> dict[str, Any]:
    """Which examples two sample ticks answered right; those that both have."""
    if not a or not b:
        return unknown(NO_TICK)
    shared = [example for example in a if example in b]
    right = {example: (bool(a[example]["exact"]), bool(b[example]["exact"])) for example in shared}
    return {
        "a": _tally(a),
        "b": _tally(b),
        "both": sum(pair == (True, True) for pair in right.values()),
        "none": sum(pair == (False, False) for pair in right.values()),
        "gained": [_named(b[e]) for e in shared if right[e] == (False, True)],
        "lost": [_named(b[e]) for e in shared if right[e] == (True, False)],
    }


def _tally(tick: dict[str, sqlite3.Row]) -> dict[str, int]:
    step = next(iter(tick.values()))["step"]
    exact = sum(bool(row["exact"]) for row in tick.values())
    return {"step": step, "exact": exact, "total": len(tick)}


def _named(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "example": row["example"],
        "set": row["set_name"],
        "position": row["position"],
        "prompt": row["prompt"][:PROMPT],
    }


def answer(views: Views, first: str, second: str | None) -> dict[str, Any]:
    """The command `compare`."""
    present = views.line() if second is None else []
    return compare(views.state, views.metrics, first, second, present)


def distance(views: Views, first: str, second: str) -> dict[str, Any]:
    """The command `weights_distance`: `verifying.tensor_difference`, or unknown where one has no
    weights of its own. Reads both versions whole, in a child. Raises NotFound, Unfinished."""
    try:
        return verifying.tensor_difference(views.state, first, second, stop=views.closing)
    except Refused as error:
        return unknown(error.what)
