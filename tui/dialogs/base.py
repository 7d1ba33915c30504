"""The frame of every dialog: title, facts, fields, buttons. It starts in its text field, or on
Cancel where it has none, and Esc cancels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, RadioButton, RadioSet, Static

from tui.safe import content, line_text, plain, safe_line, wrap

TIGHT = 24
WIDTH = 72
MORE = "more: PgUp PgDn"
Fact = tuple[str, str] | str
"""A labelled value, or a sentence."""


class WholeCells(ScrollBarRender):
    """A scroll bar of whole cells: no half block at its ends, which ASCII has not."""

    VERTICAL_BARS = HORIZONTAL_BARS = [" "]


ScrollBar.renderer = WholeCells


class Choice(RadioButton):
    """A radio button that shows its state without colour: (*) or ( )."""

    BUTTON_LEFT = "("
    BUTTON_RIGHT = ")"

    @property
    def _button(self) -> Content:
        return Content("(*)" if self.value else "( )")


class Choices(RadioSet):
    """Radio buttons whose highlight, which Enter chooses, is on the chosen one when they get the
    focus: Textual's begins at the first, and Enter would change the choice to that."""

    def on_mount(self) -> None:
        self.call_later(self._to_chosen)  # Textual's own handler comes after this one

    def on_focus(self) -> None:
        self._to_chosen()

    def _to_chosen(self) -> None:
        if self.pressed_index >= 0:
            self._selected = self.pressed_index


class Tick(Checkbox):
    """A check box that shows its state without colour: [x] or [ ]."""

    @property
    def _button(self) -> Content:
        return Content("[x]" if self.value else "[ ]")


def facts_text(facts: Iterable[Fact], width: int, *, ascii: bool = False) -> Content:
    """Facts under each other in `width` columns, the values in a column of their own; `ascii`:
    with the console's own signs in ASCII."""

    def drawn(text: str, tone: str = "") -> Content:
        return content(line_text(plain(((text, tone),))) if ascii else text, tone)

    rows = list(facts)
    left = max((len(row[0]) for row in rows if isinstance(row, tuple)), default=0) + 2
    lines = []
    for row in rows:
        if isinstance(row, str):
            lines.append(drawn(row))
            continue
        for number, part in enumerate(wrap(row[1], width - left)):
            lines.append(drawn(f"{'' if number else row[0]:{left}}", "dim") + drawn(part))
    return Content("\n").join(lines)


class Dialog(ModalScreen[Any]):
    """A question. Its result is what the pressed button means, None for Cancel.

    A subclass gives `title_text` (verb and object), `facts`, `fields` and `result`.
    """

    BINDINGS = [
        Binding("escape", "cancel", "Cancel", show=False),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
        Binding("pageup", "read(-1)", show=False),
        Binding("pagedown", "read(1)", show=False),
    ]
    AUTO_FOCUS = "Input, #cancel"  # the first of them: what one types must not vanish
    ONWARD = "Input, #accept"
    """Where Enter in a field can go on to: what is chosen already may stay as it is."""

    title_text = ""
    button = "OK"
    cancel_text = "Cancel"

    def __init__(self, notice: str = "") -> None:
        super().__init__()
        self._notice = notice
        self._begun: dict[Input, str] = {}

    def facts(self) -> Sequence[Fact]:
        """What a person needs to know to answer."""
        return ()

    def fields(self) -> Iterable[Widget]:
        """What a person fills in."""
        return ()

    def buttons(self) -> Iterable[Button]:
        """The buttons after Cancel."""
        return [Button(content(self.button), id="accept", compact=True)] if self.button else []

    def result(self, button: str) -> Any:
        """What the dialog means once `button` is pressed; None keeps it open."""
        return True

    def compose(self) -> ComposeResult:
        self.set_class(self._ascii(), "-ascii")
        with Vertical(id="dialog"):
            yield Static(content(self.title_text), id="title")
            if self._notice:
                yield Static(content(self._notice), id="notice")
            facts = self.facts()
            if facts:
                with VerticalScroll(id="facts", can_focus=self._tight()):
                    width = min(WIDTH, self.app.size.width - 4) - 6
                    yield Static(facts_text(facts, width, ascii=self._ascii()))
            yield from self.fields()
            with Horizontal(id="buttons"):
                yield Button(content(self.cancel_text), id="cancel", compact=True)
                yield from self.buttons()

    def _ascii(self) -> bool:
        """Whether the screen below draws in ASCII."""
        return self.app.screen_stack[0].has_class("-ascii")

    def _tight(self) -> bool:
        """Whether there is little room: then blank lines go, and the facts can be scrolled."""
        return self.app.size.height < TIGHT

    def on_mount(self) -> None:
        self._begun = {field: field.value for field in self.query(Input)}

    @property
    def typed(self) -> bool:
        """Whether something was typed in: lost, where it is cancelled now."""
        return any(field.value != before for field, before in self._begun.items())

    def on_resize(self) -> None:
        self.set_class(self._tight(), "-tight")
        for facts in self.query("#facts"):
            facts.can_focus = self._tight()
        self.call_after_refresh(self._show_more)

    def _show_more(self) -> None:
        """Tell, in the frame, that there are more facts than can be seen: a scroll bar is only a
        colour, and a sentence may seem to end where it is cut."""
        more = any(facts.max_scroll_y for facts in self.query("#facts"))
        for frame in self.query("#dialog"):  # none, where it was closed meanwhile
            frame.border_subtitle = MORE if more else ""

    def action_read(self, by: int) -> None:
        """A page of the facts on (1) or back (-1), wherever the focus is."""
        for facts in self.query("#facts"):
            facts.scroll_to(y=facts.scroll_y + by * (facts.size.height - 1), animate=False)

    def action_cancel(self) -> None:
        self.dismiss(None)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "cancel":
            self.dismiss(None)
            return
        result = self.result(event.button.id or "")
        if result is not None:
            self.dismiss(result)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        """Enter in a field goes on to the next one, behind the last to the button that does it,
        once it can be pressed; only a button does something."""
        event.stop()
        self.focus_next(self.ONWARD)

    # -- small helpers for subclasses

    def value(self, selector: str) -> str:
        return self.query_one(selector, Input).value.strip()

    def ticked(self, selector: str) -> bool:
        return self.query_one(selector, Checkbox).value

    def picked(self, selector: str) -> int:
        """Index of the chosen radio button."""
        return max(0, self.query_one(selector, RadioSet).pressed_index)


def label(text: str) -> Static:
    """The line above a field."""
    return Static(content(text), classes="field-label")


class Field(Input):
    """A one-line input in which no control character stands, whoever wrote or pasted it: Textual
    would send it to the terminal."""

    def validate_value(self, value: str) -> str:
        return safe_line(value)


def field(id: str, placeholder: str = "", value: str = "") -> Input:
    """A one-line input whose cursor does not blink."""
    made = Field(value, placeholder=safe_line(placeholder), id=id, select_on_focus=False)
    made.cursor_blink = False
    return made
