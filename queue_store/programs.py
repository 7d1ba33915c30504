"""Programs run beside training: rsync, ssh and readers of disks, at the lowest priority.

Each starts through `lowered.py`, which gives way on processor and disk, and dies with this
process. What takes long looks at `cancelled` and ends its child.
Must never build a shell string, and never repeat a child's output unfiltered to a terminal.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from queue_store.errors import TrainctlError

Cancelled = Callable[[], bool]
LOWEST = 19
"""The priority of what nobody waits for."""
POLL_SECONDS = 0.1
TERM_SECONDS = 5.0
"""How long a child may take to end after SIGTERM (rsync keeps its partial file meanwhile)."""
_ROOT = Path(__file__).resolve().parent.parent


class BrokenOff(TrainctlError):
    """The engine is ending, so the copy was broken off; the next one goes on from there."""


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit status (negative: a signal), and what it wrote."""

    status: int
    out: bytes
    err: str


def never() -> bool:
    return False


def run(
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    cancelled: Cancelled = never,
    on_line: Callable[[bytes], None] | None = None,
    timeout: float | None = None,
) -> Ended:
    """Run a program to its end. `on_line` gets each line (or carriage return) of its output as
    it comes; else the output is collected. Raises BrokenOff, TrainctlError (program missing,
    or no end within `timeout` seconds)."""
    if cancelled():
        raise BrokenOff("broken off: the engine is ending")
    child = subprocess.Popen(
        lowered(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    kept: list[bytes] = []
    errors: list[bytes] = []
    threads = [
        threading.Thread(target=_feed, args=(child, stdin), daemon=True),
        threading.Thread(target=_read, args=(child.stdout, on_line or kept.append), daemon=True),
        threading.Thread(target=_read, args=(child.stderr, errors.append), daemon=True),
    ]
    for thread in threads:
        thread.start()
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while True:
            try:
                child.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if cancelled():
                    raise BrokenOff("broken off: the engine is ending") from None
                if deadline is not None and time.monotonic() > deadline:
                    raise TrainctlError(
                        f"{Path(command[0]).name} gave no answer in {timeout:.0f} s"
                    ) from None
    finally:
        _end(child)
        for thread in threads:
            thread.join(TERM_SECONDS)
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    # rsync passes on a 127 of the other side: only what is missing here is missing here.
    if child.returncode == 127 and shutil.which(command[0]) is None:
        raise TrainctlError(f"{command[0]} is not installed here", mend=f"install {command[0]}")
    err = b"".join(errors).decode("utf-8", "replace").strip()
    return Ended(child.returncode, b"".join(kept), err)


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules, whatever folder one stands in."""
    return [sys.executable, "-P", "-m", module, *arguments]


def lowered(
    command: Sequence[str], end: signal.Signals = signal.SIGTERM, nice: int = LOWEST
) -> list[str]:
    """The command that runs `command` at a lower priority; it gets `end` when we die."""
    place = str(_ROOT / "queue_store" / "lowered.py")
    numbers = (str(os.getpid()), str(int(end)), str(nice))
    return [sys.executable, "-I", "-S", place, *numbers, *command]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    # C: what rsync, sha256sum and df write is read by us.
    return {**os.environ, "PYTHONPATH": path, "LC_ALL": "C"}


def _feed(child: subprocess.Popen[bytes], data: bytes) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(data)
        child.stdin.close()
    except OSError:
        pass  # it ended without reading; its exit status tells why


def _read(pipe: object, take: Callable[[bytes], None]) -> None:
    """Lines as they come; rsync's progress ends its lines with a carriage return."""
    rest = b""
    while block := pipe.read1(1 << 16):  # type: ignore[attr-defined]
        rest += block.replace(b"\r", b"\n")
        *lines, rest = rest.split(b"\n")
        for line in lines:
            take(line + b"\n")
    if rest:
        take(rest)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(TERM_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
