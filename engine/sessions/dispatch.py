"""From a request to the one place that answers it.

Arguments are checked against messages.COMMANDS; reads and changes of the queue go to a few
threads with database connections of their own, everything else that acts goes to the engine
thread. Used by the socket server and by a console in the engine's process alike.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine.adapters import merging
from engine.faults import Internal, ProtocolMismatch
from engine.inspecting import showing
from engine.messages import COMMANDS, PROTOCOL, Command, Kind, check, plain
from engine.reading import comparing, jobrows
from engine.reading.views import Views
from engine.sessions import (
    backup_handlers,
    evaluation_handlers,
    host_handlers,
    job_handlers,
    upkeep_handlers,
)
from engine.sessions.asks import ASKS
from engine.sessions.controlport import Control
from engine.verify import verifying
from queue_store import config, intake, queue, transitions
from queue_store.database import State
from queue_store.errors import NoEngine, Refused, TrainctlError
from queue_store.items import Priority
from snapshots import facts, inuse, labels, versions

log = logging.getLogger("trainctl.session")


class Dispatcher:
    """Answers requests for one engine. `begin` may be called from any thread."""

    def __init__(self, control: Control, workers: int = 3) -> None:
        self.control = control
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="trainctl-view")
        # What reads whole versions must not hold up the views.
        self._upkeep = ThreadPoolExecutor(2, thread_name_prefix="trainctl-upkeep")
        # A host that does not answer, or a child, must hold up neither.
        self._look = ThreadPoolExecutor(2, thread_name_prefix="trainctl-look")
        # Models are asked for minutes: neither views nor verifications wait for that.
        self._asking = ThreadPoolExecutor(2, thread_name_prefix="trainctl-ask")
        self._own = threading.local()
        self.closing = threading.Event()
        """Set at the end; what takes long on a thread of ours looks at it and breaks off."""

    def begin(self, command: str, arguments: Mapping[str, Any]) -> Future[Any]:
        """Start answering; the future holds the result or an error of the TrainctlError family.

        Cancelling the future is not supported: a command that was accepted is carried out.
        Raises UsageError (unknown command, wrong arguments) and ProtocolMismatch at once.
        """
        checked = check(command, arguments)
        kind = COMMANDS[command].kind
        held = getattr(self.control, "hold", "")
        if held and kind in (Kind.STORE, Kind.UPKEEP):
            raise Refused(f"held: {held}", mend="mend the disk, then start trainctl again")
        if command == "cancel_generate":
            ASKS.cancel(plain(checked)["key"])
        if kind is Kind.ENGINE:
            return self.control.submit(command, plain(checked))
        if kind is Kind.SERVER:
            done: Future[Any] = Future()
            done.set_result(self._at_once(command, checked))
            return done
        try:
            pools = {Kind.UPKEEP: self._upkeep, Kind.LOOK: self._look, Kind.ASK: self._asking}
            return pools.get(kind, self._pool).submit(self._answer, command, checked)
        except RuntimeError:
            raise NoEngine("the engine is ending") from None

    def close(self) -> None:
        """Take no more requests; those that wait for a thread are dropped, and what reads
        versions breaks off."""
        self.closing.set()
        for pool in (self._pool, self._upkeep, self._look, self._asking):
            pool.shutdown(wait=False, cancel_futures=True)

    def _at_once(self, command: str, arguments: Command) -> dict[str, Any]:
        if command == "hello":
            return self._hello(arguments)
        if command == "prompt_progress":
            key = plain(arguments)["key"]
            return ASKS.progress(key) or self.control.prompt_progress(key)
        return self.control.meters() if command == "meters" else self.control.snapshot()

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
            "supervisor_pid": engine.get("supervisor_pid"),
            "mode": engine.get("mode", ""),
            "home": str(self.control.home.root),
        }

    def _answer(self, command: str, arguments: Command) -> Any:
        """Runs on a thread of the pool."""
        views: Views | None = getattr(self._own, "views", None)
        try:
            if views is None:
                views = self._own.views = Views(
                    self.control.home,
                    self.closing,
                    read_only=bool(getattr(self.control, "hold", "")),
                )
            handler = _HANDLERS[command]
            result = handler(views, **plain(arguments))
            if command == "jobs":  # what only the engine knows: its hosts, and how far each job is
                result = jobrows.joined(result, self.control.snapshot())
        except TrainctlError:
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise self._broken(command, views) from None
            raise Refused(
                f"{command} was not done: {error.strerror}",
                where=str(self.control.home.store),
                mend="free some room on the disk" if error.errno != errno.EIO else "see dmesg",
            ) from None
        except Exception:
            raise self._broken(command, views) from None
        if COMMANDS[command].kind in (Kind.STORE, Kind.UPKEEP):
            self.control.wake()
        if command in host_handlers.HANDLERS:
            self.control.look_at_hosts()
        return result

    def _broken(self, command: str, views: Views | None) -> Internal:
        """A defect: logged, and the connection, which may be what broke, is not used again."""
        self._own.views = None
        if views is not None:
            views.close()
        log.exception("%s failed", command)
        return Internal(f"{command} failed", mend=f"the reason is in {self.control.home.log}")


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


def _shift(
    views: Views, items: list[int], by: int, among: list[int] | None = None
) -> dict[str, Any]:
    return {"moved": queue.shift(views.state, items, by, among)}


def _remove(views: Views, item: int) -> dict[str, Any]:
    was = views.item(item)
    days = config.load(views.home.config).snapshots.trash_days
    intake.remove(views.state, item, days=days)
    return was


def _unremove(state: State, item: int) -> None:
    from snapshots import trash

    trash.restore_item(state, item)


def _labelled(act: Callable[..., versions.Version]) -> Callable[..., Any]:
    """A handler that changes what is written on a version and answers how it looks now."""

    def handler(views: Views, version: str, **arguments: Any) -> dict[str, Any]:
        name = act(views.state, version, **arguments).name
        return next(row for row in views.versions() if row["name"] == name)

    return handler


def _version(views: Views, version: str) -> dict[str, Any]:
    name = versions.get(views.state, version).name
    row = next(row for row in views.versions() if row["name"] == name)
    return facts.facts(views.state, name, row)


def _tag(state: State, version: str, name: str, on: bool) -> versions.Version:
    return labels.tag(state, version, name) if on else labels.untag(state, version, name)


def _verify(views: Views, version: str, deep: bool) -> dict[str, Any]:
    return verifying.outcome(views.state, version, deep=deep, stop=views.closing)


def _merge(views: Views, version: str, description: str) -> dict[str, Any]:
    settings = config.load(views.home.config)
    made = merging.merge(
        *(views.state, settings, version), description=description, stop=views.closing
    )
    return _version(views, made.name)


_HANDLERS: dict[str, Callable[..., Any]] = {
    "events": Views.events,
    "series": Views.series,
    "queue": Views.queue,
    "item": Views.item,
    "row": showing.row,
    "checkpoints": Views.checkpoints,
    "versions": Views.versions,
    "samples": Views.samples,
    "rollback_plan": Views.rollback_plan,
    "add": _add,
    "priority": _changed(_priority),
    "move": _changed(_move),
    "shift": _shift,
    "retry": _changed(transitions.retry),
    "remove": _remove,
    "unremove": _changed(_unremove),
    "pin": _labelled(labels.pin),
    "tag": _labelled(_tag),
    "describe": _labelled(labels.describe),
    "version": _version,
    "compare": comparing.answer,
    "weights_distance": comparing.distance,
    "verifying": lambda views: inuse.under_way(),
    "verify": _verify,
    "merge": _merge,
    "backup_targets": backup_handlers.listed,
    "backup": backup_handlers.answer,
    "ask": ASKS.answer,
    **job_handlers.HANDLERS,
    **upkeep_handlers.HANDLERS,
    **evaluation_handlers.HANDLERS,
    **host_handlers.HANDLERS,
}
