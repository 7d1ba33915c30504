"""What was found when a model had its answers, kept by its digest: what hints and faces read.

In state.db, beside the journal's events: the journal tells what happened, this what is so.
Can be made again by judging again; a home without it says less and is not broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from engine.lines import Segment
from queue_store.database import State

Json = dict[str, Any]
KEY = "evaluation.verdicts"
MOST = 200
"""Models of which the verdict is kept, the newest."""


def of(state: State, digest: str) -> Json | None:
    """What was found of a model by its weights' digest, as `after.judged` returns it."""
    found: Json | None = state.meta_get(KEY, {}).get(digest)
    return found


def keep(state: State, digest: str, verdict: Json) -> None:
    """Put a verdict in the place of an older one. In the caller's transaction."""
    kept = {key: value for key, value in state.meta_get(KEY, {}).items() if key != digest}
    kept[digest] = verdict
    state.meta_set(KEY, dict(list(kept.items())[-MOST:]))


def newest(state: State, line: Sequence[Segment]) -> Json | None:
    """The verdict on the judged model with the most steps on a line; None without one."""
    kept = state.meta_get(KEY, {})
    if not kept:
        return None
    high = {part.run: part.high for part in line}
    rows = state.db.execute(
        "SELECT weights_digest, run, step FROM checkpoints WHERE run IS NOT NULL"
        " AND weights_digest IN (SELECT value FROM json_each(?)) ORDER BY step DESC",
        (orjson.dumps(list(kept)).decode(),),
    )
    for digest, run, step in rows:
        if step <= high.get(run, -1):
            return {**kept[digest], "step": step}
    return None
