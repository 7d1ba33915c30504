"""The keeper: what is looked after beside training, on threads of its own.

Chores come again by the clock (verifying, retention, backups, the daily version, free disk);
jobs are asked for by a command. Each runs with a connection of its own, never two of one name at
once, and what one of them raises ends neither the others nor the engine.
Must never move the head: what does is submitted to the engine thread as a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.loop.requests import Request
from queue_store.database import State, open_state
from queue_store.errors import NoEngine, TrainctlError

if TYPE_CHECKING:
    from engine.loop.thread import Engine

log = logging.getLogger("trainctl.keeper")
TICK_SECONDS = 1.0
THREADS = 4
"""A long copy to a target must not hold up the verification of a snapshot, nor what prepares the
next item."""


@dataclass(frozen=True)
class Chore:
    """Something to look after: `run(engine, state)` every `seconds`, first after `delay`."""

    name: str
    seconds: float
    run: Callable[[Engine, State], object]
    delay: float = 0.0


class Keeper:
    """Runs the chores of one engine from `start` to `stop`, and jobs in between."""

    def __init__(self, engine: Engine, chores: Sequence[Chore]) -> None:
        self.engine = engine
        self.chores = chores
        self.stopping = threading.Event()
        """Set at the end; what takes long looks at it and breaks off."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="trainctl-keeper")
        self._due = {c.name: time.monotonic() + c.delay for c in chores}
        self._running: dict[str, Future[Any]] = {}
        self._told: dict[str, str] = {}
        self._bell = threading.Event()
        self._thread: threading.Thread | None = None
        self._beside: list[threading.Thread] = []

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="trainctl-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Break off what runs and wait for it. Idempotent."""
        self.stopping.set()
        self._bell.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for thread in self._beside:
            thread.join()

    def beside(self, name: str, job: Callable[[State], object]) -> None:
        """Run what may take hours on a thread of its own, so that no chore waits for it. It looks
        at `stopping`, and is waited for at the end. For a chore to call."""
        thread = threading.Thread(
            target=self._aside, args=(name, job), name=f"trainctl-{name}", daemon=True
        )
        self._beside = [*(one for one in self._beside if one.is_alive()), thread]
        thread.start()

    def submit(self, job: Callable[[State], Any]) -> Future[Any]:
        """Run a job on a thread of the keeper, soon. Raises NoEngine after `stop`."""
        try:
            return self._pool.submit(self._with_state, job)
        except RuntimeError:
            raise NoEngine("the engine is ending") from None

    def answer(self, request: Request, job: Callable[[State], Any]) -> None:
        """Run a job and answer a request with its result, or refuse it with its error."""

        def done(future: Future[Any]) -> None:
            error = NoEngine("the engine is ending") if future.cancelled() else future.exception()
            if error is None:
                request.answer(future.result())
            elif isinstance(error, TrainctlError):
                request.refuse(error)
            else:
                log.error("%s failed", request.command, exc_info=error)
                request.refuse(TrainctlError(f"{request.command} failed: {error}"))

        try:
            self.submit(job).add_done_callback(done)
        except NoEngine as error:
            request.refuse(error)

    def soon(self, name: str) -> None:
        """A chore is due now: something happened that it is for. Any thread."""
        self._due[name] = 0.0
        self._bell.set()

    def _loop(self) -> None:
        while not self.stopping.is_set():
            now = time.monotonic()
            for chore in self.chores:
                running = self._running.get(chore.name)
                if self._due[chore.name] <= now and (running is None or running.done()):
                    self._due[chore.name] = now + chore.seconds
                    self._running[chore.name] = self._pool.submit(self._run, chore)
            self._bell.wait(TICK_SECONDS)
            self._bell.clear()

    def _run(self, chore: Chore) -> None:
        try:
            self._with_state(lambda state: chore.run(self.engine, state))
        except Exception as error:
            # A disk that is full for an hour must not fill the log: a reason is told once.
            if self._told.get(chore.name) != str(error) and not self.stopping.is_set():
                known = isinstance(error, TrainctlError | OSError)
                log.warning("%s: %s", chore.name, error, exc_info=None if known else error)
            self._told[chore.name] = str(error)
        else:
            self._told.pop(chore.name, None)

    def _aside(self, name: str, job: Callable[[State], object]) -> None:
        try:
            self._with_state(job)
        except Exception:
            log.exception("%s failed", name)

    def _with_state(self, job: Callable[[State], Any]) -> Any:
        with open_state(self.engine.home) as state:
            return job(state)
