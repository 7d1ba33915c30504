"""A process that works beside training: how it is started, listened to and broken off.

One reads a version back, read-only; another prepares an item. What it does, it tells in plain
words: JSON lines on its output, the last of which is the answer; `{"read": bytes, "of": bytes}`
before it tell how far it is. It runs at idle I/O priority, and it dies with the thread that waits
for it: nothing reads on for a program that has gone. Must never end any process but its own child.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Protocol

from queue_store import programs
from queue_store.errors import VerificationFailed

MISMATCH = 4
"""Exit status of a child that did its work and found damage."""

TIMEOUT = 6 * 3600.0
"""Seconds after which a reading counts as failed: a disk that hangs."""

LOOK_SECONDS = 0.2
TELL_SECONDS = 0.25

Progress = Callable[[int, int], None]
"""Hears how many bytes are read, of how many."""


class Stop(Protocol):
    """What breaks a process off: a threading.Event, or several of them."""

    def is_set(self) -> bool: ...


class Unfinished(VerificationFailed):
    """The reading gave no answer: killed, broken off, or something missing that is not the
    version's. Nothing is known of its bytes, and nothing is recorded."""


def run(
    module: str,
    arguments: Sequence[str],
    *,
    where: str,
    stop: Stop | None = None,
    progress: Progress | None = None,
    seconds: float = TIMEOUT,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    what: str = "the verification",
    mend: str = "verify it again",
    nice: int = programs.LOWEST,
) -> dict[str, Any]:
    """The answer of `python -m module ARGUMENTS`, which gets `stdin` and has `environment` added
    to ours, at the priority `nice`. Blocks; `stop` breaks it off within moments.

    Raises Unfinished where there is none.
    """
    # SIGKILL when we die: it may hang in the disk, and leaves nothing that has a name.
    command = programs.lowered(programs.python(module, *arguments), signal.SIGKILL, nice)
    try:
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                command,
                env={**programs.environment(), **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as child,
        ):
            try:
                assert child.stdin is not None
                child.stdin.write(stdin)
                child.stdin.close()
                answer = _listen(child, stop, progress, time.monotonic() + seconds)
                code = child.wait(seconds)
            finally:
                if child.poll() is None:
                    child.kill()
            if code not in (0, MISMATCH) or answer.get("ok") != (code == 0):
                raise ValueError(_why(code, answer, errors))
            return answer
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Unfinished(f"{what} did not finish: {error}", where=where, mend=mend) from None


def _listen(
    child: subprocess.Popen[bytes],
    stop: Stop | None,
    progress: Progress | None,
    deadline: float,
) -> dict[str, Any]:
    """The last line of the child's output. Raises ValueError where it is broken off or late."""
    assert child.stdout is not None
    fd, rest = child.stdout.fileno(), b""
    last: dict[str, Any] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if stop is not None and stop.is_set():
                raise ValueError("broken off")
            if time.monotonic() > deadline:
                raise ValueError("it took too long")
            if not selector.select(LOOK_SECONDS):
                continue
            data = os.read(fd, 1 << 16)
            if not data:
                return last
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                last = json.loads(line)
                if not isinstance(last, dict):
                    raise ValueError("its answer makes no sense")
                if progress is not None and "read" in last:
                    progress(int(last["read"]), int(last["of"]))


def _why(code: int, answer: dict[str, Any], errors: IO[bytes]) -> str:
    """Why there is no answer, in a few words."""
    if answer.get("unfinished"):
        return str(answer["unfinished"])
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return f"exit status {code}" + (f": {lines[-1][:300]}" if lines else "")


# -- inside the child --------------------------------------------------------------------------


class Teller:
    """Tells the one who waits how many bytes are read, a few times a second."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.read = 0
        self._told_at = time.monotonic()

    def __call__(self, count: int) -> None:
        """`count` more bytes are read."""
        self.read += count
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            print(json.dumps({"read": self.read, "of": self.total}), flush=True)
