"""What a device has: cards by name, and the machine's own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psutil

from engine.machine.gpus import Gpus
from engine.memory.estimate import SLACK
from engine.messages import is_unknown
from queue_store.errors import UsageError

MIB = 1 << 20
CARDS = {"4090": 24564 * MIB, "3090": 24576 * MIB, "4080": 16376 * MIB, "4070": 12282 * MIB}
"""Memory as NVML tells it of NVIDIA's GeForce RTX cards."""


@dataclass(frozen=True)
class Device:
    """`total` bytes, of which `free` are nobody's; `gpu` or the host's own memory."""

    name: str
    total: int
    free: int
    gpu: bool

    @property
    def usable(self) -> int:
        """Bytes that training can take of it."""
        return int(min(self.free, self.total * (1 - SLACK)))


def share(device: Device, processes: int) -> Device:
    """What each of so many processes of a host has: a card of its own, or its part of the host's
    memory."""
    if device.gpu or processes == 1:
        return device
    total, free = device.total // processes, device.free // processes
    return Device(f"1/{processes} of {device.name}", total, free, False)


def card(name: str) -> Device:
    """The card of that name, nothing else on it. Raises UsageError for one that is not known."""
    if name not in CARDS:
        raise UsageError(
            f"no card {name} is known", where="--card", mend=f"one of {', '.join(CARDS)}, or here"
        )
    return Device(f"RTX {name}", CARDS[name], CARDS[name], True)


def here(gpus: Gpus | None = None, own: Collection[int] = ()) -> Device:
    """The first GPU of this machine, or its memory where it has none. What the processes `own` hold
    of it counts as free: an engine that trains is to be compared with itself."""
    asked = gpus or Gpus()
    try:
        found: Any = asked.sample()
    finally:
        asked.close()
    for one in found if isinstance(found, list) else []:
        total, used = one["memory_total"], one["memory_used"]
        if not is_unknown(total):
            taken = 0 if is_unknown(used) else int(used)
            mine = min(taken, _held(one, taken, own))
            return Device(str(one["name"]), int(total), int(total) - taken + mine, True)
    memory = psutil.virtual_memory()
    free = min(memory.total, memory.available + _resident(own))
    return Device("this machine's memory (no GPU)", memory.total, free, False)


def _held(gpu: dict[str, Any], used: int, own: Collection[int]) -> int:
    """Bytes of a card that the processes `own` hold."""
    others = gpu["others"] if isinstance(gpu["others"], list) else []
    told = {one["pid"]: one["memory"] for one in others if isinstance(one["memory"], int)}
    mine = sum(int(told.get(pid, 0)) for pid in own)
    if os.getpid() in own and len(told) == len(others):  # NVML's list leaves out who asks
        mine += max(0, used - sum(told.values()))
    return mine


def _resident(own: Collection[int]) -> int:
    whole = 0
    for pid in own:
        with contextlib.suppress(psutil.Error):
            whole += int(psutil.Process(pid).memory_info().rss)
    return whole
