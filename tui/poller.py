"""The thread that asks: 4 times a second the engine for its status, the store for history.

It hands over whole frames and touches no widget; the event loop never waits for it. When the
engine does not answer it says so in the frame, keeps what it has, and connects again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from queue_store.errors import TrainctlError
from tui.curve_reader import CurveReader
from tui.figures import real, why
from tui.frame import CurveAim, Frame, History, QueueRows, Record, Samples, mark_of, rows

if TYPE_CHECKING:
    from engine.memory.whatif import WhatIf

log = logging.getLogger(__name__)

INTERVAL = 0.25
ANSWER_WITHIN = 1.5
RECONNECT_EVERY = 1.0
LISTS_EVERY = 2.0
METERS_EVERY = 2.0
"""As often as the engine samples the machine."""
EVENTS_PAGE, EVENTS_KEPT = 500, 2000
SAMPLES_READ = 1000
"""As many examples as samples.count may ask for."""


class Session(Protocol):
    """What the console needs of engine.sessions.session.Session."""

    @property
    def local(self) -> bool: ...

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any: ...

    def close(self) -> None: ...


class Reader(Protocol):
    """What the console needs of engine.reading.views.Views."""

    def queue_list(self) -> Any: ...

    def versions(self) -> Any: ...

    def checkpoints(self) -> Any: ...

    def item(self, item: int) -> Any: ...

    def file_of(self, item: int) -> str: ...

    def validate(
        self, file: str, stop: threading.Event, progress: Callable[[int, int], None]
    ) -> Any: ...

    def what_if(self) -> AbstractContextManager[WhatIf]: ...

    def events(
        self, after: int = 0, limit: int = 500, *, group: str = "", text: str = ""
    ) -> Any: ...

    def latest_events(
        self, count: int = 200, before: int | None = None, group: str = "", text: str = ""
    ) -> Any: ...

    def series(
        self,
        metric: str,
        width: int = 1000,
        start: int | None = None,
        end: int | None = None,
        version: str | None = None,
    ) -> Any: ...

    def left_branches(
        self, metric: str, width: int = 1000, start: int | None = None, end: int | None = None
    ) -> Any: ...

    def marks(self) -> Any: ...

    def step_facts(self, step: int) -> Any: ...

    def samples(
        self, step: int | None = None, example: str | None = None, limit: int = 500
    ) -> Any: ...

    def sample_marks(self, after: int = -1) -> Any: ...


@dataclass(frozen=True)
class Want:
    """What the panes look at. `sample_step` None follows the newest answers."""

    curves: CurveAim = field(default_factory=CurveAim)
    sample_step: int | None = None


class Poller:
    """Asks in a thread of its own and calls `publish` there with each frame that says something
    new. `jobs` put in with `look` run on that thread too, as the reader belongs to it."""

    def __init__(
        self,
        session: Session,
        views: Callable[[], Reader] | Reader,
        publish: Callable[[Frame], None],
        *,
        reconnect: Callable[[], Session] | None = None,
        clock: Callable[[], float] = time.time,
        interval: float = INTERVAL,
    ) -> None:
        self.session = session
        self.want = Want()
        self.frame = Frame()
        self._views = views
        self._publish = publish
        self._reconnect = reconnect
        self._clock = clock
        self._interval = interval
        self._wake = threading.Event()
        self._ended = False
        self._jobs: list[Callable[[Reader], None]] = []
        self._thread = threading.Thread(target=self._run, name="console-poller", daemon=True)
        self._lists_at = self._meters_at = float("-inf")
        self._queue_read: object = None
        self._tried_at = float("-inf")
        self._answered_at = clock()
        self._hurried_at = float("-inf")
        self._curves = CurveReader()
        self._samples_key: tuple[Any, ...] = ()
        self._samples_at = float("-inf")
        self._histories: dict[str, History] = {}
        self._marked = -1
        """The last step of which the marks are in the histories."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. Returns at once: a request under way ends on its own."""
        self._ended = True
        self._wake.set()

    def look(self, job: Callable[[Reader], None]) -> None:
        """Run `job` with the store's reader, soon, on the poller's thread."""
        self._jobs.append(job)
        self._wake.set()

    @property
    def looking(self) -> bool:
        """Whether a job of `look` has not ended."""
        return bool(self._jobs)

    def aim(self, want: Want) -> None:
        """Look at something else, from the next question on."""
        if want != self.want:
            self.want = want
            self._wake.set()

    def hurry(self) -> None:
        """Ask at once (after a command). A frame comes of it even where nothing changed: it says
        so."""
        self._hurried_at = time.monotonic()
        self._lists_at = float("-inf")
        self._wake.set()

    def _run(self) -> None:
        views: Reader = self._views() if callable(self._views) else self._views
        while not self._ended:
            started = time.monotonic()
            try:
                while self._jobs:
                    try:
                        self._jobs[0](views)
                    finally:
                        del self._jobs[0]
                frame = self.poll(views)
            except Exception:
                log.exception("the console could not read")
                frame = replace(self.frame, problem="reading failed, see the log")
            if frame is not self.frame and not self._ended:
                self.frame = frame
                self._publish(frame)
            self._wake.wait(max(0.02, self._interval - (time.monotonic() - started)))
            self._wake.clear()

    def poll(self, views: Reader) -> Frame:
        """The next frame: the same object as the last one where nothing changed."""
        old, asked = self.frame, time.monotonic()
        status, lost = self._ask_status()
        now = self._clock()
        changes: dict[str, Any] = {}
        if lost:
            # The seconds since the last answer are on the screen: a new frame every second.
            at = self._answered_at
            if lost != old.lost or int(now - at) != int(old.now - at):
                changes |= {"lost": lost, "at": at, "now": now}
        else:
            self._answered_at = now
            if status != old.status or old.lost or old.asked < self._hurried_at <= asked:
                changes |= {"status": status, "lost": "", "at": now, "now": now, "asked": asked}
            changes |= self._meters()
        try:
            changes |= self._history(views, replace(old, **changes) if changes else old, now)
            if old.problem:
                changes["problem"] = ""
        except (TrainctlError, sqlite3.Error, OSError) as error:
            if str(error) != old.problem:
                changes["problem"] = str(error)
        return replace(old, **changes) if changes else old

    def _ask_status(self) -> tuple[Record, str]:
        """The engine's status, and why there is none. Connects again where it is time."""
        if self.frame.lost and self._reconnect is not None:
            if time.monotonic() - self._tried_at < RECONNECT_EVERY:
                return {}, self.frame.lost
            self._tried_at = time.monotonic()
            try:
                fresh = self._reconnect()
            except (TrainctlError, OSError) as error:
                return {}, str(error)
            self.session.close()
            self.session = fresh
        try:
            status = self.session.request("snapshot", timeout=ANSWER_WITHIN)
        except (TrainctlError, OSError) as error:
            return {}, str(error) or type(error).__name__
        return (status, "") if isinstance(status, Mapping) else ({}, "the answer is no status")

    def _meters(self) -> dict[str, Any]:
        """The machine over the last minutes, where it is time to ask."""
        if time.monotonic() - self._meters_at < METERS_EVERY:
            return {}
        self._meters_at = time.monotonic()
        try:
            found = self.session.request("meters", timeout=ANSWER_WITHIN)
        except (TrainctlError, OSError):
            return {}  # an engine of before, or one that just went: the status tells
        same = not isinstance(found, Mapping) or found == self.frame.meters
        return {} if same else {"meters": found}

    def _history(self, views: Reader, frame: Frame, now: float) -> dict[str, Any]:
        """What of the store's history changed since the last frame."""
        changes = self._queue(views)
        seen = self.frame.status
        moved = frame.status.get("events_seq") != seen.get("events_seq")
        if moved or time.monotonic() - self._lists_at >= LISTS_EVERY:
            self._lists_at = time.monotonic()
            changes |= self._lists(views)
        changes |= self._curves.read(views, frame, self.frame, self.want.curves)
        changes |= self._samples(views, frame)
        return changes

    def _queue(self, views: Reader) -> dict[str, Any]:
        """The queue, where it changed: the reader knows, nothing is compared here."""
        found = views.queue_list()
        if found is self._queue_read:
            return {}
        self._queue_read = found
        return {"queue": QueueRows(found)}

    def _lists(self, views: Reader) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for name in ("versions", "checkpoints"):
            fresh = rows(getattr(views, name)(), name)
            if fresh != list(getattr(self.frame, name)):
                changes[name] = fresh
        known = list(self.frame.events)
        if known:
            fresh = rows(views.events(known[-1].get("seq", 0), EVENTS_PAGE), "events")
        else:
            fresh = rows(views.latest_events(EVENTS_PAGE), "events")
        if known and len(fresh) == EVENTS_PAGE:  # far behind: the newest, not all in between
            known, fresh = [], rows(views.latest_events(EVENTS_KEPT), "events")
        if fresh:
            changes["events"] = tuple((known + fresh)[-EVENTS_KEPT:])
        return changes

    def _samples(self, views: Reader, frame: Frame) -> dict[str, Any]:
        want, status = self.want, frame.status
        newest = real(status.get("samples_step"))
        engine = status.get("engine")
        started = engine.get("started") if isinstance(engine, Mapping) else None
        line = (status.get("branch"), started)
        if frame.step is not None and self.frame.step is not None and frame.step < self.frame.step:
            self._samples_key, self._marked = (), -1  # steps were taken back, and their ticks
        key = (newest, want.sample_step, line)
        look_again = frame.samples is None and time.monotonic() - self._samples_at >= LISTS_EVERY
        if key == self._samples_key and not look_again:
            return {}
        result = views.samples(step=want.sample_step, limit=SAMPLES_READ)
        answers = rows(result, "samples")
        self._samples_at = time.monotonic()
        if not answers:
            self._samples_key, self._marked = key, -1
            reason = why(result.get("step")) if isinstance(result, Mapping) else ""
            return {"samples": None, "samples_why": reason} if self._none(frame, reason) else {}
        if self._samples_key[2:] != (line,) or self._marked < 0:
            self._histories, self._marked = {}, -1
        self._extend_histories(views)
        self._samples_key = key
        step = int(real(answers[0].get("step")) or 0)
        steps = tuple(result.get("steps", ())) or (step,)
        changes = result.get("changes") if isinstance(result, Mapping) else None
        changes = changes if isinstance(changes, Mapping) else {}
        return {"samples": Samples(step, steps, tuple(answers), self._histories, changes)}

    @staticmethod
    def _none(frame: Frame, reason: str) -> bool:
        """Whether that there are no samples is news."""
        return frame.samples is not None or frame.samples_why != reason

    def _extend_histories(self, views: Reader) -> None:
        """Read the marks of the ticks that came since the last time."""
        fresh: dict[str, list[tuple[int, str]]] = {}
        for step, example, exact, similarity in views.sample_marks(self._marked):
            fresh.setdefault(example, []).append((step, mark_of(exact, similarity)))
            self._marked = max(self._marked, step)
        more = {name: (*self._histories.get(name, ()), *new) for name, new in fresh.items()}
        self._histories = {**self._histories, **more}
