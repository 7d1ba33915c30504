"""The daily copy of the databases, and the end of the copies that newer ones replace.

Must never remove a copy before its event, nor because of a clock that stands wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from queue_store import dbbackup, durable, journal
from queue_store.database import State, now

LAST = "backups.last"


def due(state: State) -> bool:
    """Whether the last copy is a day old, or lies in a future that a clock made up."""
    last = float(state.meta_get(LAST, 0.0))
    return not 0 <= now() - last < dbbackup.DAY or not dbbackup.listing(state.home)


def back_up(state: State, stopping: Callable[[], bool] = lambda: False) -> list[dbbackup.Copy]:
    """Copy state.db and metrics.db, whether due or not; journaled, the superfluous ones removed.

    Raises what dbbackup.copy raises; then the copies of before are all still there.
    """
    home = state.home
    made = [dbbackup.copy(home, home.state_db, stopping=stopping)]
    if home.metrics_db.exists():
        made.append(dbbackup.copy(home, home.metrics_db, stopping=stopping))
    gone = dbbackup.expired(home)
    with state.transaction():
        state.meta_set(LAST, now())
        size = sum(one.size_bytes for one in made)
        journal.record(
            state,
            "backup",
            f"databases copied and checked, {size / 1e6:.1f} MB",
            data={
                "copies": [one.path.name for one in made],
                "bytes": size,
                "removed": [one.path.name for one in gone],
            },
        )
    durable.crash_point("backup.journaled")
    dbbackup.remove(home, gone)
    return made
