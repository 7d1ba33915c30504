"""An engine in a process of its own, for tests that kill it: trains the queue, then ends, or stays
until it is told to end.

The processes are forks of one that has imported torch and transformers once: that costs more than
all the rest of such a test.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path

from queue_store.home import Home
from tests.engine_kit import Running

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["engine.loop.worker", "tests.engine_process"])


class EngineProcess:
    """As `subprocess.Popen`, of which it has what the tests need."""

    def __init__(self, home: Home, environment: dict[str, str], *, stay: bool = False) -> None:
        self._process: BaseProcess = _forks.Process(
            target=_train, args=(home.root, {**os.environ, **environment}, stay)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """The exit code, minus the signal that ended it. Raises TimeoutError."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"the engine did not end in {timeout:g} s")
        return self._process.exitcode


def _train(root: Path, environment: dict[str, str], stay: bool) -> None:
    os.environ.clear()
    os.environ.update(environment)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    with Running(Home(root)) as running:
        if not stay:
            ends = threading.Thread(
                target=lambda: (running.wait_trained(), asked.set()), daemon=True
            )
            ends.start()
        asked.wait()
