"""What the actions on training ask of the engine: pause, snapshot."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tui.commands.asking import Asking
from tui.dialogs.snapshot import SnapshotDialog
from tui.figures import count

if TYPE_CHECKING:
    from tui.console import Console


class TrainingCommands(Asking):
    """The `do_…` methods of the actions on what trains now."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._answered = (float("-inf"), False)
        """When the engine last answered here (time.monotonic()), and whether it was paused then."""

    def do_pause(self) -> None:
        frame = self._console.frame
        paused = frame.state == "paused" or bool(frame.status.get("paused"))
        answered, held = self._answered
        if frame.asked < answered:
            # What is shown was asked for before that answer came: the answer is newer.
            paused = held
        if paused:
            self.ask("resume", self._resumed, doing="resume")
        else:
            self.ask("pause", self._paused, doing="pausing after this step")

    def _paused(self, answer: Any) -> str:
        self._answered = (time.monotonic(), True)
        return f"paused at step {count(answer.get('step'))}"

    def _resumed(self, answer: Any) -> str:
        self._answered = (time.monotonic(), False)
        return "training goes on"

    def do_snapshot(self) -> None:
        def take(choice: dict[str, Any]) -> None:
            self.ask("snapshot_version", self._taken, doing="taking a snapshot", **choice)

        self.dialog(SnapshotDialog(self._console.frame), take)

    @staticmethod
    def _taken(answer: Any) -> str:
        name = answer.get("name") if isinstance(answer, Mapping) else answer
        return f"{name} is taken"
