"""What the curves show, read from the store and kept up to date at little cost.

Runs on the poller's thread. Of a history that grows only what is new is read; what does not
change while training goes on (branches left, versions) is read once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from queue_store.errors import NotFound
from tui.frame import CurveAim, Frame, Record

if TYPE_CHECKING:
    from tui.poller import Reader
    from tui.series import Series, Track

WIDTH = 4000
"""Points that the whole history is read in."""
OTHER_WIDTH = 2000
"""Points of a branch left, and of a version's line."""
MARKS_EVERY = 1.0
"""Seconds between two readings of the marks."""


class CurveReader:
    """Holds what was read, and for which question: a reading that fails changes neither, and is
    tried again with the next frame."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._marks_at = float("-inf")
        self.series: Mapping[str, Series] = {}
        self.detail: Mapping[str, Series] = {}
        self.marks: Sequence[Record] = ()
        self.left: Sequence[Track] = ()
        self.overlay: Mapping[str, Series] = {}
        self.under: Record = {}

    def read(self, views: Reader, frame: Frame, seen: Frame, aim: CurveAim) -> dict[str, Any]:
        """The parts of `frame` that changed since `seen`, the frame shown before it."""
        step = frame.step
        if step is None:
            return {}
        if _line(frame) != _line(seen) or (seen.step is not None and step < seen.step):
            self._keys.clear()  # what was true of the line may not be any more
        self._read_line(views, step, aim)
        self._read_detail(views, step, aim)
        self._read_marks(views, frame)
        self._read_left(views, frame, aim)
        self._read_overlay(views, aim)
        self._read_under(views, step, aim)
        names = ("series", "detail", "marks", "left", "overlay", "under")
        found = {name: getattr(self, name) for name in names}
        # Nothing and nothing are the same, whichever objects they are.
        return {
            name: value
            for name, value in found.items()
            if value is not getattr(frame, name) and (value or getattr(frame, name))
        }

    def _stale(self, part: str, key: object) -> bool:
        return self._keys.get(part) != key

    # -- the present line

    def _read_line(self, views: Reader, step: int, aim: CurveAim) -> None:
        known = self._keys.get("line")
        new = known is None or known[0] != aim.metric
        behind = any(len(one) and one.last < step for one in self.series.values())
        if not (new or behind or self._stale("line", (aim.metric, step))):
            return
        series: dict[str, Series] = {} if new else dict(self.series)
        for name in (aim.metric, "val_loss") if aim.metric == "loss" else (aim.metric,):
            old = series.get(name)
            start = None if old is None or not len(old) else old.last + 1
            tail = _read(views, name, WIDTH, start)
            if old is None or not len(old):
                if old is None or len(tail):
                    series[name] = tail
            else:
                series[name] = _extended(old, tail)
        if new or series != self.series:
            self.series = series
        self._keys["line"] = (aim.metric, step)

    def _read_detail(self, views: Reader, step: int, aim: CurveAim) -> None:
        if aim.detail is None:
            self.detail = {}
            self._keys.pop("detail", None)
            return
        start, end, width = aim.detail
        known = self._keys.get("detail")
        key = (aim.metric, aim.detail)
        old = self.detail.get(aim.metric)
        if known is None or known[0] != key or old is None or not len(old):
            self.detail = {aim.metric: _read(views, aim.metric, width, start, end)}
        elif end is None and known != (key, step):
            longer = _extended(old, _read(views, aim.metric, width, old.last + 1))
            self.detail = self.detail if longer is old else {aim.metric: longer}
        self._keys["detail"] = (key, step)

    # -- what lies beside it

    def _read_marks(self, views: Reader, frame: Frame) -> None:
        item = frame.item
        # An item's first step is in the store some time after the item is said to train.
        begun = item is None or any(mark.get("item") == item["id"] for mark in self.marks)
        seq = frame.status.get("events_seq")
        key = (frame.status.get("branch"), seq, begun or frame.step)
        now = self._clock()
        soon = "marks" in self._keys and now - self._marks_at < MARKS_EVERY
        if self._stale("marks", key) and not soon:
            marks = tuple(views.marks())
            self.marks = self.marks if marks == self.marks else marks
            self._keys["marks"], self._marks_at = key, now

    def _read_left(self, views: Reader, frame: Frame, aim: CurveAim) -> None:
        seq = frame.status.get("events_seq")
        key = (frame.status.get("branch"), seq, aim.branches, aim.metric, aim.detail)
        if not self._stale("left", key):
            return
        left: tuple[Track, ...] = ()
        if aim.branches:
            from tui import series as arrays

            start, end, _ = aim.detail or (None, None, 0)
            found = views.left_branches(aim.metric, width=OTHER_WIDTH, start=start, end=end)
            left = tuple(arrays.track(one) for one in found)
        if [one.key for one in left] != [one.key for one in self.left]:
            self.left = left
        self._keys["left"] = key

    def _read_overlay(self, views: Reader, aim: CurveAim) -> None:
        names = tuple(name for name in aim.overlay if name)
        key = (names, aim.metric, aim.detail if names else None)
        if not self._stale("overlay", key):
            return
        start, end, _ = aim.detail or (None, None, 0)
        found: dict[str, Series] = {}
        for name in names:
            try:
                found[name] = _read(views, aim.metric, OTHER_WIDTH, start, end, name)
            except NotFound:  # deleted meanwhile; the pane says so
                found[name] = _nothing(aim.metric)
        self.overlay = found
        self._keys["overlay"] = key

    def _read_under(self, views: Reader, step: int, aim: CurveAim) -> None:
        # Beyond the newest step the answer changes with every step.
        key = (aim.cursor, step if aim.cursor is not None and step <= aim.cursor else None)
        if self._stale("under", key):
            facts = {} if aim.cursor is None else dict(views.step_facts(aim.cursor))
            self.under = {**facts, "asked": aim.cursor} if facts else {}
            self._keys["under"] = key


def _line(frame: Frame) -> tuple[Any, Any]:
    """On which branch which engine makes steps: one that came after a killed one takes steps back,
    and may be past them again when it is first looked at."""
    engine = frame.status.get("engine")
    started = engine.get("started") if isinstance(engine, Mapping) else None
    return frame.status.get("branch"), started


def _read(
    views: Reader,
    metric: str,
    width: int,
    start: int | None = None,
    end: int | None = None,
    version: str | None = None,
) -> Series:
    from tui import series as arrays

    more = {} if version is None else {"version": version}
    return arrays.of(views.series(metric, width=width, start=start, end=end, **more))


def _nothing(metric: str) -> Series:
    from tui import series as arrays

    return arrays.of({"metric": metric})


def _extended(old: Series, tail: Series) -> Series:
    from tui import series as arrays

    return arrays.extended(old, tail) if len(tail) else old
