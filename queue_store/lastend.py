"""The note about how the last engine process ended, from its supervisor to the next engine.

A file and not a row: the supervisor must not need the database, which may be what is broken.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from queue_store import durable
from queue_store.home import Home

NAME = "last-end.json"


@dataclass(frozen=True)
class LastEnd:
    """`cause` in the words of failures.Cause, `error` one line, `pid` of the process, `time` of
    its end in seconds since the epoch."""

    cause: str
    error: str
    pid: int
    time: float


def write(home: Home, end: LastEnd) -> None:
    """Leave the note. Raises OSError."""
    durable.write_atomic(home.store / NAME, json.dumps(asdict(end)).encode())


def read(home: Home) -> LastEnd | None:
    """The note, None where there is none that makes sense."""
    try:
        return LastEnd(**json.loads((home.store / NAME).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def remove(home: Home) -> None:
    """It was recorded."""
    durable.remove_file(home.store / NAME)
