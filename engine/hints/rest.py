"""What there is to say of the store alone: of the inbox, of items that failed, and all that a
person can mend while no engine runs."""

from __future__ import annotations

from typing import Any

from engine.hints import judged, surroundings
from engine.hints.hint import Hint, fields
from engine.hints.surroundings import Failed, Waits
from engine.judging import deployed, verdicts
from engine.lines import segments
from queue_store import engine_failure, queue, records
from queue_store.config import Config
from queue_store.database import State, now
from queue_store.items import ItemState

FAILED_SHOWN = 50
"""Items that failed, the newest, that are looked at."""
MEND_TARGET = (
    "make the target reachable and writable: it is tried again by itself (trainctl backup tries it"
    " at once, trainctl doctor looks at it)"
)
"""What to do about a backup target that cannot be used."""
MEND_HOST = (
    "make the host reachable: it is tried again by itself (trainctl hosts deploy tries it at once,"
    " trainctl doctor --host NAME looks at it)"
)
"""What to do about a host that could not get the best version."""


def waits(state: State, time: float) -> list[Waits]:
    """The files in the inbox that are no items yet."""
    return [
        Waits(str(one["name"]), str(one["reason"]), time - float(one["since"]))
        for one in queue.waiting(state)
    ]


def failed(state: State) -> list[Failed]:
    """The newest ended items that failed or were refused."""
    rows = state.db.execute(
        "SELECT id, name, state, reason, error, updated, (SELECT COUNT(*) FROM attempts"
        " WHERE attempts.item = items.id) AS tries FROM items"
        " WHERE state IN (?, ?) ORDER BY updated DESC LIMIT ?",
        (ItemState.FAILED, ItemState.REJECTED, FAILED_SHOWN),
    )
    return [
        Failed(
            int(row["id"]),
            str(row["name"]),
            "rejected" if row["state"] == ItemState.REJECTED else str(row["reason"]),
            str(row["error"] or (row["reason"] if row["state"] == ItemState.REJECTED else "")),
            float(row["updated"]),
            max(1, int(row["tries"])),
        )
        for row in rows
    ]


def judged_now(state: State, *, live: bool) -> dict[str, Hint | None]:
    """What the newest judged model of the present line gives notice of. `live`: an engine runs."""
    verdict = verdicts.newest(state, segments(records.line(state, live=live)))
    if verdict is None:
        return {"canary": None, "regression": None}
    from snapshots import labels, named

    best = labels.best(state)
    against = best.name if best else named.BASE
    return {
        "canary": judged.canary(verdict),
        "regression": judged.regression(verdict, against),
    }


def at_rest(state: State, settings: Config, step: int) -> dict[str, Any]:
    """`hint` and `hints` of the status where no engine runs and the head is at `step`."""
    time = now()
    found = [
        surroundings.file_waits(waits(state, time)),
        surroundings.item_fails(failed(state), time),
        *judged_now(state, live=False).values(),
    ]
    if why := engine_failure.newest(state):
        found.append(Hint("engine_failed", why, advice="mend it, then start trainctl again"))
    if state.meta_get("paused", False):
        found.append(surroundings.paused())
    if settings.backups:
        from snapshots import backup

        told = backup.hints(state, settings)
        found += [Hint("backup", text, {"targets": len(told)}, MEND_TARGET) for text in told[:1]]
    told = deployed.hints(state, settings)
    found += [Hint("deploy", text, {"hosts": len(told)}, MEND_HOST) for text in told[:1]]
    return fields((hint for hint in found if hint is not None), step, time)
