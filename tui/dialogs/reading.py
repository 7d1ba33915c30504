"""Something long to read, in the whole screen: lines that scroll, and a line of its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.dialogs.item import Body
from tui.safe import Line, content, line_text, plain

TIGHT = 28


class ReadingView(ModalScreen[Any]):
    """`make` gives the lines for a width. Live data behind it changes nothing inside."""

    BINDINGS = [
        Binding("escape,q,enter", "leave", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("home,g", "scroll(-1000000)", show=False),
        Binding("end,G", "scroll(1000000)", show=False),
    ]
    AUTO_FOCUS = "#item-body"
    keys = "up/down scroll  Esc close"

    def __init__(self, title: str, make: Callable[[int], list[Line]]) -> None:
        super().__init__(classes="reading")
        self._title = title
        self._make = make
        self._body = Body()
        self._note = ""

    def compose(self) -> ComposeResult:
        self.set_class(self.app.screen_stack[0].has_class("-ascii"), "-ascii")
        with Vertical(id="dialog"):
            yield Static(content(self._title), id="title")
            yield self._body
            yield Static(id="foot")

    def on_mount(self) -> None:
        self._fit()
        self.redrawn()

    def on_resize(self) -> None:
        self._fit()
        self.call_after_refresh(self.foot)

    def _fit(self) -> None:
        self.set_class(self.app.size.height < TIGHT, "-tight")

    def redrawn(self) -> None:
        """Show the lines as they are now, from the top."""
        self._body.say(self._make)
        self.call_after_refresh(self.foot)

    def note(self, text: str) -> None:
        """Say something in the last line, instead of the keys, until the next key."""
        self._note = text
        self.foot()

    def foot(self) -> None:
        """Write the last line."""
        if not self.is_attached:
            return
        parts = [self._note or self.keys, self._body.place]
        text = "   ".join(part for part in parts if part)
        drawn = plain(((text, ""),)) if self.has_class("-ascii") else ((text, ""),)
        self.query_one("#foot", Static).update(content(line_text(drawn), "dim"))

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        self._note = ""
        self._body.scroll(by)
        self.foot()

    def action_page(self, by: int) -> None:
        self.action_scroll(by * max(1, self._body.content_size.height - 1))
