"""Pane 6: the journal, the newest at the bottom; it follows while the cursor is there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tui.figures import real
from tui.frame import Frame, Record
from tui.panes.base import READING, ListPane, words
from tui.safe import Line, squeeze

TONES = (
    ("fail", "bad"),
    ("reject", "bad"),
    ("nan", "bad"),
    ("error", "bad"),
    ("warn", "warn"),
    ("skip", "warn"),
    ("pause", "warn"),
    ("version", "good"),
    ("snapshot", "good"),
    ("checkpoint", "dim"),
)


def event_tone(kind: str) -> str:
    """The tone of an event's kind; the words say it too."""
    return next((tone for word, tone in TONES if word in kind), "")


def clock_time(seconds: object, *, date: bool = False) -> str:
    """Local time of day, with the date where asked."""
    number = real(seconds)
    if number is None:
        return "--:--"
    return time.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M", time.localtime(number))


class EventsPane(ListPane):
    name_of = "events"
    number = 6
    follows = True

    def __init__(self) -> None:
        super().__init__()
        self._events: dict[object, Record] = {}

    def title(self) -> str:
        return f"/{self.filter}" if self.filter else ""

    def show(self, frame: Frame) -> None:
        if frame.events is not self.frame.events:
            self._events = {event.get("seq"): event for event in frame.events}
        super().show(frame)

    def keys(self) -> Sequence[object]:
        return list(self._events)

    def selected(self) -> Record | None:
        """The event under the cursor."""
        keys = self.shown()
        return self._events[keys[self.position(keys)]] if keys else None

    def row(self, key: object, width: int) -> Line:
        event = self._events[key]
        # A file's name must not push what happened to it off the screen.
        text = squeeze(event.get("text", ""), width - 6)
        return (
            (clock_time(event.get("time")) + " ", "dim"),
            (text, event_tone(str(event.get("kind", "")))),
        )

    def nothing_yet(self) -> str:
        return "" if self.frame.events else "nothing has happened yet"

    def empty(self, width: int) -> list[Line]:
        return words(["Nothing has happened yet."]) if self.frame.status else READING
