"""Pane 1: the queue, in the order in which it will run, what has ended below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tui.figures import count, real, short, why
from tui.frame import ACTIVE, ENDED, Frame, Record, in_order
from tui.panes.base import READING, ListPane, words
from tui.safe import Line, Span, pad

STATE_WORDS = {
    "waiting": "inbox",
    "queued": "queued",
    "preparing": "prepare",
    "training": "train",
    "paused": "paused",
    "trained": "trained",
    "done": "done",
    "failed": "FAILED",
    "skipped": "skipped",
    "rejected": "REJECT",
}
STATE_TONES = {
    "training": "accent",
    "preparing": "accent",
    "trained": "good",
    "done": "dim",
    "skipped": "dim",
    "failed": "bad",
    "rejected": "bad",
    "paused": "warn",
}
PRIORITY_WORDS = {"high": "high", "normal": "norm", "low": "low"}


FULL = 60
"""Columns from which a row shows its figures."""


def _widths(width: int) -> tuple[int, int]:
    """Columns of the name and of the reason in a row with figures."""
    left = width - 5 - 10 - 27
    reasons = left // 2 - 2 if left >= 60 else 0
    return left - (reasons + 2 if reasons else 0), reasons


def share_done(item: Record) -> float | None:
    """How much of the item has trained, 0..1; None where it is not known yet."""
    step, steps = real(item.get("step")), real(item.get("steps"))
    if step is None or not steps:
        return None
    return max(0.0, min(1.0, step / steps))


def reason(item: Record) -> str:
    """Why the item stands where it does, in its own words, "" for nothing to say."""
    return str(item.get("error") or item.get("reason") or why(item.get("rows")) or "")


def key_of(item: Record) -> object:
    """What tells an item from all others; a file in the inbox has no id yet."""
    return item.get("id") if real(item.get("id")) is not None else item.get("name")


def _live(item: Record, running: Record) -> Record:
    """The engine's own counts of the item in training: newer than the store's."""
    if item.get("id") != running.get("id"):
        return {}
    return {key: running[key] for key in ("step", "steps", "cursor") if key in running}


class QueuePane(ListPane):
    name_of = "queue"
    number = 1

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[object, Record] = {}
        self._source: Sequence[Record] | None = None
        self._in_training: Any = None

    def title(self) -> str:
        states = [str(item.get("state")) for item in self._items.values()]
        running = sum(state in ACTIVE for state in states)
        counts = self.frame.status.get("queue")
        waiting = sum(int(real(n) or 0) for n in counts.values()) if counts else 0
        failed = sum(state in ("failed", "rejected") for state in states)
        parts = [f"{running} run" if running else "", f"{waiting} wait"]
        parts += [f"{failed} failed" if failed else "", f"/{self.filter}" if self.filter else ""]
        return " ".join(part for part in parts if part)

    def show(self, frame: Frame) -> None:
        running = frame.status.get("item")
        if frame.queue is not self._source or running != self._in_training:
            self._source, self._in_training = frame.queue, running
            live = frame.item or {}
            self._items = {
                key_of(item): {**item, **_live(item, live)} for item in in_order(frame.queue)
            }
        super().show(frame)

    def keys(self) -> Sequence[object]:
        return list(self._items)

    def selected(self) -> Record | None:
        """The item under the cursor."""
        keys = self.shown()
        return self._items[keys[self.position(keys)]] if keys else None

    def items(self) -> list[Record]:
        """All items, in order."""
        return list(self._items.values())

    def heading(self, width: int) -> Line:
        if width < FULL:
            return ()
        name, reasons = _widths(width)
        text = f"{'prio':4} {pad('name', name)} {'state':8} {'done':>5} {'step':>13} {'rows':>7}"
        return ((text + ("  why" if reasons else ""), "dim"),)

    def row(self, key: object, width: int) -> Line:
        item = self._items[key]
        state = str(item.get("state"))
        tone = STATE_TONES.get(state, "")
        share = share_done(item)
        done = f"{share * 100:.0f}%" if share is not None and state not in ENDED else ""
        priority = PRIORITY_WORDS.get(str(item.get("priority")), "?")
        word = STATE_WORDS.get(state, state)
        start: Span = (f"{priority:4} ", "dim" if state in ENDED else "")
        name_tone = "dim" if state in ("done", "skipped") else ""
        name = str(item.get("name", "?")).removesuffix(".jsonl")
        if width < FULL:
            end = f"> {done:>4}" if done and state == "training" else word
            return (start, (pad(name, width - 14), name_tone), (f" {end:>7} ", tone))
        name_width, reasons = _widths(width)
        head = (start, (pad(name, name_width), name_tone), (f" {word:8} ", tone))
        if tone == "bad":
            return (*head, (reason(item), tone))
        step = count(item.get("step"))
        steps = f"{step}/{count(item.get('steps'))}" if state != "waiting" else ""
        figures = f"{done:>5} {steps:>13} {short(item.get('rows')):>7}"
        return (*head, (figures, ""), (f"  {pad(reason(item), reasons)}" if reasons else "", "dim"))

    def empty(self, width: int) -> list[Line]:
        if not self.frame.status:
            return READING
        return words(
            [
                "No files yet. Add one:",
                "  a               here",
                "  trainctl add FILE",
                "  or copy it into inbox/",
            ]
        )
