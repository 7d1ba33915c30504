"""Tells a home without a database from a home whose database is gone.

A store that holds items, checkpoints, versions or copies of a database had one. It is never
started empty: that would forget what trained, and train it again over it.
"""

from __future__ import annotations

from pathlib import Path

from queue_store.errors import TrainctlError
from queue_store.home import Home

MEND = "trainctl rebuild makes it anew, of its newest copy and of what lies in the store"


class Lost(TrainctlError):
    """state.db is missing, empty or unreadable, and the store is not empty."""

    code = "database_lost"


def evidence(home: Home) -> str:
    """What the store holds that only a home with a database can have, "" for an empty store."""
    found = []
    for folder, one in (
        (home.checkpoints, "checkpoint"),
        (home.versions, "version"),
        (home.items, "item"),
        (home.backups, "copy of it"),
    ):
        number = _count(folder)
        if number:
            plural = "copies of it" if one == "copy of it" else f"{one}s"
            found.append(f"{number} {one if number == 1 else plural}")
    return ", ".join(found)


def refuse_lost(home: Home, what: str) -> None:
    """Raise Lost where the store is not empty; `what` is wrong with state.db."""
    told = evidence(home)
    if told:
        raise Lost(f"{what}, and the store holds {told}", where=str(home.state_db), mend=MEND)


def _count(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(not path.name.startswith(".") for path in folder.iterdir())
