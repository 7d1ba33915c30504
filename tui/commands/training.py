"""What the actions on training ask of the engine: pause, snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tui.commands.asking import Asking
from tui.dialogs.snapshot import SnapshotDialog
from tui.figures import count

if TYPE_CHECKING:
    from tui.console import Console
    from tui.frame import Frame


class TrainingCommands(Asking):
    """The `do_…` methods of the actions on what trains now."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._answered: tuple[Frame | None, bool] = (None, False)

    def do_pause(self) -> None:
        frame = self._console.frame
        paused = frame.state == "paused" or bool(frame.status.get("paused"))
        if frame is self._answered[0]:
            # No frame has come since the last answer: the answer is newer than what is shown.
            paused = self._answered[1]
        if paused:
            self.ask("resume", self._resumed, doing="resume")
        else:
            self.ask("pause", self._paused, doing="pausing after this step")

    def _paused(self, answer: Any) -> str:
        self._answered = (self._console.frame, True)
        return f"paused at step {count(answer.get('step'))}"

    def _resumed(self, answer: Any) -> str:
        self._answered = (self._console.frame, False)
        return "training goes on"

    def do_snapshot(self) -> None:
        def take(choice: dict[str, Any]) -> None:
            self.ask("snapshot_version", self._taken, doing="taking a snapshot", **choice)

        self.dialog(SnapshotDialog(self._console.frame), take)

    @staticmethod
    def _taken(answer: Any) -> str:
        name = answer.get("name") if isinstance(answer, Mapping) else answer
        return f"{name} is taken"
