"""The part of the journal that the events pane holds: a window that moves over all of it.

Plain data: no widget, no thread. The newest events come with the frames; older ones are read in
pages when the cursor comes near an edge, and what is far from the cursor is let go, so that the
memory is flat after any number of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from queue_store.kinds import belongs
from tui.frame import Record

PAGE = 500
"""Events read at once."""
MOST = 3000
"""Events held at most."""
NEAR = 60
"""Rows from an edge at which the next page is read: more than a screen has."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of the journal: a group of kinds, and a text in the event."""

    group: str = ""
    text: str = ""

    def takes(self, event: Record) -> bool:
        kind = str(event.get("kind", ""))
        if not belongs(kind, self.group):
            return False
        return self.text.lower() in f"{kind} {event.get('text', '')}".lower()


class EventWindow:
    """The events wanted with `low` <= seq <= `high`, oldest first. `at_start`, `at_end`: whether
    the journal's first and newest event lie inside."""

    def __init__(self) -> None:
        self.wanted = Wanted()
        self.rows: list[Record] = []
        self.place: dict[object, int] = {}
        """Where in `rows` the event of a sequence number is."""
        self.low, self.high = 1, 0
        self.at_start = self.at_end = True

    def begin(self, wanted: Wanted, newest: Sequence[Record]) -> None:
        """Ask something else, from the newest events on."""
        self.wanted = wanted
        self.low = _seq(newest[0]) if newest else 1
        self.high = _seq(newest[-1]) if newest else 0
        self.at_start, self.at_end = self.low <= 1, True
        self._set([event for event in newest if wanted.takes(event)])

    def take(self, newest: Sequence[Record], cursor: int | None) -> None:
        """New events came. `cursor` is the row looked at, None for the newest."""
        if not newest or not self.at_end or _seq(newest[-1]) <= self.high:
            return
        if _seq(newest[0]) > self.high + 1 and self.high:
            # More came than was read: between the window and these lie events that are not here.
            if cursor is None:
                self.begin(self.wanted, newest)
            else:
                self.at_end = False
            return
        if not self.high:
            self.low = _seq(newest[0])
            self.at_start = self.low <= 1
        fresh = [e for e in newest if _seq(e) > self.high and self.wanted.takes(e)]
        self.high = _seq(newest[-1])
        if fresh:
            self._set([*self.rows, *fresh])
            self._let_go(len(self.rows) - 1 if cursor is None else cursor)

    def older(self, page: Sequence[Record]) -> None:
        """The page before `low` was read; shorter than PAGE, it is the first."""
        self.at_start = len(page) < PAGE or _seq(page[0]) <= 1
        self.low = 1 if self.at_start else _seq(page[0])
        self._set([*page, *self.rows])
        self._let_go(0)

    def newer(self, page: Sequence[Record]) -> None:
        """The page after `high` was read; shorter than PAGE, it is the last."""
        self.at_end = len(page) < PAGE
        self.high = max(self.high, _seq(page[-1]) if page else 0)
        self._set([*self.rows, *page])
        self._let_go(len(self.rows) - 1)

    def first(self, page: Sequence[Record]) -> None:
        """The journal's first page was read, and is all that is held."""
        self.low, self.high = 1, 0
        self.at_start = True
        self.rows = []
        self.newer(page)

    def _let_go(self, near: int) -> None:
        """Keep MOST rows around the row `near`."""
        over = len(self.rows) - MOST
        if over <= 0:
            return
        if near < len(self.rows) // 2:
            self._set(self.rows[:MOST])
            self.high, self.at_end = _seq(self.rows[-1]), False
        else:
            self._set(self.rows[over:])
            self.low, self.at_start = _seq(self.rows[0]), False

    def _set(self, rows: list[Record]) -> None:
        self.rows = rows
        self.place = {_seq(event): place for place, event in enumerate(rows)}


def _seq(event: Record) -> int:
    return int(event.get("seq", 0))
