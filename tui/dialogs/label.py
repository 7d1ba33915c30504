"""One line to be written on a version: its description, or a name of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from tui.dialogs.base import Dialog, Fact, field, label
from tui.frame import Record


class DescribeDialog(Dialog):
    """Result: {"text"}, "" for no description."""

    button = "Describe"

    def __init__(self, version: Record) -> None:
        super().__init__()
        self.title_text = f"Describe {version.get('name')}"
        self._before = str(version.get("description") or "")

    def fields(self) -> Iterable[Widget]:
        yield label("What it is (empty for nothing)")
        yield field("text", "", self._before)

    def result(self, button: str) -> Any:
        return {"text": self.value("#text")}


class TagDialog(Dialog):
    """Result: {"name", "on"}; a tag that the version has is taken off by typing it again."""

    button = "Tag"

    def __init__(self, version: Record) -> None:
        super().__init__()
        self.title_text = f"Tag {version.get('name')}"
        self._tags = [str(tag) for tag in version.get("tags") or ()]

    def facts(self) -> Sequence[Fact]:
        return [("tags", ", ".join(self._tags))] if self._tags else []

    def fields(self) -> Iterable[Widget]:
        yield label("A name for it" + (", or one of its own to take it off" if self._tags else ""))
        yield field("name", "good-one")

    def result(self, button: str) -> Any:
        name = self.value("#name")
        return {"name": name, "on": name not in self._tags} if name else None
