"""Skip items: keep what they taught, or undo it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from tui.dialogs.base import Choice, Choices, Dialog, Fact, field, label
from tui.figures import count
from tui.frame import Record


class SkipDialog(Dialog):
    """Result: {"undo", "reason"}. `facts` are what is told of several items."""

    button = "Skip"

    def __init__(self, items: Sequence[Record], facts: Sequence[Fact] = ()) -> None:
        super().__init__()
        self._facts: list[Fact] = list(facts)
        if len(items) == 1:
            self.title_text = f"Skip {items[0].get('name')}"
            steps = f"step {count(items[0].get('step'))} of {count(items[0].get('steps'))}"
            self._facts.append(("trained", steps))
        else:
            self.title_text = f"Skip {len(items)} items"

    def facts(self) -> Sequence[Fact]:
        return self._facts

    def fields(self) -> Iterable[Widget]:
        yield Choices(
            Choice("keep what it taught", value=True),
            Choice("undo it: what else trained since then trains again"),
            id="what",
        )
        yield label("Reason")
        yield field("reason", "for the journal")

    def result(self, button: str) -> Any:
        return {"undo": self.picked("#what") == 1, "reason": self.value("#reason")}
