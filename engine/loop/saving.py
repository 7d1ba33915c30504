"""Checkpoints and versions as the engine thread makes them: when one is due, and the making.

A save reads what is still on the device and checks it (no bad state is ever saved), syncs the
metrics, captures the state and writes it: here, or as a copy on a thread while training goes on.
The head moves in one transaction, always on the engine thread. Whatever needs the live state in
the head, or moves the head elsewhere, completes first what is still being written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.loop.background import PHASE, Background, write
from engine.messages import EngineState
from engine.ranks.held import HeldModel, Written
from engine.reading.status import free_limit
from engine.training.failures import ends_process
from engine.training.hostcopy import HostBuffers, size_of
from engine.training.state import Captured
from queue_store import durable, journal, queue, records
from queue_store.config import Config
from queue_store.database import State, open_state
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.items import Item, ItemState
from queue_store.metrics import Metrics
from snapshots import versions
from snapshots.checkpoints import CheckpointWriter, Ledger
from snapshots.listing import versions_json
from snapshots.retention import Rules
from snapshots.room import make_room
from snapshots.upkeep import prune_checkpoints

if TYPE_CHECKING:
    from engine.loop.requests import Request
    from engine.loop.worker import Worker

log = logging.getLogger("trainctl.engine")


@dataclass(frozen=True)
class Moment:
    """A state that was captured and is not written yet. `started` (monotonic) is when training
    stopped for it."""

    writer: CheckpointWriter
    draft: Ledger
    captured: Captured | Written
    started: float


class Saver:
    """Knows when the head was last saved. `flush` is that of the run that steps, if one does."""

    def __init__(
        self, home: Home, state: State, metrics: Metrics, wake: Callable[[], None] = lambda: None
    ) -> None:
        self.home = home
        self.state = state
        self.metrics = metrics
        self.step = 0
        self.at = time.monotonic()
        self.flush: Callable[[], None] | None = None
        self.aside = Background(wake)
        self.buffers = HostBuffers()

    def stands_on(self, step: int) -> None:
        """The head's checkpoint is that of `step`."""
        self.step, self.at = step, time.monotonic()

    def due(self, step: int, config: Config) -> bool:
        """Whether `save_steps` steps and `save_seconds` have passed since the last one, and none
        is being written."""
        return (
            step - self.step >= config.training.save_steps
            and time.monotonic() - self.at >= config.snapshots.save_seconds
            and not self.aside.busy
        )

    def capture(
        self,
        live: HeldModel,
        config: Config,
        run: records.Run,
        *,
        step: int,
        item: Item | None,
        cursors: dict[int, tuple[int, int]],
        figures: dict[str, float | None],
        rendering: dict[str, str] | None = None,
    ) -> Moment:
        """The live state at this moment, checked; write it here or aside, before anything moves.

        Raises Refused (too little room, with the numbers), OSError, NonFinite; then nothing of
        it remains and the head is where it was.
        """
        started = time.monotonic()
        if self.flush is not None:
            self.flush()
        self.metrics.flush()
        at = records.head(self.state)
        assert at is not None
        self._require_room(at.checkpoint.size_bytes, config)
        info: dict[str, Any] = {
            "branch": at.branch,
            "step": step,
            "cursors": {str(k): list(v) for k, v in cursors.items()},
        }
        with ExitStack() as stack:
            writer = stack.enter_context(CheckpointWriter(self.state))
            draft = writer.draft(
                branch=at.branch,
                step=step,
                run=run.id,
                item=item.id if item else None,
                cursors=cursors,
                trained=[i.id for i in queue.items(self.state, ItemState.TRAINED)],
                file=item.name if item else "",
                loss=figures.get("loss"),
                val_loss=figures.get("val_loss"),
                learning_rate=figures.get("learning_rate"),
                rendering=rendering,
            )
            captured = live.capture(info)
            stack.pop_all()
        return Moment(writer, draft, captured, started)

    def write_aside(self, moment: Moment, number: int) -> bool:
        """Copy the state and let the thread write it, where there is memory for that; False where
        there is not, and where it is at ranks. `number` is the worker's count of changes."""
        if not isinstance(moment.captured, Captured):
            return False  # rank 0 writes it, and may not step meanwhile
        tensors = moment.captured.tensors
        if not self.buffers.fit(size_of(tensors)):
            return False
        try:
            copied = moment.captured.with_tensors(self.buffers.copy(tensors))
        except (RuntimeError, MemoryError) as error:
            log.warning("no memory for a copy of the state, saved in line: %s", error)
            return False
        durable.crash_point("checkpoint.captured")
        self.aside.begin(moment.writer, moment.draft, copied, number=number, started=moment.started)
        return True

    def write_here(self, moment: Moment, config: Config) -> records.Checkpoint:
        """Write the state now; the head stands on it from now on. Raises OSError; then nothing of
        it remains and the head is where it was."""
        self.buffers.drop()
        ledger, sealed = write(moment.writer, moment.draft, moment.captured)
        stall = time.monotonic() - moment.started
        saved = moment.writer.register(ledger, sealed, stall=stall)
        self.stands_on(saved.step)
        _prune(self.state, config)
        return saved

    def register(self, config: Config) -> records.Checkpoint:
        """Move the head to what was written aside; waits for it where it is not done.

        Raises Refused or OSError: then nothing of it remains and the head is where it was.
        """
        started = time.monotonic()
        pending, ledger, sealed = self.aside.take()
        at = records.head(self.state)
        if at is None or (at.checkpoint.id, at.branch) != (ledger.parent, ledger.branch):
            pending.writer.discard()
            raise Refused("the head moved while it was written")
        stall = pending.stall + time.monotonic() - started
        saved = pending.writer.register(ledger, sealed, stall=stall)
        self.stands_on(saved.step)
        self.buffers.trim()
        self.aside.after(lambda: _prune_beside(self.home, config))
        return saved

    def close(self) -> None:
        """Wait for the thread; the memory of its copy is given back."""
        self.aside.close()
        self.buffers.drop()

    def _require_room(self, size: int, config: Config) -> None:
        """Raises Refused where a save as large as the last one would leave less than stop_free."""
        limit = free_limit(config.snapshots.stop_free, size)
        free = durable.free_bytes(self.home.store)
        if size and free - size < limit:
            make_room(self.state, limit + size - free, Rules.of(config.snapshots))
            free = durable.free_bytes(self.home.store)
        if size and free - size < limit:
            raise Refused(
                f"{free / 1e9:.1f} GB are free, a checkpoint takes {size / 1e9:.2f} GB and"
                f" {limit / 1e9:.1f} GB are to stay free",
                where=str(self.home.store),
                mend="free some, or lower snapshots.stop_free",
            )

    def snapshot(
        self,
        at: records.Checkpoint,
        description: str,
        *,
        weights_only: bool,
        pin: bool,
        kind: str,
    ) -> str:
        """A version of checkpoint `at`, not read back yet; its name."""
        return versions.create(
            self.state,
            at,
            description=description,
            scope=versions.WEIGHTS if weights_only else versions.WHOLE,
            kind=kind,
            pinned=pin,
            verified=False,
        ).name


def _prune(state: State, config: Config) -> None:
    keep, best = config.snapshots.keep_checkpoints, config.snapshots.keep_best
    prune_checkpoints(state, keep=keep, keep_best=best)


def _prune_beside(home: Home, config: Config) -> None:
    """Removing a large folder takes seconds: not on the engine thread."""
    with open_state(home) as state:
        _prune(state, config)


def save_live(worker: Worker, *, aside: bool = False) -> records.Checkpoint | None:
    """Make the head hold the live state: returns its checkpoint. `aside`: only begin it where it
    can be written beside training, and return None.

    None also where it did not work: then training is paused and says why.
    """
    if aside and worker.saver.aside.busy:
        return None  # it waits for its turn
    failed = _complete(worker)
    worker.saver.aside.wait()
    if failed is not None:  # what follows is the second try
        _ends(worker, failed[1])
        journal_failed_save(worker.state, *failed)
    if not worker.unsaved:
        at = records.head(worker.state)
        assert at is not None
        return at.checkpoint
    assert worker.live is not None
    board = worker.board
    before = (board.state, board.phase)
    try:
        moment = worker.saver.capture(
            worker.live,
            worker.config,
            worker.line,
            step=board.global_step,
            item=worker.item,
            cursors=dict(worker.cursors),
            figures=board.figures(),
            rendering=worker.rendering,
        )
        beside = aside and worker.config.snapshots.background == "auto"
        if beside and worker.saver.write_aside(moment, worker.changes):
            before = (board.state, PHASE)
            return None
        board.set(EngineState.SAVING)
        worker.publish(force=True)
        saved = worker.saver.write_here(moment, worker.config)
    except (Refused, OSError) as error:
        _not_saved(worker, board.global_step, error)
        return None
    finally:
        board.set(*before)
    _stand(worker, saved, worker.changes)
    return saved


def tend(worker: Worker, *, wait: bool = False) -> None:
    """Move the head to what was written aside, if that has ended (`wait`: wait until nothing is
    written and nothing removed). Where it failed, training is paused and says why."""
    aside = worker.saver.aside
    if not wait and not aside.ready:
        return
    failed = _complete(worker)
    if failed is not None:
        _not_saved(worker, *failed)
    if wait:
        aside.wait()


def _complete(worker: Worker) -> tuple[int, Refused | OSError] | None:
    """Register what is pending, if something is, waiting for it; the step and the reason where
    that did not work."""
    pending, failed = worker.saver.aside.pending, None
    if pending is not None:
        if worker.board.phase == PHASE:
            worker.board.phase = ""
        try:
            saved = worker.saver.register(worker.config)
        except (Refused, OSError) as error:
            failed = (pending.step, error)
        else:
            _stand(worker, saved, pending.number)
    return failed


def _stand(worker: Worker, saved: records.Checkpoint, number: int) -> None:
    """The head is a new checkpoint, of the state that was the live one at change `number`."""
    worker.saved = number
    rules = worker.config.snapshots
    worker.board.stand_on_head(worker.state, rules, ahead=worker.unsaved)
    worker.engine.keeper.soon("disk")


def _ends(worker: Worker, error: Refused | OSError) -> None:
    """Raises ProcessEnd where the disk must not be trusted further."""
    if (end := ends_process(error, str(worker.home.log))) is not None:
        raise end from error


def _not_saved(worker: Worker, step: int, error: Refused | OSError) -> None:
    """Training waits for room; on a disk that reports errors the process ends instead."""
    _ends(worker, error)
    journal_failed_save(worker.state, step, error)
    tell_full(worker, "not_saved", room(error))
    worker.boundary.pause_for(str(error))


def verified_json(state: State, name: str) -> dict[str, Any]:
    """Verify a version in a child process; its JSON, as in `versions`. On any thread."""
    versions.verify(state, name)
    return next(v for v in versions_json(state) if v["name"] == name)


def save(worker: Worker) -> dict[str, Any]:
    """The command `save`. Raises Refused where it did not work."""
    at = worker.saved_head()
    return {"checkpoint": at.name, "step": at.step}


def snapshot(worker: Worker, request: Request) -> None:
    """The command `snapshot_version`: the version is made at once; who asked is answered when it
    was read back, and training goes on meanwhile."""
    at = worker.saved_head()
    arguments = request.arguments
    name = worker.saver.snapshot(
        at,
        arguments.get("description", ""),
        weights_only=bool(arguments.get("weights_only")),
        pin=bool(arguments.get("pin")),
        kind=arguments.get("kind", "manual"),  # no face can say it: see messages.SnapshotVersion
    )
    worker.board.stand_on_head(worker.state, worker.config.snapshots)
    worker.engine.keeper.answer(request, lambda state: verified_json(state, name))


FREE_SOME = (
    "free some disk (trainctl prune --dry-run shows what may go, trainctl trash empty gives back"
    " what was removed), then p (trainctl resume)"
)
"""What to do where something could not be written."""


def tell_full(worker: Worker, rule: str, text: str) -> None:
    """A hint with how much room there is and what to do."""
    free = durable.free_bytes(worker.home.store)
    worker.board.tell(rule, f"{text} ({free / 1e6:.0f} MB are free)", FREE_SOME, free_bytes=free)


def room(error: Refused | OSError) -> str:
    """The hint for a save that did not happen, with its reason."""
    return f"not saved: {error}: training waits; free some room, then resume"


def journal_failed_save(state: State, step: int, error: Exception) -> None:
    """A save did not happen; training is paused by the caller."""
    with state.transaction():
        text = f"not saved at step {step}: {error}"
        journal.record(state, "checkpoint.failed", text, step=step)
