"""All hints with their figures, the reason, and what one can do; each can be hushed here.

What stood when it was opened stays in it: live data behind it changes nothing inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.frame import Record
from tui.hints import Hushed, figures, sign_of, since
from tui.panes.base import ListPane, ScrollPane
from tui.safe import Line, content, wrap

MOST_ROWS = 6
"""Rows of the list at most; it scrolls."""
ROOMY = 80
"""Columns of the screen from which the line of keys has room for all words."""
WIDTH, AROUND = 92, 6
"""Columns of the dialog; its lines that are neither list nor text."""


class HintRows(ListPane):
    """The hints, one a line; never focused, the dialog keeps the keys."""

    name_of = "hint-rows"
    can_focus = False

    def __init__(self, hints: Sequence[Record], hushed: Hushed) -> None:
        super().__init__()
        self.remove_class("pane")
        self._hints = {str(hint.get("rule")): hint for hint in hints}
        self._hushed = hushed

    def set_title(self) -> None:
        """The dialog has a title of its own."""

    def keys(self) -> Sequence[object]:
        return list(self._hints)

    def row(self, key: object, width: int) -> Line:
        hint = self._hints[str(key)]
        sign, tone = sign_of(hint)
        hush = "hushed " if key in self._hushed else ""
        return ((f"{sign} ", tone), (hush, "dim"), (str(hint.get("text", "")), ""))

    def chosen_hint(self) -> Record:
        keys = self.shown()
        return self._hints[str(keys[self.position(keys)])]


class HintBody(ScrollPane):
    """All about one hint."""

    name_of = "hint-body"
    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self.remove_class("pane")
        self.hint: Record = {}

    def set_title(self) -> None:
        """The dialog has a title of its own."""

    def body(self, width: int) -> list[Line]:
        return self.about(self.hint, width)

    def about(self, hint: Record, width: int) -> list[Line]:
        """All there is to say about a hint, `width` columns wide."""
        tone = sign_of(hint)[1]
        found: list[Line] = [((line, tone),) for line in wrap(hint.get("text", ""), width)]
        found += self._part("what to do", hint.get("advice"), width)
        facts = [("since", since(hint)), *figures(hint)]
        facts = [(name, value) for name, value in facts if value]
        left = max((len(name) for name, _ in facts), default=0) + 2
        found += [()] + [((f"{name:{left}}", "dim"), (value, "")) for name, value in facts]
        found += self._part("why it says so", hint.get("reason"), width)
        return found

    @staticmethod
    def _part(name: str, text: object, width: int) -> list[Line]:
        if not text:
            return []
        return [(), ((name, "bold"),), *(((line, ""),) for line in wrap(text, width))]


class HintsDialog(ModalScreen[None]):
    """`hints` as the status has them; `changed` is called when one was hushed or shown again."""

    BINDINGS = [
        Binding("escape,enter,w,W,q", "close", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
        Binding("pagedown,J", "scroll_text(1)", show=False),
        Binding("pageup,K", "scroll_text(-1)", show=False),
        Binding("h", "hush", show=False),
    ]

    def __init__(
        self, hints: Sequence[Record], hushed: Hushed, changed: Callable[[], None]
    ) -> None:
        super().__init__()
        self._hushed = hushed
        self._changed = changed
        self._rows = HintRows(hints, hushed)
        self._text = HintBody()
        self._hints, self._count = hints, len(hints)

    def compose(self) -> ComposeResult:
        self.set_class(self.app.screen_stack[0].has_class("-ascii"), "-ascii")
        self._rows.styles.height = min(self._count, MOST_ROWS)
        with Vertical(id="dialog"):
            yield Static(content(f"Hints: {self._count}"), id="title")
            yield self._rows
            yield self._text
            yield Static(id="foot")

    def on_mount(self) -> None:
        self._show()

    def on_resize(self) -> None:
        """As high as the longest of the texts, as far as the screen has room."""
        width, height = self.app.size
        inside = min(WIDTH, width * 94 // 100) - 4
        longest = max(len(self._text.about(hint, inside)) for hint in self._hints)
        room = height * 94 // 100 - min(self._count, MOST_ROWS) - AROUND
        self._text.styles.height = max(1, min(longest, room))
        self._text.redraw()
        self._tell_keys()

    def _show(self) -> None:
        self._text.hint = self._rows.chosen_hint()
        self._text._scroll(0)
        self._rows.redraw()
        self._tell_keys()

    def _tell_keys(self) -> None:
        rule = str(self._text.hint.get("rule"))
        words = ("show", " it again") if rule in self._hushed else ("hush", " it till it is over")
        hush = "".join(words) if self.app.size.width >= ROOMY else words[0]
        keys = f"h {hush}  up/down choose  PgUp PgDn scroll  Esc close"
        self.query_one("#foot", Static).update(content(keys, "dim"))

    def action_move(self, by: int) -> None:
        self._rows._move(by)
        self._show()

    def action_scroll_text(self, by: int) -> None:
        if by > 0:
            self._text.do_page_down()
        else:
            self._text.do_page_up()

    def action_hush(self) -> None:
        self._hushed.toggle(str(self._rows.chosen_hint().get("rule")))
        self._changed()
        self._show()

    def action_close(self) -> None:
        self.dismiss(None)
