"""The one way in which the head moves back: rollback, restore, undo, recovery, a failed item.

One transaction: the head, the branch, and every item made to agree with the moment that the
head now stands on. Nothing on disk is deleted or overwritten.
"""

from __future__ import annotations

from typing import Any

import orjson

from queue_store import journal, queue, records
from queue_store.database import State
from queue_store.items import Item, ItemState, Priority
from queue_store.transitions import end_attempt, move_state

S = ItemState
ROLLED_BACK = "rolled back"
"""The reason of items that trained only on a branch that a rollback left."""


def move_head(
    state: State,
    target: records.Checkpoint,
    *,
    why: str,
    branch: int | None = None,
    rolled_back: bool = False,
    new: bool = True,
    kind: str = "head",
    data: dict[str, Any] | None = None,
) -> records.Head:
    """Stand on `target` from now on; items and cursors become those of that moment.

    `new`: start a branch there (a decision; a crash goes on along its own). `branch`: one that
    the caller has made. `rolled_back`: items that trained only on the branch left are skipped
    with that reason; otherwise they go to the front of the queue. `kind` and `data` are those of
    the event that tells of it.
    The caller's item (skipped, failed) has its state set by its own move before.
    """
    with state.transaction():
        before = records.head(state)
        if branch is None:
            branch = before.branch if before else target.branch
            if new:
                branch = records.new_branch(state, branch, target.id, target.step, why)
        records.set_head(state, target.id, branch)
        _reconcile(state, target.progress, rolled_back=rolled_back)
        told = {"checkpoint": target.id, **(data or {})}
        journal.record(state, kind, why, branch=branch, step=target.step, data=told)
        found = records.head(state)
        assert found is not None
        return found


def _reconcile(state: State, progress: records.Progress, *, rolled_back: bool) -> None:
    """Make every item agree with the progress recorded at the new head."""
    # An item that a rollback skipped has no trace of its training left: the progress names it.
    known = [*progress.finished, *progress.cursors]
    touched = state.db.execute(
        "SELECT * FROM items WHERE cursor > 0 OR trained_order IS NOT NULL"
        " OR state IN ('preparing', 'training', 'trained', 'done')"
        " OR id IN (SELECT value FROM json_each(?)) ORDER BY trained_order, id",
        (orjson.dumps(known).decode(),),
    ).fetchall()
    front: list[Item] = []
    for item in map(Item.of, touched):
        cursor, step = progress.cursors.get(item.id, (0, 0))
        if item.state in (S.PREPARING, S.TRAINING):  # its engine died, and nobody recovered yet
            end_attempt(state, item.id, "restart")
        if item.id in progress.finished:
            if item.state is not S.DONE:
                text = f"{item.name} is part of the model"
                whole = (item.rows or 0) * (item.epochs or 1)
                move_state(
                    state, item.id, S.DONE, text, reason="", cursor=whole, step=item.steps or 0
                )
            continue
        state.db.execute(
            "UPDATE items SET cursor = ?, step = ? WHERE id = ?", (cursor, step, item.id)
        )
        if item.state in (S.FAILED, S.REJECTED, S.QUEUED):
            continue
        if item.state is S.SKIPPED:
            if item.reason == ROLLED_BACK and cursor:
                move_state(state, item.id, S.PAUSED, f"{item.name} goes on", reason="unfinished")
            continue
        if cursor:
            if item.state is not S.PAUSED:
                text = f"{item.name} goes on from row {cursor}"
                move_state(state, item.id, S.PAUSED, text, reason="recovered", trained_order=None)
        elif rolled_back and item.state in (S.DONE, S.TRAINED, S.PAUSED, S.TRAINING):
            text = f"{item.name} trained on the branch left"
            move_state(state, item.id, S.SKIPPED, text, reason=ROLLED_BACK, trained_order=None)
        elif item.state in (S.DONE, S.TRAINED):
            front.append(item)
        elif item.state in (S.TRAINING, S.PREPARING):
            move_state(state, item.id, S.PAUSED, f"{item.name} waits", reason="recovered")
    for item in reversed(front):
        text = f"{item.name} trains again: no checkpoint contains it"
        position = queue.first_position(state, Priority(item.priority)) - 1
        move_state(state, item.id, S.QUEUED, text, position=position, reason="", trained_order=None)
    if front:
        _behind(state, front)


def _behind(state: State, front: list[Item]) -> None:
    """What had been begun after the items that train again, and has no row in the model, waits for
    its turn as they do: paused it would go before them, and the order decides the weights."""
    for item in queue.items(state, S.PAUSED):
        if not item.cursor:
            text = f"{item.name} waits: {front[0].name} trains again before it"
            move_state(state, item.id, S.QUEUED, text, reason="")
