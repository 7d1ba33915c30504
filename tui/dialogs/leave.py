"""Leave a console whose process has the engine in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.widgets import Button

from tui.dialogs.base import Dialog, Fact
from tui.safe import content


class LeaveDialog(Dialog):
    """Result: "handover" or "stop". The default keeps training: nothing is lost by it."""

    title_text = "Leave the console"
    AUTO_FOCUS = "#handover"

    def __init__(self, step: str, *, paused: bool = False) -> None:
        super().__init__()
        self._step = step
        self._paused = paused

    def facts(self) -> Sequence[Fact]:
        if self._paused:
            return [
                f"Training is paused at step {self._step}, in this process.",
                "In the background it stays paused; trainctl attaches again.",
            ]
        return [
            f"Training runs in this process, at step {self._step}.",
            "In the background it goes on without this terminal; trainctl attaches again.",
        ]

    def buttons(self) -> Iterable[Button]:
        yield Button(content("Stop after this step and save"), id="stop", compact=True)
        yield Button(content("Keep training in the background"), id="handover", compact=True)

    def result(self, button: str) -> str:
        return button
