"""Pane 6: the journal, the newest at the bottom; it follows while the cursor is there.

All of it can be reached: near an edge of what is held the next page is read from the store, on
the poller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from queue_store.kinds import BAD, GOOD, GROUPS, PLAIN, WARN, gravity
from tui.eventlog import NEAR, PAGE, EventWindow, Wanted
from tui.figures import clock_time, day
from tui.frame import Frame, Record, rows
from tui.panes.base import READING, ListPane, words
from tui.safe import Line, squeeze

if TYPE_CHECKING:
    from tui.poller import Reader

Read = Callable[
    [Callable[["Reader"], Any], Callable[[Any], None], Callable[[str], None]],
    None,
]
"""(job, then, failed): run `job` with the store's reader on another thread; `then` gets what it
found, or `failed` why not, in the event loop."""

SIGNS = {BAD: ("X", "bad"), WARN: ("!", "warn"), GOOD: ("+", "good"), PLAIN: ("·", "dim")}
"""How grave an event is, told apart without colour too."""


class EventsPane(ListPane):
    name_of = "events"
    number = 6
    follows = True

    def __init__(self, read: Read) -> None:
        super().__init__()
        self.group = ""
        self.window = EventWindow()
        self._read = read
        self._asked: Wanted | None = None
        """What is being read now; nothing else is asked for meanwhile."""
        self._wants_first = False
        self._failed = ""

    def title(self) -> str:
        if self._failed:
            return f"older ones cannot be read: {self._failed}"
        parts = [GROUPS[self.group]] if self.group else []
        if self.filter:
            parts.append(f"/{self.filter}")
        if self._asked is not None:
            parts.append("reading older ones…")
        elif self.chosen is not None:
            chosen = self.selected()
            parts.append(f"{day(chosen.get('time'))}, G: newest" if chosen else "G: newest")
        return " · ".join(parts)

    # -- what is held

    def show(self, frame: Frame) -> None:
        if frame.events is not self.frame.events:
            following = self.chosen is None
            self.window.take(frame.events, None if following else self.position(self.shown()))
        self.frame = frame
        self._fill()
        super().show(frame)

    def _ask_anew(self) -> None:
        """The group or the text is another one: begin at the newest."""
        self.chosen = None
        self._failed = ""
        self.window.begin(Wanted(self.group, self.filter), self.frame.events)
        self._fill()
        self.set_title()
        self.redraw()

    def set_filter(self, text: str) -> None:
        if text != self.filter:
            super().set_filter(text)
            self._ask_anew()

    def do_only(self) -> None:
        """The next group of kinds, and after the last all again."""
        groups = ["", *GROUPS]
        self.group = groups[(groups.index(self.group) + 1) % len(groups)]
        self._ask_anew()

    def _fill(self) -> None:
        """Read on where the cursor is near an edge that is not the journal's."""
        window = self.window
        if self._asked is not None or self._failed or not self.frame.status:
            return
        at = self.position(self.shown())
        wanted = window.wanted
        more = {"group": wanted.group, "text": wanted.text}
        if self._wants_first:
            self._page(lambda views: views.events(0, PAGE, **more), self._begin, lambda: True)
        elif not window.at_start and at < NEAR:
            low = window.low
            self._page(
                lambda views: views.latest_events(PAGE, low, **more),
                window.older,
                lambda: window.low == low,
            )
        elif not window.at_end and at >= len(window.rows) - NEAR:
            high = window.high
            self._page(
                lambda views: views.events(high, PAGE, **more),
                window.newer,
                lambda: window.high == high,
            )

    def _begin(self, page: Sequence[Record]) -> None:
        """The first page of the journal, to stand on its first event."""
        if self._wants_first:
            self._wants_first = False
            self.window.first(page)
            self._choose(0)

    def _page(
        self,
        job: Callable[[Reader], Any],
        take: Callable[[Sequence[Record]], None],
        fits: Callable[[], bool],
    ) -> None:
        """Read a page; `take` gets it if the window is still the one that it `fits`."""
        wanted = self._asked = self.window.wanted

        def then(result: Any) -> None:
            self._asked = None
            if self.window.wanted is wanted and fits():
                take(rows(result, "events"))
            self._fill()
            self.set_title()
            self.redraw()

        def failed(why: str) -> None:
            self._asked, self._wants_first, self._failed = None, False, why
            self.set_title()

        self._read(job, then, failed)

    # -- moving

    def _choose(self, index: int) -> None:
        super()._choose(index)
        keys = self.shown()
        if self.chosen is None and keys and not self.window.at_end:
            self.chosen = keys[-1]  # the last one held is not the newest
        self._failed = ""
        self._fill()
        self.set_title()

    def do_top(self) -> None:
        if self.window.at_start:
            super().do_top()
        else:
            self._wants_first = True
            self._failed = ""
            self._fill()
            self.set_title()

    def do_bottom(self) -> None:
        self._wants_first = False
        if self.window.at_end:
            super().do_bottom()
        else:
            self._ask_anew()

    # -- the rows

    def keys(self) -> Sequence[object]:
        return list(self.window.place)

    def shown(self) -> list[object]:
        return list(self.window.place)  # the window holds only what is wanted

    def position(self, keys: Sequence[object]) -> int:
        return self.window.place.get(self.chosen, len(keys) - 1)

    def selected(self) -> Record | None:
        """The event under the cursor."""
        rows = self.window.rows
        return rows[self.position(rows)] if rows else None

    def row(self, key: object, width: int) -> Line:
        place = self.window.place[key]
        event = self.window.rows[place]
        before = self.window.rows[place - 1].get("time") if place else self.frame.now
        when = clock_time(event.get("time"))
        if day(event.get("time")) != day(before):
            when = f"{day(event.get('time'))} {when}"
        sign, tone = SIGNS[gravity(str(event.get("kind", "")))]
        # A file's name must not push what happened to it off the screen.
        text = squeeze(event.get("text", ""), width - len(when) - 3)
        return (
            (f"{when} ", "dim"),
            (f"{sign} ", tone),
            (text, "" if tone == "dim" else tone),
        )

    def nothing_yet(self) -> str:
        return "" if self.frame.events else "nothing has happened yet"

    def empty(self, width: int) -> list[Line]:
        if not self.frame.status or self._asked is not None:
            return READING
        if self.filter:
            return words([f"nothing contains {self.filter!r} (Esc shows all)"])
        if self.group:
            return words([f"no events yet: {GROUPS[self.group]} (o shows others)"])
        return words(["Nothing has happened yet."])
