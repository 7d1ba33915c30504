"""The versions as faces list them: what the store says of each, how many of the fixed examples its
model answered right, and how it stands on the held-out sets.

A version's samples are those of the newest sample tick on its own line, at its step or before
it; they were made while it trained, so nothing is generated here. Reads only.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from engine.lines import Segment, line_of
from engine.messages import unknown
from evaluation import standing
from queue_store import config
from queue_store.database import State
from queue_store.home import Home
from queue_store.metrics import ITEM_MARK
from snapshots import listing
from snapshots.retention import Rules

NO_TICK = "no sample tick before it"
_HELD_OUT = f"example NOT LIKE '{ITEM_MARK}%'"
"""Rows that train say what was learnt, and not how good a version is."""


def rows(home: Home, state: State, metrics: sqlite3.Connection) -> list[dict[str, Any]]:
    """`listing.versions_json`, and of each version `samples` (see `tally`) and `scores` (see
    standing.scores)."""
    settings = config.load(home.config)
    found = listing.versions_json(state, Rules.of(settings.snapshots), settings.backups)
    for row in found:
        row["samples"] = tally(metrics, line_of(state, row["checkpoint"]))
    return with_scores(metrics, found)


def with_scores(metrics: sqlite3.Connection, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of models with their `scores`, by the `weights_digest` of each."""
    stored = standing.scores(metrics, {row["weights_digest"] for row in found})
    for row in found:
        row["scores"] = stored[row["weights_digest"]]
    return found


def tally(metrics: sqlite3.Connection, line: list[Segment]) -> dict[str, Any]:
    """{step, exact, total} of the newest sample tick on a line, or unknown."""
    at = newest_tick(metrics, line)
    if at is None:
        return unknown(NO_TICK)
    run, step = at
    row = metrics.execute(
        f"SELECT SUM(exact), COUNT(*) FROM samples WHERE run = ? AND step = ? AND {_HELD_OUT}",
        (run, step),
    ).fetchone()
    return {"step": step, "exact": int(row[0]), "total": int(row[1])}


def answers(metrics: sqlite3.Connection, line: list[Segment]) -> dict[str, sqlite3.Row]:
    """What was answered at the newest sample tick on a line, by example: rows {example, set_name,
    position, prompt, exact}; {} where there is none."""
    at = newest_tick(metrics, line)
    if at is None:
        return {}
    found = metrics.execute(
        "SELECT s.example, s.step, s.exact, e.set_name, e.position, e.prompt FROM samples s"
        f" JOIN examples e ON e.id = s.example WHERE s.run = ? AND s.step = ? AND {_HELD_OUT}"
        " ORDER BY e.set_name, e.position",
        at,
    )
    return {row["example"]: row for row in found}


def newest_tick(metrics: sqlite3.Connection, line: list[Segment]) -> tuple[int, int] | None:
    """(run, step) of the newest sample tick on a line."""
    for part in reversed(line):
        row = metrics.execute(
            "SELECT MAX(step) FROM samples"
            f" WHERE run = ? AND step > ? AND step <= ? AND {_HELD_OUT}",
            (part.run, part.low, part.high),
        ).fetchone()
        if row[0] is not None:
            return part.run, int(row[0])
    return None
