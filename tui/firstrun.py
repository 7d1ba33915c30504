"""What a home shows in which nothing has happened yet: what it trains, and what to do next.

It stands in the place of the panes and goes away by itself with the first file, and by Esc or any
key that acts in a pane. The other keys act as always.
"""

from __future__ import annotations

from collections.abc import Callable

from tui.actions import Keymap, key_label
from tui.drawn import Drawn
from tui.figures import known
from tui.frame import Frame, Record
from tui.safe import Line, wrap

WIDEST = 76


def untouched(frame: Frame) -> bool:
    """Whether nothing was ever put into this home: no file, no version, no step."""
    return bool(frame.status) and not (
        frame.queue or frame.versions or frame.step or frame.lost or frame.problem
    )


class FirstRun(Drawn):
    """`inbox` is the path of the folder that is watched; `readonly`: then nothing can be added."""

    def __init__(self, keymap: Keymap, inbox: str, *, readonly: bool = False) -> None:
        super().__init__(id="first-run")
        self._keymap = keymap
        self._inbox = inbox
        self._readonly = readonly

    def lines(self, width: int, height: int) -> list[Line]:
        room = min(WIDEST, width - 4)
        left = max(0, (width - room) // 2)
        body = self._body(room)
        if len(body) > height:
            body = [line for line in body if line != ()]
        above = max(0, (height - len(body)) // 3)
        return [()] * above + [((" " * left, ""), *line) for line in body]

    def _key(self, action: str) -> str:
        return key_label(self._keymap.by_id[action])

    def _body(self, width: int) -> list[Line]:
        status = self.frame.status
        lines: list[Line] = [
            (("Nothing has trained here yet", "bold"),),
            (),
            *self._fact("model", model_words(status), width),
            *self._fact("inbox", self._inbox, width),
            (),
        ]
        if self._readonly:
            return [
                *lines,
                *self._say("This console is read-only: it only looks.", width),
            ]
        steps: list[tuple[str, str]] = [
            (self._key("add"), "add a JSONL file; it trains once it is checked"),
            ("or", "copy files into the inbox; inbox/high goes first, inbox/low last"),
            (self._key("help"), "all keys, with a search"),
            (self._key("back"), "the panes; they come with the first file"),
            (self._key("leave"), "leave; `trainctl demo` shows a small model that trains"),
        ]
        for key, text in steps:
            first, *rest = wrap(text, width - 8)
            lines.append(((f"  {key:<6}", "accent"), (first, "")))
            lines += [((" " * 8, ""), (line, "")) for line in rest]
        return lines

    def _fact(self, name: str, value: str, width: int) -> list[Line]:
        first, *rest = wrap(value, width - 8)
        return [
            ((f"  {name:<6}", "dim"), (first, "")),
            *(((" " * 8, ""), (line, "")) for line in rest),
        ]

    def _say(self, text: str, width: int) -> list[Line]:
        return [(("  " + line, ""),) for line in wrap(text, width - 2)]


def model_words(status: Record) -> str:
    """The model in words: name, method, number format and device, as far as they are known."""
    model = status.get("model")
    if not isinstance(model, dict):
        return "not known yet"
    parts = [
        str(model[key]) for key in ("name", "method", "dtype", "device") if known(model.get(key))
    ]
    return ", ".join(parts) or "not known yet"


class Shown:
    """Whether the screen of the first run is up: from the first frame of an untouched home until
    there is something to show, or until a person wants the panes; never again after that."""

    def __init__(self, show: Callable[[bool], None]) -> None:
        self._show = show
        self.up = False
        self._over = False

    def see(self, frame: Frame) -> None:
        """Look at a new frame."""
        if self._over or not (frame.status or frame.lost):
            return
        up = untouched(frame)
        self._over = not up
        if up != self.up:
            self.up = up
            self._show(up)

    def dismiss(self) -> bool:
        """A person wants the panes. Whether it was up."""
        was, self.up, self._over = self.up, False, True
        if was:
            self._show(False)
        return was
