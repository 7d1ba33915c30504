"""The engine thread's loop: claim an item, run it, record the outcome, again.

Everything that changes the model or the head happens here, on this thread, at a step boundary.
An exception in an item is that item's failure, never the engine's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from engine.hints.surroundings import Failed, failing
from engine.loop import loading, noroom, recovery, saving
from engine.loop.ahead import Ahead
from engine.loop.boundary import Boundary
from engine.loop.monitoring import Watch
from engine.loop.reporting import Reports
from engine.loop.saving import Saver
from engine.messages import EngineState
from engine.prepare import profiles
from engine.prepare.prepare import Cancelled
from engine.ranks import agents
from engine.ranks.held import HeldModel, Run
from engine.ranks.plan import several
from engine.ranks.words import LaunchFailed
from engine.reading.status import item_status, model_status, optimizer_words
from engine.training.able import check_able
from engine.training.controls import RunItem
from engine.training.failures import classify, ends_process
from engine.training.items import Ready, make_ready, settings_of
from engine.training.sampler import ends_unheard
from engine.training.stepping import check_rounding
from queue_store import config as configuration
from queue_store import head, journal, queue, records
from queue_store import transitions as moves
from queue_store.config import Config
from queue_store.database import open_state
from queue_store.errors import ConfigError, ProcessEnd, Refused
from queue_store.failures import Cause
from queue_store.items import Item, ItemState
from queue_store.metrics import Metrics

if TYPE_CHECKING:
    from engine.loop.thread import Engine

log = logging.getLogger("trainctl.engine")
IDLE_SECONDS = 1.0


class Worker:
    """The state of the engine thread. Used by that thread alone."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.home = engine.home
        self.config = engine.config
        self.board = engine.board
        self.requests = engine.requests
        self.state = open_state(self.home)
        self.metrics = Metrics(self.home)
        self.saver = Saver(self.home, self.state, self.metrics, self.requests.wake)
        self.reports = Reports(self)
        self.watch = Watch(self)
        self.ahead = Ahead(self.home)
        self.boundary = Boundary(self)
        self.live: HeldModel | None = None
        self.loaded_for: object = None
        """What config.toml said of processes when the live state was loaded."""
        self.failed_loads = 0
        """How often in a row ranks did not come up."""
        self.line: records.Run
        self.item: Item | None = None
        self.run_now: Run | None = None
        self.cursors: dict[int, tuple[int, int]] = {}
        self.rendering: dict[str, str] = {}
        """What made text of the rows that trained last (see records.Progress)."""
        self._warned: set[str] = set()
        self.changes = self.saved = 0
        """Changes of the live state so far, and those of them that the head's checkpoint has."""

    # -- life -----------------------------------------------------------------------------------

    def run(self) -> None:
        """The thread's whole life. Raises TrainctlError where it cannot start."""
        try:
            self._begin()
            while not self.boundary.ending:
                try:
                    self.boundary.between_items()
                    if not self.boundary.ending:
                        self._one_item()
                except LaunchFailed as error:
                    loading.lost(self, error)
            self._end()
        finally:
            if self.live is not None:
                self.live.end()
            self.saver.close()
            try:
                self.metrics.close()
            except OSError as error:
                # No checkpoint has these steps: they train again.
                log.error("%d steps are not on record: %s", self.metrics.pending, error)
            self.state.close()

    def _begin(self) -> None:
        self.board.set(EngineState.STARTING, "looking after the last session")
        agents.forget_note(self.home)
        self._check(self.config)
        for line in recovery.recover(self.state, self.metrics):
            log.info("%s", line)
        self.board.stand_on_head(self.state, self.config.snapshots)
        self.boundary.restore()
        self.publish(force=True)
        self.engine.keeper.start()  # not before recovery is over
        if not self.board.paused:
            loading.at_start(self)

    def _end(self) -> None:
        self.board.set(EngineState.STOPPING, "saving")
        self.publish(force=True)
        try:
            if self.unsaved:
                self.save()
        except LaunchFailed as error:
            loading.lost(self, error)
        with noroom.at_the_end():
            self.boundary.finish()

    def load(self) -> None:
        """Make the live state that of the head; a new run of steps begins there. Raises
        LaunchFailed, and Cancelled where several processes hold it and a command waits."""
        loading.load(self)

    def stand_on_head(self) -> None:
        """The head was moved. Parked, the state is loaded when the next item begins."""
        loading.stand_on_head(self)

    def free(self) -> None:
        """Let go of the live state and of the memory that it holds on the device."""
        loading.free(self)

    def warn(self, text: str) -> None:
        """What a person should mend while training goes on: the hint, and once in the journal."""
        self.board.tell(
            "warning",
            text,
            "training goes on meanwhile; what is mended counts from the next item on",
        )
        if text not in self._warned:
            self._warned.add(text)
            with self.state.transaction():
                journal.record(self.state, "warning", text)

    def publish(self, *, force: bool = False) -> None:
        self.board.publish(self.state, force=force)

    # -- one item -------------------------------------------------------------------------------

    def _one_item(self) -> None:
        """Claim and run the next item, or wait for one."""
        item = moves.claim(self.state)
        if item is None:
            if self.unsaved:
                self.save()
            if not self.board.paused:
                self.board.set(EngineState.IDLE)
            self.publish(force=True)
            self.requests.wait(self._until_next())
            self.requests.rung()
            return
        self.item = item
        try:
            if self._loaded_for(item):
                self._train(item)
        finally:
            self.item = None
            self.run_now = None
            self.saver.flush = None
            self.board.item = None

    def _loaded_for(self, item: Item) -> bool:
        """Whether there is a live state for the item; where ranks do not come up for it, it waits
        for them."""
        try:
            if self.live is None:
                self.load()
        except Cancelled:
            self.boundary.called_off(item)
        except LaunchFailed as error:
            loading.put_off(self, item, error)
        return self.live is not None

    def _until_next(self) -> float:
        soonest = queue.soonest(self.state)
        wait = IDLE_SECONDS if soonest is None else soonest - time.time()
        return min(IDLE_SECONDS, max(0.05, wait))

    def _train(self, item: Item) -> None:
        try:
            self._read_config()
            loading.follow_settings(self)
            ready = self._prepare(item)
        except Cancelled:
            self.boundary.called_off(item)
            return
        except ProcessEnd:
            raise
        except Exception as error:
            self._failed(item, error, touched=False)
            return
        try:
            if not self.boundary.before_training(item):
                return
            self._step(item, ready)
        except ProcessEnd:
            raise  # no failure of the item: the next process finds it as after a kill
        except Exception as error:
            self._failed(item, error, touched=True)

    def _read_config(self) -> None:
        """Edits of config.toml reach the next item; a broken file changes nothing."""
        try:
            config = configuration.load(self.home.config)
            self._check(config)
            loading.check_change(self, config)
        except ConfigError as error:
            self.warn(f"{error}: going on with the settings of before")
            return
        self.config = config

    def _check(self, config: Config) -> None:
        """Raises ConfigError where this home or this machine cannot train so."""
        recovery.check_locked(self.state, config, self.home.config)
        profiles.find(config.data.profile)
        if not several(config):  # the ranks see for themselves: no card is touched here for them
            check_able(config)

    def _prepare(self, item: Item) -> Ready:
        assert self.live is not None
        self.board.item = item_status(
            id=item.id,
            name=item.name,
            priority=item.priority.word,
            step=item.step,
            steps=item.steps,
            rows=item.rows,
            cursor=item.cursor,
        )
        cursor, _ = self.cursors.get(item.id, (0, 0))
        settings = settings_of(item, self.config, cursor)
        check_rounding(self.live.loaded.dtype, self.live.loaded.method, settings.training)

        def progress(done: int, total: int) -> None:
            share = done / total if total else 1.0
            self.board.set(EngineState.PREPARING, f"preparing {item.name}", share)
            self.publish()

        self.board.set(EngineState.PREPARING, f"preparing {item.name}", 0.0)
        self.publish(force=True)
        folder = self.live.loaded.folder
        calls_off, ahead = self.boundary.calls_off, ""
        if not cursor:
            ahead = self.ahead.take(item, settings, folder, progress, calls_off)
        ready = make_ready(
            self.home, item, settings, folder, cursor, progress, calls_off, ahead=ahead
        )
        moves.prepared(
            self.state,
            item.id,
            key=ready.prepared.key,
            settings=settings.dump(),
            rows=ready.prepared.rows,
            epochs=settings.training.epochs,
            steps=ready.plan.steps,
            held_out=len(ready.prepared.held_out),
            report=ready.prepared.report,
        )
        self.watch.look_at(item, ready, folder, self.boundary.calls_off)
        if unheard := ends_unheard(self.live.ends, ready.prepared.report):
            self.warn(unheard)
        return ready

    def _step(self, item: Item, ready: Ready) -> None:
        """Run the item's steps and record how it ended."""
        assert self.live is not None
        training = ready.settings.training
        if self.live.use_optimizer(training):
            self.board.model = model_status(**self.live.told)
            with self.state.transaction():
                moved = optimizer_words(self.board.model["optimizer"])
                text = f"the optimizer is {moved} from here on, with a fresh state"
                journal.record(self.state, "optimizer", text, item=item.id)
        recovery.lock_keys(self.state, self.config)
        cursor, _ = self.cursors.get(item.id, (0, 0))
        moves.training(self.state, item.id, f"{item.name} trains from row {cursor}")
        self.reports.begin(item, ready)
        run = self.live.begin(
            ready.prepared,
            RunItem(item.id, item.name, cursor, training.epochs),
            training,
            self.reports.place,
            self.boundary,
            self.reports,
            self.watch.monitoring(),
            halved=ready.settings.halved,
        )
        self.run_now, self.saver.flush = run, run.flush
        self.rendering = ready.prepared.rendering
        self.board.set(EngineState.TRAINING)
        self.publish(force=True)
        self.engine.keeper.soon("ahead")
        outcome = run.train()
        self.saver.flush = None
        self.flush_metrics()
        self.cursors[item.id] = (outcome.cursor, outcome.step)
        if outcome.kind == "done":
            moves.trained(self.state, item.id, outcome.global_step)
            del self.cursors[item.id]
            self.changes += 1
            self.board.all_well()
        self.boundary.left(item, outcome)
        if self.unsaved and self.saver.due(self.board.global_step, self.config):
            self.save(aside=True)

    def _failed(self, item: Item, error: Exception, *, touched: bool) -> None:
        """The item failed; where the model may have been touched, go back to the last good state:
        what trained since goes to the front of the queue."""
        cause, message = classify(error)
        log.warning("item %d (%s): %s: %s", item.id, item.name, cause, message, exc_info=error)
        with contextlib.suppress(Exception):
            self.metrics.flush()
        if touched:
            noroom.tend(self)  # what is being written aside was good when it was captured
        if cause == Cause.DISK_FULL:
            noroom.wait_with(self, item, message, touched=touched)
            return
        with self.state.transaction():
            after = moves.fail(self.state, item.id, cause, message, self.config.queue.max_attempts)
            if touched:
                at = records.head(self.state)
                assert at is not None
                why = f"back to step {at.checkpoint.step}: {item.name}: {cause}"
                head.move_head(
                    self.state, at.checkpoint, why=why, new=after.state is ItemState.FAILED
                )
        back = records.head(self.state) if touched else None
        self.board.told["item_fails"] = failing(
            Failed(
                *(item.id, item.name, cause, message, time.time()),
                tries=len(queue.attempts(self.state, item.id)),
                peak_bytes=self.board.memory,
                back_to=back.checkpoint.step if back else None,
            )
        )
        end = ends_process(error, str(self.home.log))
        if end is not None:
            raise end
        if touched:
            loading.back_to_head(self)
        self.boundary.failed(item, f"{cause}: {message}")

    def flush_metrics(self) -> None:
        """Write the steps that are pending; on a full disk they stay so."""
        noroom.flush_metrics(self)

    # -- saving ---------------------------------------------------------------------------------

    @property
    def unsaved(self) -> bool:
        """Whether the live state is ahead of the head's checkpoint (one that is still being written
        is not the head's yet)."""
        return self.saved != self.changes

    def save(self, *, aside: bool = False) -> records.Checkpoint | None:
        """See saving.save_live: `aside` where nobody waits for it."""
        return saving.save_live(self, aside=aside)

    def saved_head(self) -> records.Checkpoint:
        """The head's checkpoint, with the live state in it. Raises Refused where it cannot be
        saved."""
        if self.unsaved and self.save() is None:
            raise Refused(self.board.hint)
        at = records.head(self.state)
        if at is None:
            raise Refused("nothing has trained yet")
        return at.checkpoint
