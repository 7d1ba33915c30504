"""Pane 1: the queue, in the order in which it will run, what has ended below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tui.figures import count, counted, real, short, why
from tui.frame import ACTIVE, ENDED, WAITING, Frame, QueueRows, Record, key_of
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
ONLY: Mapping[str, tuple[str, ...]] = {
    "all": (),
    "waiting": ("queued", "paused", "waiting"),
    "ended": ("trained", *ENDED),
    "failed": ("failed", "rejected"),
}
"""What can be shown alone: the states of it, () for every one."""
MOVABLE = ("queued", "paused")
PASSED = 5000
"""Items on either side of one that it can pass at once."""
MARK = "*"

FULL = 60
"""Columns from which a row shows its figures."""
TELLING = 6
"""Rows from which a narrow pane has one for what the chosen item has to say."""


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


def searched(item: Record) -> str:
    """The words in which the filter looks."""
    state, error = str(item.get("state")), item.get("error") or item.get("reason") or ""
    word = STATE_WORDS.get(state, "")
    return f"{item.get('priority')} {item.get('name')} {state} {word} {error}".lower()


class QueuePane(ListPane):
    """`marks` are the keys of marked items: what acts on the queue acts on them, where there are
    any. Nothing here goes through all items at a paint, only when they or the filter change.
    `adds` is the key that adds a file, "" where this console cannot."""

    name_of = "queue"
    number = 1

    def __init__(self, adds: str = "a") -> None:
        super().__init__()
        self._adds = adds
        self.marks: set[object] = set()
        self.only = "all"
        self._rows = QueueRows()
        self._view: tuple[QueueRows, str, str] | None = None
        self._keys: list[object] = []
        self._places: Mapping[object, int] = {}

    def title(self) -> str:
        states = self._rows.states
        running = sum(states[state] for state in ACTIVE)
        waiting = sum(states[state] for state in WAITING)
        failed = states["failed"] + states["rejected"]
        parts = [f"{len(self.marks)} marked" if self.marks else ""]
        parts += [f"only {self.only}" if self.only != "all" else ""]
        parts += [f"/{self.filter}" if self.filter else ""]
        parts += [f"{running} run" if running else "", f"{waiting} wait"]
        parts += [f"{failed} failed" if failed else ""]
        return " ".join(part for part in parts if part)

    def nothing_yet(self) -> str:
        return "" if self._rows else "the queue is empty"

    def show(self, frame: Frame) -> None:
        self.take(frame)
        super().show(frame)

    def take(self, frame: Frame) -> None:
        """Go by what a frame says, without drawing. The cursor goes to the next item that is
        still there where its own has gone."""
        self.frame = frame
        if frame.queue is self._rows:
            return
        before, at = self.shown(), self._places.get(self.chosen)
        self._rows = frame.queue
        if self.marks:
            self.marks &= self._rows.at.keys()
        if at is not None and self.chosen not in self._rows.at:
            left = [key for key in (*before[at:], *reversed(before[:at])) if key in self._rows.at]
            self.chosen = left[0] if left else None

    def keys(self) -> Sequence[object]:
        return list(self._rows.at)

    def shown(self) -> list[object]:
        view = (self._rows, self.filter, self.only)
        old = self._view
        if old is None or old[0] is not view[0] or old[1:] != view[1:]:
            self._view = view
            states, wanted = ONLY[self.only], self.filter.lower()
            self._keys = [
                key
                for key, item in zip(self._rows.at, self._rows, strict=True)
                if (not states or item.get("state") in states)
                and (not wanted or wanted in searched(item))
            ]
            self._places = {key: place for place, key in enumerate(self._keys)}
        return self._keys

    def position(self, keys: Sequence[object]) -> int:
        return self._places.get(self.chosen, 0)

    def record(self, key: object) -> Record:
        """An item, with the engine's own counts where it trains: newer than the store's."""
        item = self._rows[self._rows.at[key]]
        running = self.frame.item
        if running is None or item.get("id") != running.get("id"):
            return item
        newer = {name: running[name] for name in ("step", "steps", "cursor") if name in running}
        return {**item, **newer}

    def selected(self) -> Record | None:
        """The item under the cursor."""
        keys = self.shown()
        return self.record(keys[self.position(keys)]) if keys else None

    def selection(self) -> list[Record]:
        """The marked items, in order; where none is marked the one under the cursor."""
        if self.marks:
            return [self.record(key) for key in self._rows.at if key in self.marks]
        item = self.selected()
        return [] if item is None else [item]

    def all_gone(self) -> str:
        """That the queue is empty, and how to fill it."""
        return "the queue is empty" + (f": {self._adds} adds a file" if self._adds else "")

    def items(self) -> Sequence[Record]:
        """All items, in order."""
        return self._rows

    def among(self, item: Record) -> list[object] | None:
        """The keys of what waits and is shown, the nearest around `item`: what it can pass where a
        filter hides some. None where all are shown."""
        if not self.filter and self.only == "all":
            return None
        keys = [k for k in self.shown() if self._rows[self._rows.at[k]].get("state") in MOVABLE]
        at = keys.index(key_of(item)) if key_of(item) in keys else 0
        return keys[max(0, at - PASSED) : at + PASSED]

    # -- marks and what is shown

    def do_mark(self) -> None:
        keys = self.shown()
        if keys:
            self.marks ^= {keys[self.position(keys)]}
            self._move(1)
            self.set_title()

    def do_mark_all(self) -> None:
        self.marks |= set(self.shown())
        self.set_title()
        self.redraw()

    def unmark(self, keys: Sequence[object] | None = None) -> None:
        """Take the marks off (those of `keys`; None: all)."""
        self.marks = set() if keys is None else self.marks - set(keys)
        self.set_title()
        self.redraw()

    def do_only(self) -> None:
        names = list(ONLY)
        self.only = names[(names.index(self.only) + 1) % len(names)]
        self._top = 0
        self.set_title()
        self.redraw()

    def back(self) -> bool:
        if self.marks:
            self.unmark()
        elif self.filter or self.only != "all":
            keys = self.shown()
            self.chosen = keys[self.position(keys)] if keys else self.chosen
            self.only = "all"
            self.set_filter("")
        else:
            return False
        return True

    # -- drawing

    def lines(self, width: int, height: int) -> list[Line]:
        item = self.selected() if width < FULL and height >= TELLING else None
        told = str(item.get("error") or item.get("reason") or "") if item is not None else ""
        if item is None or not told:
            return super().lines(width, height)
        found = super().lines(width, height - 1)
        tone = STATE_TONES.get(str(item.get("state")), "dim")
        return [*found, *[()] * (height - 1 - len(found)), ((f" {told}", tone),)]

    def heading(self, width: int) -> Line:
        if width < FULL:
            return ()
        name, reasons = _widths(width)
        text = f"{'prio':4} {pad('name', name)} {'state':8} {'done':>5} {'step':>13} {'rows':>7}"
        return ((text + ("  why" if reasons else ""), "dim"),)

    def row(self, key: object, width: int) -> Line:
        item = self.record(key)
        state = str(item.get("state"))
        tone = STATE_TONES.get(state, "")
        share = share_done(item)
        done = f"{share * 100:.0f}%" if share is not None and state not in ENDED else ""
        priority = PRIORITY_WORDS.get(str(item.get("priority")), "?")
        word = STATE_WORDS.get(state, state)
        word_tone = "dim" if state in ENDED else ""
        start: tuple[Span, ...] = ((f"{priority:4}", word_tone), (" ", ""))
        if key in self.marks:
            start = ((f"{priority:4}", word_tone), (MARK, "mark"))
        name_tone = "dim" if state in ("done", "skipped") else ""
        name = str(item.get("name", "?")).removesuffix(".jsonl")
        if width < FULL:
            end = f"> {done:>4}" if done and state == "training" else word
            return (*start, (pad(name, width - 14), name_tone), (f" {end:>7} ", tone))
        name_width, reasons = _widths(width)
        head = (*start, (pad(name, name_width), name_tone), (f" {word:8} ", tone))
        if tone == "bad" or state == "waiting":
            return (*head, (reason(item), tone))
        step = count(item.get("step"))
        steps = f"{step}/{count(item.get('steps'))}" if state != "waiting" else ""
        figures = f"{done:>5} {steps:>13} {short(item.get('rows')):>7}"
        return (*head, (figures, ""), (f"  {pad(reason(item), reasons)}" if reasons else "", "dim"))

    def empty(self, width: int) -> list[Line]:
        if not self.frame.status:
            return READING
        if self._rows:
            many = counted(len(self._rows), "item")
            return words([f"none of {many} is {self.only}", "(o shows others, Esc all)"])
        if not self._adds:
            return words(["No files yet.", "This console only looks."])
        return words(
            [
                "No files yet. Add one:",
                f"  {self._adds:<14}  here",
                "  trainctl add FILE",
                "  or copy it into inbox/",
            ]
        )
