"""What the engine thread does on a disk without room: the item waits, training is paused.

A full disk is nobody's failure: no attempt is burned, no item fails, and reads go on. Must never
throw away a step that is not written, nor go on training what could not be saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.loop import loading, saving
from engine.loop.saving import room, tell_full
from engine.messages import EngineState
from engine.training.failures import classify
from queue_store import head, records
from queue_store import transitions as moves
from queue_store.errors import TrainctlError
from queue_store.failures import Cause
from queue_store.items import Item

if TYPE_CHECKING:
    from engine.loop.worker import Worker

WAIT_SECONDS = 1.0
ENDS = frozenset({"stop", "handover"})


def is_full(error: Exception) -> bool:
    return bool(classify(error)[0] == Cause.DISK_FULL)


def tend(worker: Worker) -> None:
    """Bring the save that is written aside to its end, as far as the disk has room for it."""
    try:
        saving.tend(worker, wait=True)
    except OSError as error:
        if not is_full(error):
            raise


def wait_with(worker: Worker, item: Item, message: str, *, touched: bool) -> None:
    """The item's run met a full disk: it is suspended, and where the model may have been touched
    (`touched`) all goes back to the last good state. Where not even that can be recorded, waits
    until it can. Raises TrainctlError where the engine is to end before: the next one finds the
    item as after a kill."""
    hint = f"the disk is full: {message}: free some room, then resume"
    while not _recorded(worker, item, message, touched=touched):
        tell_full(worker, "disk_full", hint)
        worker.board.paused = True
        worker.board.set(EngineState.PAUSED, "the disk is full")
        worker.board.published = worker.board.build()
        if worker.boundary.ends(ENDS):
            raise _unwritten(message)
        worker.requests.wait(WAIT_SECONDS)
    if touched:
        loading.back_to_head(worker)
    tell_full(worker, "disk_full", hint)
    worker.boundary.failed(item, message)


@contextlib.contextmanager
def at_the_end() -> Iterator[None]:
    """The last that is written. Raises TrainctlError where the disk has no room for it: a person
    asked for the end, and no supervisor is to start another engine."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise _unwritten(str(error)) from error


def _unwritten(message: str) -> TrainctlError:
    return TrainctlError(
        f"ended on a full disk, where nothing more could be written: {message}",
        mend="free some, then start trainctl again: it goes on from the last checkpoint",
    )


def _recorded(worker: Worker, item: Item, message: str, *, touched: bool) -> bool:
    state = worker.state
    try:
        with state.transaction():
            moves.suspend(state, item.id, Cause.DISK_FULL, f"{item.name} waits: {message}")
            if touched:
                at = records.head(state)
                assert at is not None
                why = f"back to step {at.checkpoint.step}: the disk is full"
                head.move_head(state, at.checkpoint, why=why, new=False)
        worker.boundary.pause_for(message)
    except OSError as error:
        if not is_full(error):
            raise
        return False
    return True


def flush_metrics(worker: Worker) -> None:
    """Write the steps that are pending. On a full disk they stay so (a save writes them or does
    not happen), and training is paused."""
    try:
        worker.metrics.flush()
        return
    except OSError as error:
        if not is_full(error):
            raise
        tell_full(worker, "not_saved", room(error))
        if not worker.board.paused:
            worker.boundary.pause_for(str(error))
