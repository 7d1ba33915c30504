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
from queue_store.kinds import where as of_group


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
    *,
    group: str = "",
    text: str = "",
) -> list[Event]:
    """Events with a sequence number above `after`, oldest first, at most `limit`: only those of
    some kinds, of an item, of a group of kinds (see kinds), or that contain a text."""
    where, values = _wanted(group, text)
    if item is not None:
        where += " AND item = ?"
        values.append(item)
    chosen = list(kinds) if kinds is not None else []
    if chosen:
        where += f" AND kind IN ({','.join('?' * len(chosen))})"
    rows = state.db.execute(
        f"SELECT * FROM events WHERE seq > ? AND {where} ORDER BY seq LIMIT ?",
        (after, *values, *chosen, limit),
    )
    return [_event(row) for row in rows]


def latest(
    state: State, n: int = 200, *, before: int | None = None, group: str = "", text: str = ""
) -> list[Event]:
    """The newest `n` events (before a sequence number, where given), oldest first; of a group or
    with a text as in `events`."""
    where, values = _wanted(group, text)
    if before is not None:
        where += " AND seq < ?"
        values.append(before)
    rows = state.db.execute(
        f"SELECT * FROM events WHERE {where} ORDER BY seq DESC LIMIT ?", (*values, n)
    ).fetchall()
    return [_event(row) for row in reversed(rows)]


def _wanted(group: str, text: str) -> tuple[str, list[Any]]:
    """The condition, and its values: of a group, and `text` in the kind or the text."""
    where, kinds = of_group(group)
    values: list[Any] = list(kinds)
    if text:
        pattern = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        where += r" AND kind || ' ' || text LIKE ? ESCAPE '\'"
        values.append(f"%{pattern}%")
    return where, values


def last_seq(state: State) -> int:
    """Sequence number of the newest event, 0 if there is none."""
    return int(state.db.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()[0])
