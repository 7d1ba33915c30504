"""From a request to the one place that answers it.

Arguments are checked against messages.COMMANDS; reads and changes of the queue go to a few
threads with database connections of their own, everything else that acts goes to the engine
thread. Used by the socket server and by a console in the engine's process alike.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine.controlport import Control
from engine.faults import Internal, ProtocolMismatch
from engine.messages import COMMANDS, PROTOCOL, Command, Kind, check, plain
from engine.views import Views
from queue_store import intake, queue, transitions
from queue_store.database import State
from queue_store.errors import NoEngine, TrainctlError
from queue_store.items import Priority
from snapshots import versions

log = logging.getLogger("trainctl.session")


class Dispatcher:
    """Answers requests for one engine. `begin` may be called from any thread."""

    def __init__(self, control: Control, workers: int = 3) -> None:
        self.control = control
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="trainctl-view")
        self._own = threading.local()

    def begin(self, command: str, arguments: Mapping[str, Any]) -> Future[Any]:
        """Start answering; the future holds the result or an error of the TrainctlError family.

        Cancelling the future is not supported: a command that was accepted is carried out.
        Raises UsageError (unknown command, wrong arguments) and ProtocolMismatch at once.
        """
        checked = check(command, arguments)
        kind = COMMANDS[command].kind
        if kind is Kind.ENGINE:
            return self.control.submit(command, plain(checked))
        if kind is Kind.SERVER:
            done: Future[Any] = Future()
            done.set_result(
                self.control.snapshot() if command == "snapshot" else self._hello(checked)
            )
            return done
        try:
            return self._pool.submit(self._answer, command, checked)
        except RuntimeError:
            raise NoEngine("the engine is ending") from None

    def close(self) -> None:
        """Take no more requests; those that wait for a thread are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _hello(self, arguments: Command) -> dict[str, Any]:
        theirs = plain(arguments)["protocol"]
        if theirs != PROTOCOL:
            raise ProtocolMismatch(
                f"the engine speaks protocol {PROTOCOL}, this program protocol {theirs}",
                where=str(self.control.home.root),
                mend="use the same trainctl for both, or restart the engine",
            )
        engine = self.control.snapshot().get("engine") or {}
        return {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "mode": engine.get("mode", ""),
            "home": str(self.control.home.root),
        }

    def _answer(self, command: str, arguments: Command) -> Any:
        """Runs on a thread of the pool."""
        views: Views | None = getattr(self._own, "views", None)
        try:
            if views is None:
                views = self._own.views = Views(self.control.home)
            handler = _HANDLERS[command]
            result = handler(views, **plain(arguments))
        except TrainctlError:
            raise
        except Exception:
            # The connection may be what broke: the next request opens a new one.
            self._own.views = None
            if views is not None:
                views.close()
            log.exception("%s failed", command)
            raise Internal(
                f"{command} failed", mend=f"the reason is in {self.control.home.log}"
            ) from None
        if COMMANDS[command].kind is Kind.STORE:
            self.control.wake()
        return result


# -- handlers: one a command, on a thread of the pool ------------------------------------------


def _changed(act: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that changes one item and answers how it looks now."""

    def handler(views: Views, item: int, **arguments: Any) -> dict[str, Any]:
        act(views.state, item, **arguments)
        return views.item(item)

    return handler


def _add(views: Views, path: str, priority: str) -> dict[str, Any]:
    file = Path(path)
    item = intake.add_file(views.state, file, priority=Priority.of(priority), source=path)
    return views.item(item.id)


def _priority(state: State, item: int, priority: str) -> None:
    queue.set_priority(state, item, Priority.of(priority))


def _move(state: State, item: int, first: bool, before: int | None) -> None:
    if before is None:
        queue.move_first(state, item)
    else:
        queue.move_before(state, item, before)


def _remove(views: Views, item: int) -> dict[str, Any]:
    was = views.item(item)
    intake.remove(views.state, item)
    return was


def _pin(views: Views, version: str, pinned: bool) -> dict[str, Any]:
    name = versions.pin(views.state, version, pinned).name
    return next(row for row in views.versions() if row["name"] == name)


_HANDLERS: dict[str, Callable[..., Any]] = {
    "events": Views.events,
    "series": Views.series,
    "queue": Views.queue,
    "item": Views.item,
    "checkpoints": Views.checkpoints,
    "versions": Views.versions,
    "samples": Views.samples,
    "rollback_plan": Views.rollback_plan,
    "add": _add,
    "priority": _changed(_priority),
    "move": _changed(_move),
    "retry": _changed(transitions.retry),
    "remove": _remove,
    "pin": _pin,
}
