"""SIGTERM and SIGINT, counted: the first asks for a save and the end, the second ends at once."""

from __future__ import annotations

import os
import signal
from types import FrameType

KILLED = 1


class Signals:
    """Counts SIGTERM and SIGINT; the second one ends the process at once. SIGHUP is ignored."""

    def __init__(self) -> None:
        self.count = 0
        self.listen()

    def listen(self) -> None:
        """Take the signals (again, after somebody else had them)."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._come)

    def _come(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            os._exit(KILLED)
