"""The screen of a terminal that is too small to show anything else."""

from __future__ import annotations

from typing import Any

from textual.app import App, ComposeResult
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


def keep_in_front(app: App[Any], width: int, height: int) -> None:
    """Put the screen in front of all others, or take it away, by the size of the terminal. For
    every change of the size and of the screens: a view may open late, or close."""
    small = width < SMALLEST[0] or height < SMALLEST[1]
    if small and not isinstance(app.screen, TooSmall):
        app.push_screen(TooSmall())
    elif not small and isinstance(app.screen, TooSmall):
        app.pop_screen()
