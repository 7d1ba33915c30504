"""What was removed and can come back: list, restore, and empty it for good after asking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from textual.binding import Binding

from tui.dialogs.base import Fact
from tui.dialogs.confirm import ConfirmDialog
from tui.dialogs.reading import ReadingView
from tui.figures import age, counted, duration, real, size
from tui.frame import Record
from tui.safe import Line, line_text, pad, wrap

Done = Callable[[Sequence[Record], str], None]
Act = Callable[[str, str | None, Done, Callable[[str], None]], None]
"""(command, name or None for all, done, failed): carries out, then tells what is there now."""

ROOMY = 74
"""Columns from which kind and reason have room."""
EMPTY = "The trash is empty. What is deleted or pruned lies here for snapshots.trash_days."


class TrashView(ReadingView):
    """`act` restores and empties."""

    BINDINGS = [
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
        Binding("r", "restore", show=False),
        Binding("x", "unlink", show=False),
        Binding("E", "empty", show=False),
        Binding("escape,q", "leave", show=False),
    ]
    keys = "r restore  x one for good  E empty  Esc close"

    def __init__(self, things: Sequence[Record], now: float, act: Act) -> None:
        super().__init__("Trash", self._lines)
        self._now = now
        self._act = act
        self._at = 0
        self._busy = False
        self._things: list[Record] = list(reversed(list(things)))

    def _lines(self, width: int) -> list[Line]:
        if not self._things:
            return [((part, "dim"),) for part in wrap(EMPTY, width)]
        roomy = width >= ROOMY
        name = max(12, min(32, width - (49 if roomy else 24)))
        kind = f" {'kind':10}" if roomy else ""
        head = f" {'what':{name}}{kind} {'frees':>7} {'since':>5} left  "
        lines: list[Line] = [((head + (" why" if roomy else ""), "dim"),)]
        for number, thing in enumerate(self._things):
            left = (real(thing.get("expires")) or self._now) - self._now
            kind = f" {thing.get('kind')!s:10}" if roomy else ""
            text = (
                f"{pad(thing.get('name', ''), name)}{kind} {size(thing.get('freed_bytes')):>7}"
                f" {age(self._now, thing.get('deleted')):>5} {duration(left):6}"
            )
            text += f" {thing.get('why')}" if roomy else ""
            if number == self._at:
                lines.append(((pad(">" + line_text(((text, ""),)), width), "chosen"),))
            else:
                lines.append(((" " + text, ""),))
        return lines

    def _chosen(self) -> Record | None:
        return self._things[self._at] if self._things else None

    def action_move(self, by: int) -> None:
        self._note = ""
        self._at = max(0, min(self._at + by, len(self._things) - 1))
        top = self._body.top
        self.redrawn()
        # The heading is a line of its own above the things.
        height = max(1, self._body.content_size.height)
        self._body.scroll(max(min(top, self._at), self._at + 2 - height))

    def action_restore(self) -> None:
        thing = self._chosen()
        if thing is not None:
            self._do("trash_restore", str(thing.get("name")))

    def action_unlink(self) -> None:
        thing = self._chosen()
        if thing is None:
            return
        name = str(thing.get("name"))
        facts: list[Fact] = [
            ("size", f"{size(thing.get('size_bytes'))}, frees {size(thing.get('freed_bytes'))}"),
            "It cannot be brought back after this.",
        ]
        self._ask(ConfirmDialog(f"Remove {name} for good", facts, "Remove"), name)

    def action_empty(self) -> None:
        if not self._things:
            return
        frees = sum(real(thing.get("freed_bytes")) or 0 for thing in self._things)
        facts: list[Fact] = [
            ("what", counted(len(self._things), "thing")),
            ("frees", size(frees)),
            "None of it can be brought back after this.",
        ]
        self._ask(ConfirmDialog("Empty the trash", facts, "Empty"), None)

    def _ask(self, dialog: ConfirmDialog, name: str | None) -> None:
        def answered(yes: Any) -> None:
            if yes:
                self._do("trash_empty", name)

        self.app.push_screen(dialog, answered)

    def _do(self, command: str, name: str | None) -> None:
        if self._busy:
            self.note("one at a time: the last wish is still carried out")
            return
        self._busy = True
        self.note("working…")
        self._act(command, name, self._done, self._failed)

    def _done(self, things: Sequence[Record], text: str) -> None:
        self._busy = False
        if not self.is_attached:
            return
        self._things = list(reversed(list(things)))
        self._at = max(0, min(self._at, len(self._things) - 1))
        self.redrawn()
        self.note(text)

    def _failed(self, text: str) -> None:
        self._busy = False
        if self.is_attached:
            self.note(text)
