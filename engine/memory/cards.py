"""What a device has: cards by name, and the machine's own."""

from __future__ import annotations

import os
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


def here(gpus: Gpus | None = None, own: int | None = None) -> Device:
    """The first GPU of this machine, or its memory where it has none. What the process `own` holds
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


def _held(gpu: dict[str, Any], used: int, own: int | None) -> int:
    """Bytes of a card that the process `own` holds."""
    others = gpu["others"] if isinstance(gpu["others"], list) else []
    told = {one["pid"]: one["memory"] for one in others if isinstance(one["memory"], int)}
    if own == os.getpid():  # NVML's list leaves out who asks
        return max(0, used - sum(told.values())) if len(told) == len(others) else 0
    return int(told.get(own, 0))


def _resident(own: int | None) -> int:
    try:
        return 0 if own is None else int(psutil.Process(own).memory_info().rss)
    except psutil.Error:
        return 0
