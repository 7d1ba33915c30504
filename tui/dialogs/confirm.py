"""Yes or no for one act, and a text to be read."""

from __future__ import annotations

from collections.abc import Sequence

from tui.dialogs.base import Dialog, Fact


class ConfirmDialog(Dialog):
    """Does `button` or nothing."""

    def __init__(self, title: str, facts: Sequence[Fact], button: str) -> None:
        super().__init__()
        self.title_text, self.button = title, button
        self._facts = facts

    def facts(self) -> Sequence[Fact]:
        return self._facts


class TextDialog(Dialog):
    """Something to read; every key that closes it does."""

    button = ""
    cancel_text = "Close"

    def __init__(self, title: str, facts: Sequence[Fact]) -> None:
        super().__init__()
        self.title_text = title
        self._facts = facts

    def facts(self) -> Sequence[Fact]:
        return self._facts
