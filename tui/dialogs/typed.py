"""What cannot be done by one key: the name of the thing must be typed before the button works."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.widget import Widget
from textual.widgets import Button, Input

from tui.dialogs.base import Dialog, field, label


class TypedDialog(Dialog):
    """A subclass sets `word`, what is to be typed, and gives `agreed`, the dialog's result."""

    word = ""

    def agreed(self) -> Any:
        return self.word

    def fields(self) -> Iterable[Widget]:
        yield label(f"Type {self.word} to go on")
        yield field("name", self.word)

    def buttons(self) -> Iterable[Button]:
        for button in super().buttons():
            button.disabled = True
            yield button

    @on(Input.Changed, "#name")
    def _typed(self, event: Input.Changed) -> None:
        self.query_one("#accept", Button).disabled = event.value.strip() != self.word

    def result(self, button: str) -> Any:
        return self.agreed() if self.value("#name") == self.word else None
