"""How far something long is, on stderr, so that output stays clean for a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

AFTER = 1.0
EVERY = 0.25
EVERY_IN_A_LOG = 15.0


class Progress:
    """Call it with (what, done, total); a context manager, which takes the line away at the end.

    On a terminal it is one line that is written over, from the second second on; elsewhere a
    line every 15 s.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._terminal = sys.stderr.isatty()
        self._next = clock() + (AFTER if self._terminal else EVERY_IN_A_LOG)
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, so that something else can stand there."""
        if self._shown and self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        if total:
            self.say(f"{what}: {100 * done / total:.0f} % of {total / 1e6:.0f} MB")

    def say(self, what: str) -> None:
        """How far it is in words, where it is time for a line."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (EVERY if self._terminal else EVERY_IN_A_LOG)
        self._shown = True
        before, after = ("\r\x1b[K", "") if self._terminal else ("", "\n")
        print(f"{before}trainctl: {what}", end=after, file=sys.stderr, flush=True)
