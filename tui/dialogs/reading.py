"""Something long to read, in the whole screen."""

from __future__ import annotations

from collections.abc import Callable

from tui.dialogs.whole import WholeView
from tui.safe import Line


class ReadingView(WholeView):
    """`make` gives the lines for a width."""

    def __init__(self, title: str, make: Callable[[int], list[Line]]) -> None:
        super().__init__(title)
        self._make = make

    def begin(self) -> None:
        self.redrawn()

    def redrawn(self) -> None:
        """Show the lines as they are now, from the top."""
        self.say(self._make)
