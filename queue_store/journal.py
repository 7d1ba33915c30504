"""The journal: every command, transition, checkpoint, deletion and failure, append-only.

An event is written in the transaction of the change that it tells of; the database refuses
to alter or delete one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from queue_store.database import State, now


@dataclass(frozen=True)
class Event:
    """One line of the journal. `time` in seconds since the epoch; `data` is JSON for scripts."""

    seq: int
    time: float
    kind: str
    text: str
    item: int | None
    branch: int | None
    step: int | None
    data: dict[str, Any]


def record(
    state: State,
    kind: str,
    text: str,
    *,
    item: int | None = None,
    branch: int | None = None,
    step: int | None = None,
    data: dict[str, Any] | None = None,
) -> int:
    """Append an event and return its sequence number. Call it inside the change's transaction."""
    cursor = state.db.execute(
        "INSERT INTO events(time, kind, text, item, branch, step, data) VALUES(?,?,?,?,?,?,?)",
        (now(), kind, text, item, branch, step, orjson.dumps(data or {}).decode()),
    )
    return int(cursor.lastrowid or 0)


def _event(row: sqlite3.Row) -> Event:
    return Event(
        row["seq"],
        row["time"],
        row["kind"],
        row["text"],
        row["item"],
        row["branch"],
        row["step"],
        orjson.loads(row["data"]),
    )


def events(
    state: State,
    after: int = 0,
    limit: int = 500,
    kinds: Iterable[str] | None = None,
    item: int | None = None,
) -> list[Event]:
    """Events with a sequence number above `after`, oldest first, at most `limit`."""
    where, values = ["seq > ?"], [after]
    if item is not None:
        where.append("item = ?")
        values.append(item)
    chosen = list(kinds) if kinds is not None else []
    if chosen:
        where.append(f"kind IN ({','.join('?' * len(chosen))})")
    rows = state.db.execute(
        f"SELECT * FROM events WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?",
        (*values, *chosen, limit),
    )
    return [_event(row) for row in rows]


def latest(state: State, n: int = 200) -> list[Event]:
    """The newest `n` events, oldest first."""
    rows = state.db.execute("SELECT * FROM events ORDER BY seq DESC LIMIT ?", (n,)).fetchall()
    return [_event(row) for row in reversed(rows)]


def last_seq(state: State) -> int:
    """Sequence number of the newest event, 0 if there is none."""
    return int(state.db.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()[0])
