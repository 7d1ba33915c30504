"""Skip the item in training: keep what it taught, or undo it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget
from textual.widgets import RadioSet

from tui.dialogs.base import Choice, Dialog, Fact, field, label
from tui.figures import count
from tui.frame import Record


class SkipDialog(Dialog):
    """Result: {"undo", "reason"}."""

    button = "Skip"

    def __init__(self, item: Record) -> None:
        super().__init__()
        self.title_text = f"Skip {item.get('name')}"
        self._facts: list[Fact] = [
            ("trained", f"step {count(item.get('step'))} of {count(item.get('steps'))}"),
        ]

    def facts(self) -> Sequence[Fact]:
        return self._facts

    def fields(self) -> Iterable[Widget]:
        yield RadioSet(
            Choice("keep what it taught", value=True),
            Choice("undo it: back to before; what else trained since trains again"),
            id="what",
        )
        yield label("Reason")
        yield field("reason", "for the journal")

    def result(self, button: str) -> Any:
        return {"undo": self.picked("#what") == 1, "reason": self.value("#reason")}
