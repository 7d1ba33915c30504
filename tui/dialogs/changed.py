"""The items of the evaluation sets that changed sides between two versions: a list, and each one
whole: what was asked, what was expected, and both answers in full."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textual.binding import Binding

from tui.dialogs.whole import LIST_MOVES, WholeView
from tui.figures import count, counted, known, real, why
from tui.frame import Record
from tui.panes.samples import labelled
from tui.safe import Line, Span, clip, line_text, pad, wrap

Fetch = Callable[[int, int, str, Callable[[Any], None], Callable[[str], None]], None]
"""(evaluation of a, of b, item, then, failed): reads an item whole; ends in the event loop."""

KINDS = ("all", "lost", "gained")
LIST_KEYS = "Enter read  o all, lost, gained  up/down choose  Esc close"
READ_KEYS = "n next  p previous  up/down scroll  Esc back"
EMPTY = "No item changed sides: both answer the same ones right."


@dataclass(frozen=True)
class Changed:
    """An item that changed sides, and the two evaluations that asked it."""

    set: str
    item: str
    gained: bool
    prompt: str
    first: int
    second: int


def changed(found: Record) -> list[Changed]:
    """The items of all sets, a set's lost ones first: they are what one looks for."""
    rows: list[Changed] = []
    for one in found.get("sets") or ():
        by = one.get("evaluations") or {}
        rows += [
            Changed(
                *(str(one.get("set")), str(row.get("item")), bool(row.get("gained"))),
                *(str(row.get("prompt", "")), int(by.get("a", 0)), int(by.get("b", 0))),
            )
            for row in sorted(one.get("changed") or (), key=lambda row: bool(row.get("gained")))
        ]
    return rows


def untold(found: Record) -> int:
    """How many more changed sides than the list has."""
    sets = found.get("sets") or ()
    whole = sum(len(one.get("gained") or ()) + len(one.get("lost") or ()) for one in sets)
    return whole - sum(len(one.get("changed") or ()) for one in sets)


class ChangedView(WholeView):
    """`found` is the engine's answer to `compare_answers`, `names` what the two are called."""

    BINDINGS = [
        *LIST_MOVES,
        Binding("n,right,l", "step(1)", show=False),
        Binding("p,N,left,h", "step(-1)", show=False),
        Binding("enter", "read", show=False),
        Binding("o", "only", show=False),
        Binding("escape,q,i", "back", show=False),
    ]

    def __init__(self, found: Record, names: tuple[str, str], fetch: Fetch) -> None:
        super().__init__(f"Items that changed from {names[0]} to {names[1]}")
        self._names = names
        self._all = changed(found)
        self._untold = untold(found)
        self._fetch = fetch
        self._only = KINDS[0]
        self._at = 0
        self._reading = False
        self._wanted: Changed | None = None
        """The item on the screen, or the one that is being read."""

    @property
    def keys(self) -> str:  # type: ignore[override]
        return READ_KEYS if self._reading else LIST_KEYS

    @property
    def rows(self) -> list[Changed]:
        """Those of the chosen kind."""
        if self._only == "all":
            return self._all
        return [row for row in self._all if row.gained == (self._only == "gained")]

    def begin(self) -> None:
        self._list()

    # -- the list

    def _list(self) -> None:
        self._reading, self._wanted = False, None
        self._body.say(self._lines)
        self._in_sight()

    def _lines(self, width: int) -> list[Line]:
        rows = self.rows
        gained = sum(row.gained for row in self._all)
        head = f"{gained} gained, {len(self._all) - gained} lost"
        if self._only != "all":
            head += f": {self._only} alone"
        lines: list[Line] = [((head, "bold"),)]
        if not rows:
            lines += [((part, "dim"),) for part in wrap(EMPTY if not self._all else "none", width)]
        name = min(20, max((len(row.item) for row in rows), default=0))
        several = len({row.set for row in self._all}) > 1
        for number, row in enumerate(rows):
            sign, tone = ("+", "good") if row.gained else ("-", "bad")
            where = f"{pad(row.set, 12)} " if several else ""
            spans: list[Span] = [(f"{sign} ", tone), (f"{where}{pad(row.item, name)} ", "")]
            room = max(0, width - 1 - sum(len(text) for text, _ in spans))
            spans.append((clip(row.prompt, room), "dim"))
            if number == self._at:
                lines.append(((pad(">" + line_text(tuple(spans)), width), "chosen"),))
            else:
                lines.append(((" ", ""), *spans))
        if self._untold:
            told = f"and {counted(self._untold, 'more item')}: trainctl compare --json has all"
            lines += [((part, "dim"),) for part in wrap(told, width)]
        return lines

    def _in_sight(self) -> None:
        """Scroll the list so that the chosen row is on the screen."""
        height = self._body.content_size.height
        top = self._body.top
        self._body.renew()
        if height:  # it is laid out; the heading is a line of its own above the rows
            self._body.scroll(max(min(top, self._at), self._at + 2 - height) - top)
        self.call_after_refresh(self.foot)

    def action_move(self, by: int) -> None:
        self._note = ""
        if self._reading:
            self.action_scroll(by)
            return
        self._at = max(0, min(self._at + by, len(self.rows) - 1))
        self._in_sight()

    def action_turn(self, by: int) -> None:
        if self._reading:
            self.action_page(by)
        else:
            self.action_move(by * max(1, self._body.content_size.height - 1))

    def action_only(self) -> None:
        if self._reading:
            return
        self._only = KINDS[(KINDS.index(self._only) + 1) % len(KINDS)]
        self._at = 0
        self._list()

    # -- one item

    def action_step(self, by: int) -> None:
        """The next item, read where one is being read."""
        rows = self.rows
        if not rows:
            return
        at = max(0, min(self._at + by, len(rows) - 1))
        if self._reading and at == self._at:
            self.note("that was the last one" if by > 0 else "that was the first one")
            return
        self._at = at
        if self._reading:
            self._read(rows[at])
        else:
            self._in_sight()

    def action_read(self) -> None:
        rows = self.rows
        if not self._reading and rows:
            self._read(rows[self._at])

    def _read(self, row: Changed) -> None:
        self._reading, self._wanted, self._note = True, row, ""
        self._say("reading…")

        def then(found: Any) -> None:
            # Another one may have been asked for since.
            if self.is_attached and self._wanted is row:
                self.say(lambda width: item_lines(row, found, self._names, width))

        def failed(reason: str) -> None:
            if self.is_attached and self._wanted is row:
                self._say(reason, "bad")

        self._fetch(row.first, row.second, row.item, then, failed)

    def _say(self, text: str, tone: str = "dim") -> None:
        self.say(lambda width: [((part, tone),) for part in wrap(text, width)])

    def action_back(self) -> None:
        if self._reading:
            self._list()
        else:
            self.dismiss(None)


def item_lines(row: Changed, found: Record, names: tuple[str, str], width: int) -> list[Line]:
    """An item whole. The engine's answer to `compared_item`."""
    word, tone = ("gained", "good") if row.gained else ("lost", "bad")
    about = [row.set, row.item, *(str(found[key]) for key in ("skill", "tier") if found.get(key))]
    if known(found.get("level")):
        about.append(f"level {found['level']}")
    lines: list[Line] = [((clip(" · ".join(about), width - 8), "bold"), (f" {word}", tone)), ()]
    for turn in found.get("messages") or ():
        role = str(turn.get("role"))
        label = "asked" if role == "user" else role
        lines += labelled(label, [(str(turn.get("content", "")), "dim")], width)
    lines += labelled("expected", [(str(found.get("expected", "")), "")], width)
    for side, called in zip("ab", names, strict=True):
        lines += [(), *_answer(called, found.get(side), width)]
    return lines


def _answer(called: str, answer: Any, width: int) -> Sequence[Line]:
    if not isinstance(answer, Mapping) or why(answer):
        return [((f"{called}: ? {why(answer)}", "warn"),)]
    if answer.get("error_kind"):
        told = f"no answer ({answer.get('error_kind')}): {answer.get('error')}"
        return labelled("", [(f"{called}: {told}", "warn")], width)
    lines: list[Line] = []
    for score in answer.get("scores") or ():
        verdict = {True: ("right", "good"), False: ("wrong", "bad")}.get(
            score.get("exact"), (f"not judged: {score.get('error')}", "warn")
        )
        parts = " ".join(
            f"{part} {value:.2f}" for part, value in sorted((score.get("parts") or {}).items())
        )
        by = f"  {score.get('scorer')} {score.get('version')}  {parts}"
        first = pad(called, min(24, len(called) + 1)) if not lines else " " * 2
        room = max(0, width - len(first) - len(verdict[0]))
        lines.append(((first, "bold"), verdict, (clip(by, room), "dim")))
    lines = lines or [((called, "bold"),)]
    text = str(answer.get("answer", ""))
    lines += labelled("answer", [(text or "(nothing)", "")], width)
    took = [
        f"{count(answer.get('tokens'))} tokens" if real(answer.get("tokens")) is not None else "",
        f"ended by {answer.get('finish')}" if answer.get("finish") else "",
        " on ".join(filter(None, (str(answer.get("backend", "")), str(answer.get("host", ""))))),
    ]
    return [*lines, *labelled("", [(" · ".join(filter(None, took)), "dim")], width)]
