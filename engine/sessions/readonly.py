"""Sessions that can look and never change: what `trainctl --readonly` holds.

The refusal is here and not only at the keys, so that nothing that a console may come to ask can
change the home. Light to import, as the console's first frame waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from engine.messages import COMMANDS, Kind
from engine.sessions.session import LocalSession, Session
from queue_store.errors import NoEngine, Refused
from queue_store.home import Home

LOOKING = (Kind.SERVER, Kind.READ, Kind.LOOK)
LEAVE = "leave it (q) and start trainctl without --readonly"


def refuse_change(command: str) -> None:
    """Raise Refused where `command` is none of those that only look."""
    spec = COMMANDS.get(command)
    if spec is not None and spec.kind not in LOOKING:
        raise Refused(f"{command}: this console is read-only", mend=LEAVE)


class ReadOnlySession:
    """A session of which only the commands that look get through."""

    local = False

    def __init__(self, session: Session) -> None:
        self._session = session

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """See Session.request. Raises Refused for everything that would change something."""
        refuse_change(command)
        return self._session.request(command, timeout, **arguments)

    def close(self) -> None:
        """See Session.close."""
        self._session.close()


class StoreSession:
    """Looks at a home without an engine: the store answers. As soon as `connect` finds an engine,
    that one does, from then on."""

    local = False

    def __init__(self, home: Home, connect: Callable[[], Session]) -> None:
        from engine.sessions.dispatch import Dispatcher

        self._connect = connect
        self._session: Session = LocalSession(Dispatcher(_StoreControl(home)))
        self._live = False

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """See ReadOnlySession.request."""
        refuse_change(command)
        if not self._live and command == "snapshot":
            self._look_for_engine()
        return self._session.request(command, timeout, **arguments)

    def _look_for_engine(self) -> None:
        try:
            found = self._connect()
        except NoEngine:
            return
        self._session, self._live = found, True

    def close(self) -> None:
        """See Session.close."""
        self._session.close()


class _StoreControl:
    """The store in the place of an engine (engine.sessions.controlport.Control)."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._own = threading.local()

    def snapshot(self) -> dict[str, Any]:
        """The status as the store knows it."""
        from engine.reading.views import Views

        views: Views | None = getattr(self._own, "views", None)
        if views is None:
            views = self._own.views = Views(self.home)
        return {**views.status(), "phase": "no engine runs: this is what the store knows"}

    def meters(self) -> dict[str, Any]:
        """Nobody watches the machine."""
        raise NoEngine("no engine is running", where=str(self.home.root))

    def prompt_progress(self, key: str) -> dict[str, Any]:
        """Nobody answers a prompt."""
        return {"answering": False, "answer": "", "tokens": 0}

    def submit(self, command: str, arguments: dict[str, Any]) -> Future[Any]:
        """There is nobody to do it."""
        raise NoEngine(f"{command}: no engine is running", where=str(self.home.root))

    def look_at_hosts(self) -> None:
        """Nobody keeps what they say."""

    def wake(self) -> None:
        """Nothing waits."""
