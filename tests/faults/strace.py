"""strace on a fork: what system calls an act makes, and faults put in at the Nth of them.

The act runs in a fork that stops itself before its first call, until strace has taken hold of
it: a fault costs some 50 ms, not the start of an interpreter. Works where ptrace is allowed.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.world import EARS, Ears
from tests.waiting import wait_until

CHANGING = (
    *("write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link"),
    *("linkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "ftruncate"),
)
"""The calls that change a disk or make a change last."""

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|\?)(.*)$")
REFUSED, SURPRISED = 3, 1
"""How an act ends that was refused the disk: with an error of the known families, or not."""


@dataclass(frozen=True)
class Call:
    """One system call: its name, arguments as strace prints them (fds with paths), and result."""

    name: str
    arguments: str
    result: int

    @property
    def paths(self) -> list[str]:
        """The paths it speaks of, fds included."""
        return re.findall(r"(?:<(/[^>]*)>)", self.arguments) + re.findall(
            r'"(/[^"]*)"', self.arguments
        )


@functools.cache
def missing() -> str:
    """Why strace cannot be used here, "" where it can."""
    if shutil.which("strace") is None:
        return "no strace here"
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False
    )
    if done.returncode:
        return f"no ptrace here: {done.stderr.decode().strip()}"
    return ""


def run(
    act: Callable[[], object], heard: Ears | None = None, inject: str = ""
) -> tuple[int, list[Call]]:
    """Run `act` in a fork under strace: how it ended (REFUSED where an error of a known family
    came out), and its calls. `inject` as strace wants it: "fsync:signal=KILL:when=3"."""
    pid = os.fork()
    if pid == 0:
        _child(act, heard)
    os.waitpid(pid, os.WUNTRACED)
    with tempfile.NamedTemporaryFile(prefix="strace-") as log:
        traced = ",".join((*CHANGING, "sendto"))
        command = ["strace", "-f", "-y", "-qq", "-s", "0", "-o", log.name, "-e", f"trace={traced}"]
        command += ["-e", f"inject={inject}"] if inject else []
        tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE)
        try:
            wait_until(lambda: _traced(pid) or tracer.poll() is not None, every=0.001)
            os.kill(pid, signal.SIGCONT)
            ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            _, said = tracer.communicate(timeout=60)
        if tracer.returncode not in (0, -signal.SIGKILL) and ended >= 0:
            raise RuntimeError(f"strace: {said.decode()}")
        return ended, calls_of(Path(log.name).read_text(errors="replace"))


def _child(act: Callable[[], object], heard: Ears | None) -> None:
    import sqlite3

    from queue_store.errors import TrainctlError

    code = SURPRISED
    try:
        if heard is not None:
            os.environ[EARS] = str(heard.fd)
        os.kill(os.getpid(), signal.SIGSTOP)
        act()
        code = 0
    except (TrainctlError, OSError, sqlite3.Error):
        code = REFUSED
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _traced(pid: int) -> bool:
    text = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in text


def calls_of(log: str) -> list[Call]:
    """The calls of a log, in their order; those cut by the end of the process are left out."""
    found = []
    for line in log.splitlines():
        match = _CALL.match(line)
        if match:
            result = -1 if match[4] == "?" else int(match[4])
            found.append(Call(match[2], match[3], result))
    return found


def points(calls: list[Call], what: str, names: Iterable[str]) -> list[str]:
    """What strace is told to put a fault into each of these calls that did something: for
    "signal=KILL:when={n}", "fsync:signal=KILL:when=3"."""
    seen: Counter[str] = Counter()
    found = []
    for call in calls:
        seen[call.name] += 1
        if call.name in names and call.result >= 0:
            found.append(f"{call.name}:{what.format(n=seen[call.name])}")
    return found
