"""The screen of a terminal that is too small to show anything else."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.events import Key, Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.safe import content

SMALLEST = (60, 16)


class TooSmall(ModalScreen[None]):
    """Stands in front of everything while the terminal is too small; no key does anything."""

    def compose(self) -> ComposeResult:
        yield Static(content(self._text()), id="too-small")

    def _text(self) -> str:
        width, height = self.app.size
        return f"too small: {width}x{height}\nneeds {SMALLEST[0]}x{SMALLEST[1]}"

    def on_resize(self, event: Resize) -> None:
        self.query_one("#too-small", Static).update(content(self._text()))

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
