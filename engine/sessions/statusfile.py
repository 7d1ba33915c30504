"""store/status.json: the status for whoever reads files, replaced atomically.

A hint, not a record: not synced, and after a crash it tells what was last known (`time` says
when). Written on a thread of its own, so that a slow disk never holds up a step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from engine.sessions.wire import encode
from queue_store import durable
from queue_store.errors import TrainctlError
from queue_store.home import Home

log = logging.getLogger("trainctl.status")

INTERVAL = 1.0


def write(home: Home, status: dict[str, Any]) -> None:
    """Replace status.json by `status` and the time of writing. Raises OSError, Internal."""
    line = encode({**status, "time": time.time()})
    durable.write_atomic(home.status_file, line, sync=False)


class StatusFile:
    """Writes what `snapshot` returns whenever it changed, from `start` to `stop`."""

    def __init__(
        self, home: Home, snapshot: Callable[[], dict[str, Any]], interval: float = INTERVAL
    ) -> None:
        self._home = home
        self._snapshot = snapshot
        self._interval = interval
        self._stop = threading.Event()
        self._written: dict[str, Any] | None = None
        self._failing = ""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="trainctl-status", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write the last status and end. Idempotent."""
        thread, self._thread = self._thread, None
        self._stop.set()
        if thread is not None:
            thread.join(timeout=5)
            self._write()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._write()

    def _write(self) -> None:
        status = self._snapshot()
        if status is self._written:
            return
        try:
            write(self._home, status)
        except (OSError, TrainctlError) as error:
            # A full disk must not end the engine, nor fill its log.
            if str(error) != self._failing:
                log.warning("status.json cannot be written: %s", error)
            self._failing = str(error)
        else:
            self._written, self._failing = status, ""
