"""The engine: its thread, and the door through which faces reach it.

Importing this module imports no torch; the thread does, when it starts. The engine never calls
a face: faces read `snapshot` and submit requests, which take effect at a step boundary.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from engine.hints.watch import Watch
from engine.loop.board import Board
from engine.loop.chores import CHORES
from engine.loop.evaluations import Evaluations
from engine.loop.growing import Growing
from engine.loop.keeper import Keeper
from engine.loop.requests import Request, Requests
from engine.machine.telemetry import Telemetry
from engine.messages import EngineState, Mode, known
from engine.sessions.statusfile import StatusFile
from engine.training.quiet import importing
from queue_store import config as configuration
from queue_store import engine_failure
from queue_store.config import Config
from queue_store.database import open_state, read_only
from queue_store.errors import NoEngine, ProcessEnd, Refused, TrainctlError
from queue_store.home import Home
from queue_store.inbox import Inbox

if TYPE_CHECKING:
    from engine.loop.worker import Worker

log = logging.getLogger("trainctl.engine")


class Engine:
    """One engine of one home. The caller holds the home's lock for as long as it lives."""

    def __init__(
        self,
        home: Home,
        config: Config,
        *,
        mode: str = Mode.DAEMON,
        supervisor_pid: int | None = None,
        hold: str = "",
    ) -> None:
        self.home = home
        self.config = config
        self._newest_config = config
        self.mode = str(mode)
        self.requests = Requests()
        self.telemetry = Telemetry()
        self.status_file = StatusFile(home, self.snapshot)
        self.board = Board(
            self.telemetry,
            home.store,
            {"name": config.model.name, "method": config.model.method},
            lambda: self.mode,
            self.requests.commands,
            supervisor_pid,
        )
        self.hold = hold
        """Why nothing is trained or changed: reads are served, all else is refused. "" = train."""
        self.board.published = self.board.build()
        self.growing = Growing()
        self.keeper = Keeper(self, CHORES)
        self.evaluations = Evaluations(home, config)
        self.hints = Watch(home)
        self.error: TrainctlError | None = None
        """Why the thread ended by itself, where it was not asked to."""
        self.worker: Worker | None = None
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    # -- the Control that sessions use ----------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        # The meters are fresh also while the engine thread is busy (imports, a long step).
        ahead = self.worker.ahead.status if self.worker is not None else None
        ahead = known(ahead, "nothing is being prepared ahead")
        hints, judged = self.board.hint_fields(), self.evaluations.status()
        now = {**self.telemetry.latest(), "ahead": ahead, **hints, **judged}
        return {**self.board.published, **now}

    def meters(self) -> dict[str, Any]:
        return self.telemetry.history()

    def prompt_progress(self, key: str) -> dict[str, Any]:
        return self.growing.of(key)

    def submit(self, command: str, arguments: dict[str, Any]) -> Future[Any]:
        request = Request(command, arguments, self.board.global_step)
        return self.requests.submit(request)

    def config_now(self) -> Config:
        """config.toml as it stands, for what an edit reaches at once; a broken one changes
        nothing."""
        try:
            self._newest_config = configuration.load(self.home.config)
        except TrainctlError:
            log.debug("config.toml is broken; the settings of before hold")
        return self._newest_config

    def wake(self) -> None:
        self.requests.wake()

    def look_at_hosts(self) -> None:
        self.evaluations.look_again()
        self.keeper.soon("jobs")

    # -- its life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread (and those of the inbox and the telemetry); returns at once."""
        self.board.set(EngineState.STARTING, "loading torch and transformers")
        # Held, nothing may be written, not even the index beside a database.
        with read_only(self.home) if self.hold else open_state(self.home) as state:
            self.board.stand_on_head(state, self.config.snapshots)
            self.board.paused = bool(state.meta_get("paused", False))
            self.board.publish(state, force=True)
        self.telemetry.start()
        if not self.hold:
            self.status_file.start()
        work = [("engine", self._run), ("inbox", self._watch)]
        for name, target in work[:1] if self.hold else work:
            thread = threading.Thread(target=target, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        try:
            if self.hold:
                self._held()
                return
            with importing():
                from engine.loop.worker import Worker

            self.worker = Worker(self)
            self.worker.run()
        except TrainctlError as error:
            self.error = error
            log.error("the engine ended: %s", error)
            self._note(error)
        except BaseException as error:
            log.exception("the engine ended by a defect")
            self.error = self._end_of(error)
        finally:
            self.keeper.stop()
            self.board.set(EngineState.FAILED if self.error else EngineState.STOPPED)
            if self.error:
                self.board.tell(
                    "engine_failed",
                    str(self.error),
                    "the log has the reason; then start trainctl again",
                )
            self.board.published = self.board.build()
            why = self.error or NoEngine("the engine has stopped")
            self.requests.close(why)
            if self.worker is not None:
                self.worker.boundary.abandon(why)
            self._ended.set()

    def _note(self, error: TrainctlError) -> None:
        """Say in the store why it ended, where no supervisor starts it again."""
        if self.hold or isinstance(error, ProcessEnd):
            return
        try:
            with open_state(self.home) as state:
                engine_failure.note(state, str(error))
        except (TrainctlError, sqlite3.Error, OSError):
            log.warning("the store cannot say why the engine ended", exc_info=True)

    def _end_of(self, error: BaseException) -> TrainctlError:
        """What an exception that nobody expected means for the process."""
        from engine.training.failures import ends_process

        end = ends_process(error, str(self.home.log))
        return end or ProcessEnd(
            f"the engine ended: {type(error).__name__}: {error}",
            cause="unknown",
            mend=f"the reason is in {self.home.log}",
        )

    def _held(self) -> None:
        """Serve reads and nothing else until told to stop: the disk must not be written."""
        why = Refused(f"held: {self.hold}", mend="mend the disk, then start trainctl again")
        while True:
            self.board.set(EngineState.FAILED, "held")
            self.board.tell(
                "held",
                f"held: {self.hold}",
                "mend the disk (dmesg and its SMART"
                " values), make a backup, then start trainctl again",
            )
            self.board.heartbeat = time.monotonic()
            self.board.published = self.board.build()
            while (request := self.requests.take()) is not None:
                if request.command == "stop":
                    request.answer({"scheduled": True, "step": self.board.global_step})
                    return
                request.refuse(why)
            self.requests.wait(1.0)

    def _watch(self) -> None:
        try:
            quiet = self.config.queue.quiet_seconds
            inbox = Inbox(self.home, lambda: open_state(self.home), quiet)
            inbox.watch(self._ended, lambda _: self.wake())
        except Exception:
            # The queue still takes `trainctl add`; what the inbox met is in the log.
            log.exception("the watch of the inbox ended")

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the engine thread's end; True when it has ended."""
        ended = self._ended.wait(timeout)
        if ended:
            for thread in self._threads:
                thread.join(10)
            self.telemetry.stop()
            self.status_file.stop()
        return ended

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0

    def request_stop(self) -> None:
        """Ask for a save and the end, as SIGTERM does; returns at once."""
        future = self.submit("stop", {})
        future.add_done_callback(_heard)


def _heard(future: Future[Any]) -> None:
    error = future.exception()
    if error is not None and not isinstance(error, NoEngine | Refused):
        log.error("stop was refused: %s", error)
