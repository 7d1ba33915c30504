"""An engine in this process: its thread, its socket, the home's lock; and its end.

The same code serves the daemon and a console that has no engine to attach to. Whatever ends the
engine (a command, a signal, `.stop` in the home, a defect), the socket goes first and the lock
last, for who waits for the lock may then start another. Never imports torch itself.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from queue_store.errors import Refused, TrainctlError
from queue_store.home import Home

if TYPE_CHECKING:
    from engine.sessions.server import Server
    from engine.sessions.session import Session
    from queue_store.config import Config
    from queue_store.lock import EngineLock

log = logging.getLogger("trainctl.host")


def refuse_stop_file(home: Home) -> None:
    """Raise Refused while a `.stop` that nobody has honoured lies in the home."""
    if home.stop_file.exists():
        raise Refused(
            "it asks the engine to stop", where=str(home.stop_file), mend="remove it to start"
        )


class Host:
    """Owns the engine of one home from its start to its end."""

    def __init__(
        self,
        home: Home,
        config: Config,
        lock: EngineLock,
        mode: str,
        *,
        supervisor_pid: int | None = None,
        hold: str = "",
    ) -> None:
        self.home = home
        self.supervisor_pid = supervisor_pid
        self.hold = hold
        self.config = config
        self.lock = lock
        self.mode = mode
        self.ended = threading.Event()
        """Set once the engine has ended, its socket is closed and, unless it is handed on, the
        lock is free."""
        self._handing_on = False
        self._starting = threading.Lock()
        self._server: Server | None = None

    def started(self) -> Session:
        """The session with the engine, which is started where it does not run yet."""
        with self._starting:
            if self._server is None:
                self.start()
            return self.session

    def start(self) -> None:
        """Start the engine's thread and its socket; returns at once. `session` speaks with it.

        Raises TrainctlError where the socket cannot be made.
        """
        from engine.loop.thread import Engine
        from engine.sessions.dispatch import Dispatcher
        from engine.sessions.server import Server
        from engine.sessions.session import LocalSession

        self.ended.clear()
        self.engine = Engine(
            self.home,
            self.config,
            mode=self.mode,
            supervisor_pid=self.supervisor_pid,
            hold=self.hold,
        )
        self._dispatcher = Dispatcher(self.engine)
        self.session: Session = LocalSession(self._dispatcher)
        server = Server(self.home, self._dispatcher)
        server.start()
        self.engine.start()
        self._server = server
        threading.Thread(target=self._watch, name="trainctl-host", daemon=True).start()

    def stop(self) -> None:
        """Ask the engine to save after this step and to end; `ended` tells when it has."""
        with self._starting:
            if self._server is None:
                self.lock.release()
                self.ended.set()
                return
        self.engine.request_stop()

    @property
    def running(self) -> bool:
        """Whether the engine was ever started here."""
        return self._server is not None

    def train_on_as(self, mode: str) -> None:
        """The engine's process has another role from now on: say so in status and lock."""
        self.mode = mode
        self.engine.mode = mode
        self.lock.describe(mode)

    def wait(self, seconds: float) -> bool:
        """Wait until all has ended, at most so long; True when it has."""
        return self.ended.wait(seconds)

    @property
    def failure(self) -> str:
        """Why the engine ended by itself, "" where it was asked to or still runs."""
        error = self.engine.error if self.running else None
        return "" if error is None else str(error)

    @property
    def exit_code(self) -> int:
        """0 where the engine ended as it was asked to."""
        return int(self.engine.exit_code) if self.running else 0

    def _watch(self) -> None:
        """Clear up after the engine's thread."""
        self.engine.join()
        if self._server is not None:
            self._server.stop()
        self._dispatcher.close()
        if not self._handing_on:
            self.lock.release()
        self.ended.set()

    def hand_over(self) -> int:
        """Save, end the engine here and start a daemon that holds our lock; its process id.

        Where the daemon does not come up, the engine starts here again, and the TrainctlError
        says why; `session` is then a new one.
        """
        from trainctl.daemon import spawn

        self._handing_on = True
        try:
            if self.ended.is_set():
                raise Refused("the engine has ended here", where=str(self.home.root))
            if self.running:
                self.session.request("handover")
                self.ended.wait()
            pid, _ = spawn(self.home, lock_fd=self.lock.fd)
        except TrainctlError:
            self._handing_on = False
            if (self.ended.is_set() or not self.running) and self.lock.fd >= 0:
                self.lock.describe(self.mode)
                self.start()
            raise
        self.lock.release()
        return pid
