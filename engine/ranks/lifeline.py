"""Nothing outlives the engine: how a process of a launch dies with the one that started it.

The kernel kills it when the thread that started it dies, however that dies. No torch here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """SIGKILL for this process when the process `parent` dies; at once where it has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def die_at_end_of(fd: int) -> None:
    """End this process when nobody holds the other end of a pipe any more."""

    def watch() -> None:
        while os.read(fd, 4096):
            pass
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
