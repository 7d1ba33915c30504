"""What the curves ask a person: which two lines to lay over each other."""

from __future__ import annotations

from tui.commands.asking import Asking
from tui.dialogs.overlay import OverlayDialog


class CurveCommands(Asking):
    """The `do_…` methods of the curves that open a dialog."""

    def do_overlay(self) -> None:
        pane, frame = self._console.curves_pane, self._console.frame
        if pane.overlay is not None:
            pane.lay_over(None)
        elif not frame.versions:
            self._no("there is no version to lay over: s takes one")
        else:
            chosen = self._console.versions_pane.selected()
            name = str(chosen.get("name")) if chosen else ""
            self.dialog(OverlayDialog(frame.versions, name), pane.lay_over)
