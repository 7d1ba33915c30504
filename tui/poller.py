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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from queue_store.errors import TrainctlError
from tui.figures import real
from tui.frame import Frame, Record, Samples, mark

if TYPE_CHECKING:
    from tui.series import Series

log = logging.getLogger(__name__)

INTERVAL = 0.25
ANSWER_WITHIN = 1.5
RECONNECT_EVERY = 1.0
LISTS_EVERY = 2.0
METERS_EVERY = 2.0
"""As often as the engine samples the machine."""
EVENTS_KEPT = 2000
QUEUE_SHOWN = 500
SERIES_WIDTH = 4000


class Session(Protocol):
    """What the console needs of engine.session.Session."""

    @property
    def local(self) -> bool: ...

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any: ...

    def close(self) -> None: ...


class Reader(Protocol):
    """What the console needs of engine.views.Views."""

    def queue(self, state: str | None = None, limit: int | None = None) -> Any: ...

    def versions(self) -> Any: ...

    def checkpoints(self) -> Any: ...

    def item(self, item: int) -> Any: ...

    def events(self, after: int = 0, limit: int = 500) -> Any: ...

    def latest_events(self, count: int = 200) -> Any: ...

    def series(
        self, metric: str, width: int = 1000, start: int | None = None, end: int | None = None
    ) -> Any: ...

    def samples(
        self, step: int | None = None, example: str | None = None, limit: int = 500
    ) -> Any: ...


@dataclass(frozen=True)
class Want:
    """What the panes look at. `detail` is a range (first step, last step, points) that the whole
    history is too coarse for; `sample_step` None follows the newest answers, `example` is the
    one whose history is shown, "" the first."""

    metric: str = "loss"
    detail: tuple[int, int | None, int] | None = None
    sample_step: int | None = None
    example: str = ""


def rows(result: Any, key: str) -> list[Record]:
    """A list of records, bare or under `key`."""
    found = result.get(key, ()) if isinstance(result, Mapping) else result
    return [row for row in found or () if isinstance(row, Mapping)]


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
        self._tried_at = float("-inf")
        self._answered_at = clock()
        self._served: Want | None = None
        self._series_step = -1
        self._samples_key: tuple[Any, ...] = ()

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

    def aim(self, want: Want) -> None:
        """Look at something else, from the next question on."""
        if want != self.want:
            self.want = want
            self._wake.set()

    def hurry(self) -> None:
        """Ask at once (after a command)."""
        self._lists_at = float("-inf")
        self._wake.set()

    def _run(self) -> None:
        views: Reader = self._views() if callable(self._views) else self._views
        while not self._ended:
            started = time.monotonic()
            try:
                while self._jobs:
                    self._jobs.pop(0)(views)
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
        old = self.frame
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
            if status != old.status or old.lost:
                changes |= {"status": status, "lost": "", "at": now, "now": now}
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
        changes: dict[str, Any] = {}
        seen = self.frame.status
        moved = frame.status.get("events_seq") != seen.get("events_seq")
        if moved or time.monotonic() - self._lists_at >= LISTS_EVERY:
            self._lists_at = time.monotonic()
            changes |= self._lists(views)
        changes |= self._curves(views, frame)
        changes |= self._samples(views, frame)
        return changes

    def _lists(self, views: Reader) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for name in ("queue", "versions", "checkpoints"):
            found = views.queue(limit=QUEUE_SHOWN) if name == "queue" else getattr(views, name)()
            fresh = rows(found, name)
            if fresh != list(getattr(self.frame, name)):
                changes[name] = fresh
        known = list(self.frame.events)
        if known:
            fresh = rows(views.events(after=known[-1].get("seq", 0)), "events")
        else:
            fresh = rows(views.latest_events(500), "events")
        if fresh:
            changes["events"] = tuple((known + fresh)[-EVENTS_KEPT:])
        return changes

    def _curves(self, views: Reader, frame: Frame) -> dict[str, Any]:
        step = frame.step
        if step is None:
            return {}
        want, before = self.want, self._served
        back = frame.status.get("branch") != self.frame.status.get("branch") or (
            self.frame.step is not None and step < self.frame.step
        )
        fresh_metric = before is None or want.metric != before.metric or back
        behind = any(len(s) and s.last < step for s in frame.series.values())
        if not (fresh_metric or behind or step != self._series_step or want != before):
            return {}
        changes: dict[str, Any] = {}
        series = {} if fresh_metric else dict(frame.series)
        for name in (want.metric, "val_loss") if want.metric == "loss" else (want.metric,):
            self._extend(views, series, name)
        if fresh_metric or series != frame.series:
            changes["series"] = series
        if want.detail is None:
            if frame.detail:
                changes["detail"] = {}
        elif fresh_metric or want != before or step != self._series_step:
            changes["detail"] = self._detail(views, want)
        self._served, self._series_step = want, step
        return changes

    def _extend(self, views: Reader, series: dict[str, Series], name: str) -> None:
        from tui import series as arrays

        old = series.get(name)
        start = None if old is None or not len(old) else old.last + 1
        result = views.series(name, width=SERIES_WIDTH, start=start)
        tail = arrays.of(result)
        if old is None or not len(old):
            if old is None or len(tail):
                series[name] = tail
        elif len(tail):
            series[name] = arrays.extended(old, tail)

    def _detail(self, views: Reader, want: Want) -> dict[str, Series]:
        from tui import series as arrays

        assert want.detail is not None
        start, end, width = want.detail
        result = views.series(want.metric, width=width, start=start, end=end)
        return {want.metric: arrays.of(result)}

    def _samples(self, views: Reader, frame: Frame) -> dict[str, Any]:
        want = self.want
        newest = real(frame.status.get("samples_step"))
        key = (newest, want.sample_step, want.example, frame.status.get("branch"))
        if key == self._samples_key:
            return {}
        result = views.samples(step=want.sample_step)
        answers = rows(result, "samples")
        self._samples_key = key
        if not answers:
            return {"samples": None}
        example = want.example or str(answers[0].get("example"))
        past = rows(views.samples(example=example), "samples")
        step = int(real(answers[0].get("step")) or 0)
        steps = tuple(result.get("steps", ())) if isinstance(result, Mapping) else ()
        history = "".join(mark(row) for row in past)
        return {"samples": Samples(step, steps or (step,), tuple(answers), example, history)}
