"""The inbox: files dropped there become items when they are complete.

`scan` looks at everything once and takes what is complete; `watch` repeats it in a thread.
File events are only a hint that it is time to look: they get lost, and there is none for the
closing of a file. What is not taken is listed with its reason, so that nothing waits in silence.
Must never block on what it finds, follow a link, or take bytes that somebody else can change.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from queue_store import durable, intake, queue
from queue_store.complete import Look, Verdict, held, ignored, judge, odd_kind
from queue_store.database import State, now
from queue_store.errors import TrainctlError
from queue_store.home import Home
from queue_store.items import Item, ItemState, Priority
from queue_store.transitions import move_state

FOLDERS = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW}
FLATTENED = "training_samples.jsonl"
"""The one file of a dataset's folder in the older layout, inbox/<dataset>/."""

RESCAN_SECONDS = 30.0
_HINT_STEP_MS = 50
_HINT_DEBOUNCE_MS = 100
_WAKE_MS = 200
_UNWATCHED_LOOKS = 60
"""How often to look, once a second, before file events are tried again."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """A file in the inbox that is not taken: why, and since when (seconds since the epoch)."""

    path: str
    name: str
    priority: Priority
    reason: str
    since: float


@dataclass(frozen=True)
class ScanResult:
    """What a scan took (queued or rejected items) and what it left, and in how many seconds
    something left may become complete by itself (None: only when a file changes)."""

    taken: tuple[Item, ...]
    waiting: tuple[Waiting, ...]
    again: float | None = None


@dataclass
class _Seen:
    look: Look
    calm_from: float
    since: float


@dataclass(frozen=True)
class _Entry:
    path: Path
    name: str
    priority: Priority


class Inbox:
    """The inbox of a home. Belongs to one thread: the one that calls `scan` or `watch`."""

    def __init__(
        self,
        home: Home,
        state_factory: Callable[[], State],
        quiet_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._state_factory = state_factory
        self._state: State | None = None
        self._quiet = quiet_seconds
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._listed: tuple[Waiting, ...] | None = None
        self._since: dict[str, float] = {}
        self._orphans = False

    def scan(self, stop: Callable[[], bool] = lambda: False) -> ScanResult:
        """Look at every file once, take the complete ones in the order of priority and age, and
        keep the list of the rest in the database. `stop` ends it between two files."""
        state = self._open()
        taken: list[Item] = []
        if self._orphans:  # a file got into the store, but its row did not
            taken += intake.adopt_orphans(state)
            self._orphans = False
        ready: list[tuple[Priority, int, str, _Entry]] = []
        waiting: list[Waiting] = []
        again: list[float] = []
        present = set()
        for entry, reason in self._entries():
            present.add(str(entry.path))
            try:
                info = entry.path.lstat()
            except FileNotFoundError:
                continue
            why = odd_kind(info) or reason
            seen = self._look(entry, Look.of(info))
            calm = self._clock() - seen.calm_from
            if not why and calm >= self._quiet:
                ready.append((entry.priority, info.st_mtime_ns, entry.name, entry))
                continue
            if not why:
                why = f"waiting until it is quiet for {self._quiet:g} s"
                again.append(self._quiet - calm)
            waiting.append(self._waiting(entry, why))
        for _, _, _, entry in sorted(ready, key=lambda one: one[:3]):
            if stop():
                waiting.append(self._waiting(entry, "complete; taken at the next start"))
                continue
            got = self._take(state, entry)
            if isinstance(got, Item):
                taken.append(got)
            elif got is not None:
                waiting.append(self._waiting(entry, got.reason))
                if got.seconds is not None:
                    again.append(got.seconds)
        self._seen = {path: seen for path, seen in self._seen.items() if path in present}
        listed = tuple(sorted(waiting, key=lambda one: (one.since, one.path)))
        if listed != self._listed:
            queue.set_waiting(state, [{**vars(w), "priority": int(w.priority)} for w in listed])
            self._listed = listed
        return ScanResult(tuple(taken), listed, min(again, default=None))

    def watch(self, stop_event: threading.Event, on_change: Callable[[ScanResult], None]) -> None:
        """Scan until `stop_event` is set: at once, on file events, when a quiet time is over, and
        every 30 s. `on_change` is called, in this thread, when something was taken or the list
        of waiting files changed."""
        changed = True
        try:
            while not stop_event.is_set():
                with _held_folder(self._home.inbox) as folder:
                    self._watch_one(stop_event, on_change, folder, changed)
                changed = True  # the inbox was made anew: the old watch sees nothing any more
        finally:
            self.close()

    def _watch_one(
        self,
        stop_event: threading.Event,
        on_change: Callable[[ScanResult], None],
        folder: int | None,
        changed: bool,
    ) -> None:
        """Scan until the inbox is no longer the folder that is open as `folder`."""
        due, earliest = 0.0, 0.0
        for hint in self._events(stop_event):
            changed = changed or hint
            started = time.monotonic()
            if stop_event.is_set():
                return
            if started >= due or (changed and started >= earliest):
                changed = False
                again = self._round(stop_event, on_change)
                ended = time.monotonic()
                due = ended + min(again, RESCAN_SECONDS)
                # A copy of thousands of files makes events all the time: looking at
                # all of them each time must not take more than a tenth of a core.
                earliest = ended + 10 * (ended - started)
            if not _is(self._home.inbox, folder):
                return

    def close(self) -> None:
        """Close the database connection, if one was opened."""
        if self._state is not None:
            self._state.close()
            self._state = None

    def _round(self, stop_event: threading.Event, on_change: Callable[[ScanResult], None]) -> float:
        """One scan in the watching thread; the seconds after which another one is due."""
        before = self._listed
        try:
            result = self.scan(stop_event.is_set)
        except (TrainctlError, OSError, sqlite3.Error):
            # The store may be full or busy for a moment; the files are safe where they are.
            _log.exception("the inbox cannot be taken in now; trying again")
            self._orphans = True
            return 1.0
        except Exception:
            # A defect that one thing in the inbox brings out must not close it for all others.
            _log.exception("the inbox could not be looked through; trying again")
            self._orphans = True
            return RESCAN_SECONDS
        if result.taken or result.waiting != (before or ()):
            on_change(result)
        return RESCAN_SECONDS if result.again is None else max(result.again, 0.0)

    def _events(self, stop_event: threading.Event) -> Iterator[bool]:
        """True for file events in the inbox, False every 0.2 s without any."""
        from watchfiles import watch

        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs every change

        while not stop_event.is_set():
            worked = False
            try:
                for changes in watch(
                    self._home.inbox,
                    watch_filter=None,
                    step=_HINT_STEP_MS,
                    debounce=_HINT_DEBOUNCE_MS,
                    rust_timeout=_WAKE_MS,
                    yield_on_timeout=True,
                    stop_event=stop_event,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    # What came before this watch stood made no event.
                    yield bool(changes) or not worked
                    worked = True
            except (OSError, RuntimeError) as error:
                if worked:  # it ends over a name that is no UTF-8
                    _log.debug("the watch of the inbox begins anew: %s", error)
                    continue
                # No inbox at the moment, or no more watches on this system: look by the clock.
                _log.warning("no file events from the inbox: %s", error)
                for _ in range(_UNWATCHED_LOOKS):
                    yield True
                    if stop_event.wait(1.0):
                        return

    def _open(self) -> State:
        if self._state is None:
            self._state = self._state_factory()
            # Files keep the time since which they wait over a restart.
            self._since = {row["path"]: row["since"] for row in queue.waiting(self._state)}
        return self._state

    def _entries(self) -> Iterator[tuple[_Entry, str]]:
        """What lies in the inbox, with the reason where its name or place already says no."""
        inbox = self._home.inbox
        for entry in _listing(inbox):
            priority = FOLDERS.get(entry.name)
            if not entry.is_dir(follow_symlinks=False):
                yield _named(Path(entry.path), Priority.NORMAL)
            elif priority is not None:
                for file in _listing(Path(entry.path)):
                    yield _named(Path(file.path), priority)
            else:
                samples = Path(entry.path) / FLATTENED
                if samples.is_symlink() or samples.exists():
                    yield _Entry(samples, f"{entry.name}.jsonl", Priority.NORMAL), ""
                elif not _empty(Path(entry.path)):
                    yield _Entry(Path(entry.path), entry.name, Priority.NORMAL), ""

    def _look(self, entry: _Entry, look: Look) -> _Seen:
        """Remember a file, and since when it did not change."""
        key = str(entry.path)
        seen = self._seen.get(key)
        if seen is None:
            since = self._since.pop(intake.as_text(key), now())
            seen = _Seen(look, self._clock(), since)
        elif seen.look != look:
            seen = _Seen(look, self._clock(), seen.since)
        self._seen[key] = seen
        return seen

    def _waiting(self, entry: _Entry, reason: str) -> Waiting:
        since = self._seen[str(entry.path)].since
        path, name = intake.as_text(str(entry.path)), intake.as_text(entry.name)
        return Waiting(path, name, entry.priority, reason, since)

    def _take(self, state: State, entry: _Entry) -> Item | Verdict | None:
        """The item made of a quiet file, or why it waits on; None where it is gone."""
        seen = self._seen[str(entry.path)]
        try:
            with held(entry.path) as (fd, writer):
                info = os.fstat(fd)
                if Look.of(info) != seen.look:
                    return Verdict(False, "it changed just now", self._quiet)
                calm = self._clock() - seen.calm_from
                verdict = judge(fd, writer, calm, self._quiet)
                if not verdict.complete:
                    return verdict
                if info.st_nlink > 1 or info.st_uid != os.geteuid():
                    # Somebody can still change these bytes under another name or as their owner.
                    durable.make_private(entry.path)
                item = self._add(state, entry)
        except FileNotFoundError:
            return None
        except (OSError, TrainctlError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            return Verdict(False, f"cannot be taken: {why}", RESCAN_SECONDS)
        self._seen.pop(str(entry.path), None)
        return item

    def _add(self, state: State, entry: _Entry) -> Item:
        """Move the file into the store and make its row."""
        place_before = entry.path.lstat()
        try:
            item = intake.add_file(
                state,
                entry.path,
                priority=entry.priority,
                name=entry.name,
                source="inbox",
                take=True,
            )
        except BaseException:
            self._orphans = not entry.path.exists()
            raise
        after = (self._home.items / item.file).stat()
        moved = os.path.samestat(after, place_before)  # else copied, from another filesystem
        stayed = (after.st_size, after.st_mtime_ns) == (
            place_before.st_size,
            place_before.st_mtime_ns,
        )
        if moved and not stayed and item.state is ItemState.QUEUED:
            # Possible only where no lease could be had: its digest is of other bytes by now.
            error = "it was written to while it was taken; drop it again"
            text = f"{item.name} failed: {error}"
            return move_state(state, item.id, ItemState.FAILED, text, reason="data", error=error)
        return item


@contextmanager
def _held_folder(path: Path) -> Iterator[int | None]:
    """The folder, open: as long as it is, a new folder of that name has another inode number.
    None where there is none at the moment."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _is(path: Path, folder: int | None) -> bool:
    """Whether `path` is still the folder that is open as `folder`."""
    try:
        return folder is not None and os.path.samestat(path.stat(), os.fstat(folder))
    except OSError:
        return folder is None


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not ignored(entry.name)]
    except OSError:
        return []
    names = {entry.name for entry in found}
    # A lineage sidecar goes along with its file; alone, it is listed as what it is.
    return [e for e in found if e.name.removesuffix(intake.SIDECAR) not in names - {e.name}]


def _empty(folder: Path) -> bool:
    """Whether a folder has nothing in it: a dataset's whose file was taken, or one just made."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _named(path: Path, priority: Priority) -> tuple[_Entry, str]:
    if path.name.endswith(".jsonl" + intake.SIDECAR):
        return _Entry(path, path.name, priority), "a lineage sidecar whose file is not here"
    reason = "" if path.name.endswith(".jsonl") else "not a .jsonl file"
    return _Entry(path, path.name, priority), reason
