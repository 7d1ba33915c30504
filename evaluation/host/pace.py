"""A worker on the machine that trains, held to so much of its processor.

The lowest priority alone is no promise: how much it leaves depends on the system's scheduler. So
the worker is stopped and continued, and takes no more CPU time than it may. Must never leave it
stopped: who ends it continues it first, or kills it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable

Limit = Callable[[], float | None]
"""CPU seconds a second that it may take, above 0; None: as many as there are."""
LOOK_SECONDS = 0.1
BURST = 0.2
"""CPU seconds that may be saved up, so that an idle second is not paid back by a busy one."""


def beside(budget: float, cores: int, threads: int) -> float:
    """CPU seconds a second for a worker beside `threads` that train on so many cores: those that no
    thread has, and the share `budget` of one. A step is done when the slowest of its threads is, so
    that what is taken from one core is taken from all that train."""
    return max(0, cores - threads) + budget


class Pace:
    """Watches `child` until `close`; `limit` is asked ten times a second."""

    def __init__(self, child: subprocess.Popen[bytes], limit: Limit) -> None:
        self._child, self._limit = child, limit
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pace", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let it go. Idempotent."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        import psutil

        stopped, credit = False, BURST
        try:
            process = psutil.Process(self._child.pid)
            at, used = time.monotonic(), 0.0
            while not self._closed.wait(LOOK_SECONDS):
                limit, before = self._limit(), (at, used)
                times = process.cpu_times()
                at, used = time.monotonic(), times.user + times.system
                if limit is None:
                    credit = BURST
                else:
                    earned = limit * (at - before[0])
                    credit = min(BURST, credit + earned) - (used - before[1])
                if stopped != (credit < 0):
                    stopped = credit < 0
                    self._child.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
        except (psutil.Error, OSError):
            pass  # it has ended
        finally:
            with contextlib.suppress(OSError):
                self._child.send_signal(signal.SIGCONT)
