"""A process on a pseudo-terminal of 120x36 whose output is read: how much it wrote, and when it
showed a text."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence

ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|[()][0-9A-B]|[=>78])")


KEPT = 1 << 16
"""Bytes that are looked through for what is waited for."""


class Screen:
    """Runs `python -m WORDS…`; `shown` is set once it has shown `text`, and `first` tells how many
    seconds that took. While `reading` is not set, nobody reads the terminal."""

    def __init__(self, words: Sequence[str], text: bytes) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        self.bytes = 0
        self.shown = threading.Event()
        self.reading = threading.Event()
        self.reading.set()
        self.first = 0.0
        self._wanted: Callable[[bytes], object] = lambda out: text in out
        self._seen = b""
        self._guard = threading.Lock()
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            self.reading.wait()
            try:
                chunk = os.read(self.master, 1 << 16)
            except OSError:
                return
            self.bytes += len(chunk)
            with self._guard:
                if not self.shown.is_set():
                    self._seen = (self._seen + chunk)[-KEPT:]
                    if self._wanted(ESCAPES.sub(b"", self._seen)):
                        self.first = time.perf_counter() - self.started
                        self.shown.set()

    def watch(self, wanted: Callable[[bytes], object]) -> None:
        """Wait anew: for what `wanted` finds in the text that is written from now on. `first`
        counts from now."""
        with self._guard:
            self._wanted, self._seen, self.started = wanted, b"", time.perf_counter()
            self.shown.clear()

    def wait(self, seconds: float = 60) -> None:
        """Until the text was shown. Raises RuntimeError where it never was."""
        if not self.shown.wait(seconds):
            raise RuntimeError(f"not shown within {seconds:g} s; last: {self._seen[-300:]!r}")

    def close(self) -> None:
        self.reading.set()
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        os.close(self.master)
