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
from collections.abc import Sequence

ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|[()][0-9A-B]|[=>78])")


class Screen:
    """Runs `python -m WORDS…`; `shown` is set once it has shown `text`, and `first` tells how many
    seconds that took."""

    def __init__(self, words: Sequence[str], text: bytes) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        self.bytes = 0
        self.shown = threading.Event()
        self.first = 0.0
        self._text = text
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
        seen = b""
        while True:
            try:
                chunk = os.read(self.master, 1 << 16)
            except OSError:
                return
            self.bytes += len(chunk)
            if not self.shown.is_set():
                seen += chunk
                if self._text in ESCAPES.sub(b"", seen):
                    self.first = time.perf_counter() - self.started
                    self.shown.set()

    def wait(self, seconds: float = 60) -> None:
        """Until the text was shown. Raises RuntimeError where it never was."""
        if not self.shown.wait(seconds):
            raise RuntimeError(f"{self._text!r} was not shown within {seconds:g} s")

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        os.close(self.master)
