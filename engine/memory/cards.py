"""What a device has: cards by name, and the machine's own."""

from __future__ import annotations

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


def card(name: str) -> Device:
    """The card of that name, nothing else on it. Raises UsageError for one that is not known."""
    if name not in CARDS:
        raise UsageError(
            f"no card {name} is known", where="--card", mend=f"one of {', '.join(CARDS)}, or here"
        )
    return Device(f"RTX {name}", CARDS[name], CARDS[name], True)


def here(gpus: Gpus | None = None) -> Device:
    """The first GPU of this machine, or its memory where it has none."""
    asked = gpus or Gpus()
    try:
        found: Any = asked.sample()
    finally:
        asked.close()
    for one in found if isinstance(found, list) else []:
        total, used = one["memory_total"], one["memory_used"]
        if not is_unknown(total):
            own = 0 if is_unknown(used) else int(used)
            return Device(str(one["name"]), int(total), int(total) - own, True)
    memory = psutil.virtual_memory()
    return Device("this machine's memory (no GPU)", memory.total, memory.available, False)
