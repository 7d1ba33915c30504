"""The trash: what was removed and can come back until its time is over, a row each.

The row is written in the transaction that announces the removal, and goes when the bytes are
gone or back. `place` is the name under store/trash. Rows only; whoever owns the things moves them.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from queue_store.database import State, now
from queue_store.errors import NotFound

DAY = 86400.0


@dataclass(frozen=True)
class Trashed:
    """`kind`: version or item; `row` what the database said of it; `why` it went; `size_bytes`
    its length; `deleted` and `expires` in seconds since the epoch."""

    id: int
    kind: str
    name: str
    place: str
    row: dict[str, Any]
    why: str
    size_bytes: int
    deleted: float
    expires: float

    @staticmethod
    def of(row: sqlite3.Row) -> Trashed:
        return Trashed(**{**dict(row), "row": orjson.loads(row["row"])})

    def folder(self, state: State) -> Path:
        """Where its bytes lie."""
        return state.home.trash / self.place


def free_place(state: State, name: str) -> str:
    """A name under store/trash that neither a row nor a file has."""
    for n in range(1, 10_000):
        place = name if n == 1 else f"{name}.{n}"
        row = state.db.execute("SELECT 1 FROM trash WHERE place = ?", (place,)).fetchone()
        if row is None and not (state.home.trash / place).exists():
            return place
    raise NotFound(f"no free name for {name} in the trash", mend="trainctl trash empty")


def insert(
    state: State,
    kind: str,
    name: str,
    place: str,
    row: dict[str, Any],
    *,
    why: str,
    size_bytes: int,
    days: float,
) -> Trashed:
    """Part of the transaction that announces a removal."""
    at = now()
    expires = at + days * DAY
    cursor = state.db.execute(
        "INSERT INTO trash(kind, name, place, row, why, size_bytes, deleted, expires)"
        " VALUES(?,?,?,?,?,?,?,?)",
        (kind, name, place, orjson.dumps(row).decode(), why, size_bytes, at, expires),
    )
    return Trashed(cursor.lastrowid or 0, kind, name, place, row, why, size_bytes, at, expires)


def listed(state: State) -> list[Trashed]:
    """What is in the trash, oldest first."""
    return [Trashed.of(row) for row in state.db.execute("SELECT * FROM trash ORDER BY id")]


def get(state: State, name: str) -> Trashed:
    """The newest thing of that name (or place). Raises NotFound."""
    for one in reversed(listed(state)):
        if name in (one.name, one.place):
            return one
    raise NotFound(f"nothing called {name} is in the trash", mend="trainctl trash lists it")


def forget(state: State, trashed: Trashed) -> None:
    """Part of a transaction: its bytes are back, or gone."""
    state.db.execute("DELETE FROM trash WHERE id = ?", (trashed.id,))


def expire(state: State, trashed: Trashed) -> None:
    """Part of a transaction: its bytes go now, or, where a kill comes first, at the next look."""
    state.db.execute("UPDATE trash SET expires = 0 WHERE id = ?", (trashed.id,))
