"""Keep the present state as a version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from textual.widget import Widget

from tui.dialogs.base import Choice, Choices, Dialog, Fact, Tick, field, label
from tui.figures import count, known, real, size, why
from tui.frame import Frame


def room(frame: Frame) -> list[Fact]:
    """How large a snapshot is, what is free, and how many more fit."""
    disk: Any = frame.status.get("disk") or {}
    sizes = [real(checkpoint.get("size_bytes")) for checkpoint in frame.checkpoints]
    known_sizes = [value for value in sizes if value]
    facts: list[Fact] = [
        ("size", f"about {size(known_sizes[-1])}" if known_sizes else "? (no checkpoint yet)"),
        ("free disk", size(disk.get("free")) if not why(disk) else f"? ({why(disk)})"),
    ]
    left = disk.get("snapshots_left")
    facts.append(("room for", f"{count(left)} more" if known(left) else f"? ({why(left)})"))
    return facts


class SnapshotDialog(Dialog):
    """Result: {"description", "weights_only", "pin"}."""

    button = "Take snapshot"

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.title_text = f"Take a snapshot at step {count(frame.step)}"
        self._facts = room(frame)

    def facts(self) -> Sequence[Fact]:
        return self._facts

    def fields(self) -> Iterable[Widget]:
        yield label("Description")
        yield field("description", "what is special about this state")
        yield label("Keep")
        yield Choices(
            Choice("whole state: training can go on from it", value=True),
            Choice("weights only: smaller, cannot be trained on"),
            id="keep",
        )
        yield Tick("pin: retention never deletes it", id="pin")

    def result(self, button: str) -> Any:
        return {
            "description": self.value("#description"),
            "weights_only": self.picked("#keep") == 1,
            "pin": self.ticked("#pin"),
        }
