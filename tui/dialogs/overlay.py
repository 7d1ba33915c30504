"""Choose the two lines that the curves show in one picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget
from textual.widgets import Static

from tui.dialogs.base import Choice, Choices, Dialog, Fact, label
from tui.figures import count, loss
from tui.frame import Record
from tui.safe import clip, content

MOST = 100
"""Versions to choose from, the newest."""
TEXT = 60


class OverlayDialog(Dialog):
    """Result: the names of the two, "" for the present line."""

    title_text = "Lay two lines over each other"
    button = "Show"

    def __init__(self, versions: Sequence[Record], chosen: str = "") -> None:
        super().__init__()
        newest = list(reversed(versions))[:MOST]
        self._names = ["", *(str(version.get("name")) for version in newest)]
        self._texts = [
            "the present",
            *(
                clip(
                    f"{v.get('name')}  step {count(v.get('step'))}  loss {loss(v.get('loss'))}"
                    f"  {v.get('description') or ''}",
                    TEXT,
                )
                for v in newest
            ),
        ]
        self._second = self._names.index(chosen) if chosen in self._names[1:] else 1

    def facts(self) -> Sequence[Fact]:
        return ["Of a version: the steps that led to it, on its own branch."]

    def fields(self) -> Iterable[Widget]:
        for id, title, at in (("first", "The line", 0), ("second", "and o", self._second)):
            yield label(title)
            choices = (Choice(content(t), value=n == at) for n, t in enumerate(self._texts))
            yield Choices(*choices, id=id)
        yield Static(content(""), id="notice")

    def result(self, button: str) -> Any:
        first, second = self.picked("#first"), self.picked("#second")
        if first == second:
            self.query_one("#notice", Static).update(content("the same line twice: choose two"))
            return None
        return self._names[first], self._names[second]
