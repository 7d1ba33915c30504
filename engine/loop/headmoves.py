"""Skip and rollback on the engine thread: the moves of the head that a person asks for.

No run steps while these are carried out. Afterwards the live state is again that of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.loop import saving
from queue_store import head, queue, records
from queue_store import transitions as moves
from queue_store.database import State
from queue_store.errors import Refused
from queue_store.items import Item, ItemState
from snapshots import rollback as rolling

if TYPE_CHECKING:
    from engine.loop.worker import Worker


def skip(worker: Worker, item: Item, arguments: dict[str, Any]) -> dict[str, Any]:
    """End the item that was running: keep what it taught, or undo it."""
    reason = str(arguments.get("reason") or "")
    cursor, step = worker.cursors.get(item.id, (item.cursor, item.step))
    if not arguments.get("undo"):
        if worker.unsaved:
            worker.save()  # else a kill before the next checkpoint would take back what it taught
        moves.skip(worker.state, item.id, reason)
        return {"item": item.id, "cursor": cursor, "step": step, "undone": False}
    if not cursor:  # no row of it trained: there is nothing to take back
        moves.skip(worker.state, item.id, reason, undone=True)
        return _undone(worker, item)
    saving.tend(worker, wait=True)
    target = before_item(worker.state, item.id)
    with worker.state.transaction() as db:
        known = "SELECT id FROM items WHERE state IN ('trained', 'done')"
        whole = {row[0] for row in db.execute(known)}
        moves.skip(worker.state, item.id, reason, undone=True)
        why = f"back to step {target.step}: {item.name} undone"
        head.move_head(worker.state, target, why=why)
        again = [one.name for one in queue.items(worker.state, ItemState.QUEUED) if one.id in whole]
    worker.stand_on_head()
    return _undone(worker, item, again)


def _undone(worker: Worker, item: Item, again: Sequence[str] = ()) -> dict[str, Any]:
    """`again`: what had trained since the checkpoint that it went back to, and trains anew."""
    return {
        "item": item.id,
        "cursor": 0,
        "step": 0,
        "undone": True,
        "again": list(again),
        "global_step": worker.board.global_step,
        "branch": worker.board.branch,
    }


def skip_other(worker: Worker, arguments: dict[str, Any]) -> dict[str, Any]:
    """End an item that is not running: named by id, or nothing to skip."""
    wanted = arguments.get("item")
    if wanted is None:
        raise Refused("no item is training", mend="name one that waits: trainctl queue lists them")
    item = queue.get(worker.state, wanted)
    if not item.runnable:
        raise Refused(f"item {item.id} ({item.name}) is {item.state}: nothing to skip")
    return skip(worker, item, arguments)


def before_item(state: State, item_id: int) -> records.Checkpoint:
    """The newest checkpoint of the head's line, still on disk, that contains no row of the item."""
    at = records.head(state)
    found = at.checkpoint if at else None
    while found is not None:
        has = item_id in found.progress.cursors or item_id in found.progress.finished
        if not has and (found.deleted is None or found.kind == "base"):
            return found
        found = records.checkpoint(state, found.parent) if found.parent is not None else None
    raise Refused("no checkpoint from before the item is left", mend="skip it without undo")


def rollback(worker: Worker, arguments: dict[str, Any]) -> dict[str, Any]:
    """Save what is current as a version, and stand on the version asked for.

    A plan that a person agreed to must still be the one that would be made now.
    """
    made = rolling.plan(worker.state, arguments.get("version"), live_step=worker.board.global_step)
    agreed = arguments.get("plan")
    if agreed is not None and agreed != made.token:
        raise Refused("the plan is stale: the versions changed since", mend="look at it anew")
    worker.saved_head()
    done = rolling.apply(worker.state, made)
    worker.engine.keeper.soon("verify")  # the version of what was left; training goes on meanwhile
    worker.stand_on_head()
    return {
        "target": done.target.name,
        "version": done.saved.name,
        "branch": done.head.branch,
        "step": done.head.checkpoint.step,
    }
