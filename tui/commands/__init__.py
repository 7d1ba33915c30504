"""What the actions ask of the engine, by what they act on: one class of `do_…` methods a room."""

from __future__ import annotations

from tui.commands.copies import CopyCommands
from tui.commands.curves import CurveCommands
from tui.commands.evaluating import EvaluatingCommands
from tui.commands.memory import MemoryCommands
from tui.commands.queue import QueueCommands
from tui.commands.reading import ReadingCommands
from tui.commands.samples import SampleCommands
from tui.commands.training import TrainingCommands
from tui.commands.validating import ValidatingCommands
from tui.commands.versions import VersionCommands


class Commands(
    TrainingCommands,
    QueueCommands,
    ValidatingCommands,
    CurveCommands,
    SampleCommands,
    VersionCommands,
    CopyCommands,
    EvaluatingCommands,
    MemoryCommands,
    ReadingCommands,
):
    """The `do_…` methods of all actions that talk to the engine or open a dialog."""
