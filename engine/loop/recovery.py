"""What the engine does before its first step: make the home agree with itself.

Idempotent, and safe to be killed in: each part is one transaction or one rename.
"""

from __future__ import annotations

from pathlib import Path

from queue_store import config as configuration
from queue_store import durable, head, intake, journal, lastend, queue, records
from queue_store import transitions as moves
from queue_store.config import LOCKED, Config
from queue_store.database import State
from queue_store.errors import ConfigError
from queue_store.items import ItemState
from queue_store.locked import would_mean
from queue_store.lost import MEND, Lost
from queue_store.metrics import Metrics
from snapshots import removal, trash, upkeep
from snapshots.versions import recover_versions


def recover(state: State, metrics: Metrics) -> list[str]:
    """Adopt files without a row, and put every item where the head says it is.

    An item that trained when the process died is `paused` (or, after three crashes without
    progress, failed); what no checkpoint contains trains again. Returns what was done.
    """
    end = lastend.read(state.home)
    if end is not None or queue.running(state):
        sound(state)  # a process that died without a word may have left a disk that failed it
    # Files first: a checkpoint without a row is only adopted where its items have theirs.
    done = intake.recover_files(state)
    done += [f"adopted {item.name}" for item in intake.adopt_orphans(state)]
    done += upkeep.recover(state)
    done += removal.recover(state) + trash.recover(state) + recover_versions(state)
    with state.transaction():
        if end is not None:
            text = f"engine process {end.pid} ended: {end.cause}: {end.error}"
            data = {"cause": end.cause, "error": end.error, "pid": end.pid, "time": end.time}
            journal.record(state, "engine.crashed", text, data=data)
        for item in queue.running(state):
            if item.state is ItemState.TRAINING or end is not None:
                cause, error = (end.cause, end.error) if end else ("restart", "")
                highest = metrics.highest_cursor(item.id)
                moves.crashed(state, item.id, highest, cause, error)
            else:
                moves.suspend(state, item.id, "restart", f"{item.name} was being prepared")
            done.append(f"recovered {item.name}")
        durable.crash_point("recovery.recorded")
    if end is not None:
        lastend.remove(state.home)
    if records.head(state) is not None:
        good = upkeep.resume_point(state)
        if done or queue.items(state, ItemState.TRAINED):
            head.move_head(state, good, why=f"recovered at step {good.step}", new=False)
    return done


def sound(state: State) -> None:
    """Refuse to train on a database with damaged pages. Raises Lost."""
    told = state.db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if told != "ok":
        raise Lost(f"the database is damaged: {told}", where=str(state.home.state_db), mend=MEND)


def check_locked(state: State, config: Config, path: Path) -> None:
    """Refuse a change of a key that is locked since the first step. Raises ConfigError."""
    locked = state.meta_get("locked")
    if locked is None:
        return
    values = configuration.flat(configuration.to_dict(config))
    for key in LOCKED:
        if values[key] != locked[key]:
            why = would_mean(key, locked[key], values[key])
            raise ConfigError(
                f"{key} = {values[key]!r} is not what this home trains with ({locked[key]!r})"
                + (f": {why}" if why else ""),
                where=str(path),
                mend=f"set it back, or make another home: what trained with {key} ="
                f" {locked[key]!r} cannot go on with another value",
            )


def lock_keys(state: State, config: Config) -> None:
    """At the first step of a home: remember the keys that stay from now on."""
    if state.meta_get("locked") is None:
        values = configuration.flat(configuration.to_dict(config))
        with state.transaction():
            state.meta_set("locked", {key: values[key] for key in LOCKED})
            journal.record(state, "locked", f"{', '.join(LOCKED)} stay as they are from now on")
