"""The frame of every view that takes the whole screen: a title, lines that scroll, a line of keys.

Live data behind it changes nothing inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import Resize
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from tui.drawn import Drawn
from tui.safe import Line, content, line_text, plain

TIGHT = 28
"""Lines of the screen below which the view has all of it."""


class Body(Drawn, can_focus=True):
    """Lines that can be scrolled; `make` gives them for a width."""

    def __init__(self) -> None:
        super().__init__(id="item-body")
        self.make: Callable[[int], list[Line]] = lambda width: []
        self.top = 0
        self._cache: tuple[int, list[Line]] = (-1, [])

    def lines(self, width: int, height: int) -> list[Line]:
        if self._cache[0] != width:
            self._cache = (width, self.make(width))
        found = self._cache[1]
        self.top = max(0, min(self.top, len(found) - height))
        return found[self.top : self.top + height]

    def say(self, make: Callable[[int], list[Line]], top: int = 0) -> None:
        """Show other lines, from the line `top` on."""
        self.make, self.top, self._cache = make, top, (-1, [])
        self.redraw()

    def renew(self) -> None:
        """Make the lines again; the one that stands at the top stays there, also where others
        came before it."""
        width, old = self._cache
        self._cache = (-1, [])
        behind = next((n for n, line in enumerate(old[self.top :]) if line), None)
        if self.top and behind is not None:
            fresh = self.make(width)
            at = self.top + behind
            same = [n for n, line in enumerate(fresh) if line == old[at]]
            if same:
                self.top = max(0, min(same, key=lambda n: abs(n - at)) - behind)
            self._cache = (width, fresh)
        self.redraw()

    def scroll(self, by: int) -> None:
        self.top = max(0, self.top + by)
        self.redraw()

    class Sized(Message):
        """It has another size: other lines are on the screen."""

    @on(Resize)
    def _tell(self) -> None:
        self.post_message(self.Sized())

    @property
    def at_end(self) -> bool:
        """Whether the last line is on the screen."""
        return self.top + self.content_size.height >= len(self._cache[1])

    @property
    def place(self) -> str:
        """Which lines are on the screen, "" where all are."""
        total, height = len(self._cache[1]), self.content_size.height
        return f"{self.top + 1}-{min(total, self.top + height)}/{total}" if total > height else ""


LIST_MOVES = [
    Binding("down,j", "move(1)", show=False),
    Binding("up,k", "move(-1)", show=False),
    Binding("pagedown,space", "turn(1)", show=False),
    Binding("pageup", "turn(-1)", show=False),
    Binding("home,g", "move(-1000000)", show=False),
    Binding("end,G", "move(1000000)", show=False),
]
"""Keys of a view that is a list: `action_move(rows)` and `action_turn(pages)` are its own."""


class WholeView(ModalScreen[Any]):
    """A subclass says what stands in `lines`, and in `keys` what one can do; `begin` starts it."""

    BINDINGS = [
        Binding("escape,q,enter", "leave", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("home,g", "scroll(-1000000)", show=False),
        Binding("end,G", "scroll(1000000)", show=False),
    ]
    AUTO_FOCUS = "#item-body"
    keys = "up/down scroll  Esc close"

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._body = Body()
        self._note = ""

    def compose(self) -> ComposeResult:
        self.set_class(self.app.screen_stack[0].has_class("-ascii"), "-ascii")
        with Vertical(id="dialog"):
            yield Static(content(self._title), id="title")
            yield self._body
            yield from self.fields()
            yield Static(id="foot")

    def fields(self) -> Iterable[Widget]:
        """What stands between the lines and the keys."""
        return ()

    def on_mount(self) -> None:
        self._fit()
        self.begin()

    def begin(self) -> None:
        """It is on the screen: show the first lines."""

    def on_resize(self) -> None:
        self._fit()
        self.call_after_refresh(self.foot)

    @on(Body.Sized)
    def _sized(self) -> None:
        # A last line of two rows takes one from the body, which tells so.
        self.foot()

    def _fit(self) -> None:
        self.set_class(self.app.size.height < TIGHT, "-tight")

    @property
    def ascii(self) -> bool:
        """Whether the console draws in ASCII."""
        return self.has_class("-ascii")

    def say(self, make: Callable[[int], list[Line]]) -> None:
        """Show the lines that `make` gives for a width, from the top."""
        self._body.say(make)
        self.call_after_refresh(self.foot)

    def note(self, text: str) -> None:
        """Say something in the last line, instead of the keys, until the next key."""
        self._note = text
        self.foot()

    def foot(self) -> None:
        """Write the last line: the keys, and which lines are on the screen."""
        parts = [self._note or self.keys, self._body.place]
        self.write("foot", "   ".join(part for part in parts if part), "dim")

    def write(self, id: str, text: str, tone: str = "") -> None:
        """Write a line of the frame, unless the view is going already."""
        drawn = line_text(plain(((text, ""),))) if self.ascii else text
        for line in self.query(f"#{id}").results(Static):
            line.update(content(drawn, tone))

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        self._note = ""
        self._body.scroll(by)
        self.call_after_refresh(self.foot)

    def action_page(self, by: int) -> None:
        self.action_scroll(by * max(1, self._body.content_size.height - 1))
