"""Add a file to the queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textual.widget import Widget
from textual.widgets import RadioSet, Static

from tui.dialogs.base import Choice, Dialog, Fact, field, label
from tui.frame import PRIORITIES
from tui.safe import content


class AddDialog(Dialog):
    """Result: {"path", "priority"} with an absolute path of a file that exists."""

    title_text = "Add a file"
    button = "Add"
    AUTO_FOCUS = "#path"

    def facts(self) -> Sequence[Fact]:
        return ["A JSONL file on this machine. It is copied in; yours stays where it is."]

    def fields(self) -> Iterable[Widget]:
        yield label("Path")
        yield field("path", "~/data/train.jsonl")
        yield Static(content(""), id="notice")
        yield label("Priority")
        yield RadioSet(*(Choice(word, value=word == "normal") for word in PRIORITIES), id="level")

    def result(self, button: str) -> Any:
        path = Path(self.value("#path")).expanduser().absolute()
        if not self.value("#path") or not path.is_file():
            self.query_one("#notice", Static).update(content(f"no such file: {path}"))
            self.query_one("#path").focus()
            return None
        return {"path": str(path), "priority": PRIORITIES[self.picked("#level")]}
