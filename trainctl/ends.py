"""How a training process ended: its class, found from outside, and the note for the next one.

The note (store/last-end.json) outlives the supervisor; the next engine's recovery records it on
the attempt that was under way and removes it. Must never guess: what is not known is "unknown".
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from queue_store.errors import EXIT_CUDA, EXIT_IO
from queue_store.failures import Cause

FINAL = (0, 1, 2, 3, 4)
"""Exit codes after which no other process is started: asked for, or of no use."""


@dataclass(frozen=True)
class OomCounts:
    """How many processes the kernel's OOM killer has ended: in our control group (None where
    that cannot be read) and on the whole machine."""

    group: int | None
    machine: int | None


def oom_counts(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> OomCounts:
    """Read the counters. Never raises."""
    return OomCounts(_group_kills(proc, groups), _number(proc / "vmstat", r"^oom_kill (\d+)$"))


def _group_kills(proc: Path, groups: Path) -> int | None:
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found = _number(groups / path.lstrip("/") / "memory.events", r"^oom_kill (\d+)$")
        elif "memory" in controllers.split(","):
            place = groups / "memory" / path.lstrip("/") / "memory.oom_control"
            found = _number(place, r"^oom_kill (\d+)$")
        else:
            continue
        if found is not None:
            return found
    return None


def _number(path: Path, pattern: str) -> int | None:
    try:
        match = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None


def rose(before: OomCounts, after: OomCounts) -> bool:
    """Whether the OOM killer ended something between the two; our own group decides if it can."""
    if before.group is not None and after.group is not None:
        return after.group > before.group
    if before.machine is None or after.machine is None:
        return False
    return after.machine > before.machine


def classify(code: int, *, hung: str, oom: bool, last_line: str) -> tuple[Cause, str]:
    """(cause, one line) of an end. `code` as subprocess has it (minus the signal); `hung` says
    where the stacks are when it was ended as a hang, "" otherwise."""
    if hung:
        return Cause.HANG, hung
    if code < 0:
        name = _signal_name(-code)
        if -code == signal.SIGKILL:
            if oom:
                return Cause.OOM_KILLER, "the kernel's OOM killer ended the training process"
            return Cause.KILLED, "the training process was killed (SIGKILL)"
        if "CUDA" in last_line:
            return Cause.CUDA, f"{name}; {last_line}"
        if -code in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            return Cause.KILLED, f"the training process was killed ({name})"
        return Cause.UNKNOWN, f"the training process crashed ({name}); {last_line}".rstrip("; ")
    known = {EXIT_IO: Cause.IO, EXIT_CUDA: Cause.CUDA}.get(code, Cause.UNKNOWN)
    if known == Cause.UNKNOWN and "CUDA out of memory" in last_line:
        known = Cause.CUDA_MEMORY
    return known, last_line or f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
