"""Copy a version to a place outside of this home: which places there are, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from tui.dialogs.base import Choice, Choices, Dialog, Fact, label
from tui.dialogs.delete import copies_text
from tui.figures import size
from tui.frame import Record
from tui.safe import clip, content

SHOWN = 4
"""Most targets to choose from; whoever has more finds the rest with `trainctl backup NAME`."""


class BackupDialog(Dialog):
    """Result: the name of the target."""

    button = "Copy"

    def __init__(self, version: Record, targets: Sequence[Record], now: float) -> None:
        super().__init__()
        self.title_text = f"Back up {version.get('name')}"
        self._version, self._targets, self._now = version, list(targets), now

    def facts(self) -> Sequence[Fact]:
        facts: list[Fact] = [
            ("size", size(self._version.get("size_bytes"))),
            ("copies", copies_text(self._version, self._now)),
        ]
        for target in self._targets:
            text = f"{target.get('place')}, {target.get('what')}, {_when(target)}"
            facts.append((str(target.get("name")), text))
            if target.get("error"):
                facts.append(("", f"failed last time: {target.get('error')}"))
        if len(self._targets) > SHOWN:
            facts.append("The first are here; the others: trainctl backup NAME.")
        return facts

    def fields(self) -> Iterable[Widget]:
        yield label("Copy it to")
        yield Choices(
            *(
                Choice(content(clip(target.get("name"), 40)), value=not number)
                for number, target in enumerate(self._targets[:SHOWN])
            ),
            id="target",
        )

    def result(self, button: str) -> Any:
        return str(self._targets[self.picked("#target")].get("name"))


def _when(target: Record) -> str:
    words = {"version": "after every version", "daily": "once a day", "manual": "only when asked"}
    return words.get(str(target.get("when")), str(target.get("when")))
