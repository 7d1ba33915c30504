"""What a checkpoint's ledger keeps of the database, so that one can be made anew without it.

Which items are finished, what the unfinished ones froze when they were prepared, and the runs
that led here. It must stay small: a ledger is written with every save.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from typing import Any

import orjson

from queue_store import dbbackup, records
from queue_store.database import State
from queue_store.errors import NotFound
from queue_store.records import Checkpoint

FROZEN = ("prepared", "rows", "epochs", "steps", "held_out", "settings")
"""Columns of an item that was begun; without them it would go on with today's settings."""


def of_save(
    state: State,
    cursors: Mapping[int, tuple[int, int]],
    run: int | None,
    trained: Collection[int] | None = None,
) -> dict[str, Any]:
    """The ledger's fields of a checkpoint that is being saved in `run`: `finished` are the items
    that its transaction will find done or trained (of these only `trained`, where given)."""
    rows = state.db.execute("SELECT id, state FROM items WHERE state IN ('done', 'trained')")
    finished = {n for n, at in rows if at == "done" or trained is None or n in trained}
    return _fields(state, finished, cursors.keys() - finished, run)


def of_checkpoint(state: State, then: Checkpoint) -> dict[str, Any]:
    """The ledger's fields of a new checkpoint at the moment of another one."""
    fields = _fields(state, then.progress.finished, then.progress.cursors, _run_of(state, then))
    return {**fields, "rendering": then.progress.rendering}


def _fields(
    state: State, finished: Iterable[int], unfinished: Iterable[int], run: int | None
) -> dict[str, Any]:
    return {
        "finished": records.ranges(finished),
        "frozen": _frozen(state, unfinished),
        "line": _line(state, run),
    }


def _frozen(state: State, items: Iterable[int]) -> dict[str, dict[str, Any]]:
    """{item id: its frozen columns}."""
    wanted = orjson.dumps(sorted(items)).decode()
    found = state.db.execute(
        f"SELECT id, {', '.join(FROZEN)} FROM items WHERE prepared IS NOT NULL"
        " AND id IN (SELECT value FROM json_each(?))",
        (wanted,),
    )
    result = {}
    for row in found:
        values = {key: row[key] for key in FROZEN}
        values["settings"] = orjson.loads(values["settings"]) if values["settings"] else None
        result[str(row["id"])] = values
    return result


def _line(state: State, run: int | None) -> list[list[int]]:
    """The runs that led here, oldest first: [run, branch, checkpoint it started from, step]."""
    result: list[list[int]] = []
    while run is not None:
        row = state.db.execute("SELECT * FROM runs WHERE id = ?", (run,)).fetchone()
        if row is None:
            break
        result.append([row["id"], row["branch"], row["checkpoint"], row["step"]])
        run = _run_of(state, records.checkpoint(state, row["checkpoint"]))
    return result[::-1]


def _run_of(state: State, point: Checkpoint) -> int | None:
    """The run that a checkpoint was saved in; of a restored one, that of what it restores."""
    while point.run is None and point.parent is not None:
        try:
            point = records.checkpoint(state, point.parent)
        except NotFound:
            return None
    return point.run


def ends(line: list[list[int]], step: int) -> dict[int, int]:
    """The runs of a ledger's line, each with the last of its steps that counts at `step`."""
    last = [entry[3] for entry in line[1:]] + [step]
    return {entry[0]: end for entry, end in zip(line, last, strict=False)}


def count_rows(state: State, item: int, last: Mapping[int, int]) -> None:
    """Rows and steps of a finished item whose row does not know them, as its steps on a line
    (`last` as `ends` gives it) count them; its epochs are counted as one."""
    try:
        with closing(dbbackup.read_only(state.home.metrics_db)) as db:
            found = db.execute(
                "SELECT run, step, cursor_to FROM steps WHERE item = ?", (item,)
            ).fetchall()
    except sqlite3.Error:
        return
    mine = [row for row in found if row["step"] <= last.get(row["run"], -1)]
    rows = max((row["cursor_to"] for row in mine), default=0)
    state.db.execute(
        "UPDATE items SET rows = ?, epochs = 1, steps = ? WHERE id = ? AND rows IS NULL",
        (rows, len(mine), item),
    )
