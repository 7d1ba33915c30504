"""What a checker yields: one line of the report; and how a checker reads a database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """One line of the report. `advice` says what to do; "" where all is well."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def rows(path: Path, query: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
    """Rows by a connection that writes nothing, not even the index of a log that nobody has open.

    Raises sqlite3.Error.
    """
    wal = path.with_name(path.name + "-wal")
    # Without a log beside it nobody has the database open, and the file is all there is.
    mode = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        return db.execute(query, values).fetchall()


def listed(names: list[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
