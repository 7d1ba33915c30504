"""A text that grows, on a terminal: written as it comes, and made harmless across the pieces.

What is told is always the whole text so far, of which the last characters may still change (half
a UTF-8 character becomes one, a lone carriage return the half of a line's end): they wait.
"""

from __future__ import annotations

import sys

from queue_store.safe import safe

UNSETTLED = "\ufffd\r"
"""What a text may end in before the rest of it is there."""


class Growing:
    """Writes to stdout. One text; `finish` it."""

    def __init__(self) -> None:
        self._shown = ""
        self._lost = False

    def grow(self, text: str) -> None:
        """The text as far as it is."""
        settled = text.rstrip(UNSETTLED)
        if self._lost or not settled.startswith(self._shown):
            self._lost = True  # what was written is not what it is now: `finish` says the whole
            return
        self._write(settled[len(self._shown) :])
        self._shown = settled

    def finish(self, text: str) -> None:
        """The whole text, and the end of its line."""
        if self._lost or not text.startswith(self._shown):
            self._write("\n\nIt ended otherwise; the whole answer:\n" + text)
        else:
            self._write(text[len(self._shown) :])
        self._write("\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(safe(text))
        sys.stdout.flush()
