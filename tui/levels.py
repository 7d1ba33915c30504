"""From where on a meter warns: `!` look at it, `!!` it will stop training or damage work.

Each limit with its reason; told by glyph, and by colour beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.figures import known, real

CALM, LOOK, ACT = "", "!", "!!"
TONES = {CALM: "good", LOOK: "warn", ACT: "bad"}

GPU_MEMORY = (0.95, 0.98)
"""Shares of a card's memory. Above 95 % a longer row or a validation tick may not fit; in the last
2 % (half a gigabyte of 24) the allocator itself has no room to move."""
GPU_DEGREES = (83, 90)
"""Degrees C. From 83 on cards of the GeForce line lower their clocks; at 90 most of all lines are
within a few degrees of the slowdown that halves them."""
RAM = (0.90, 0.96)
"""Shares of the machine's memory. A checkpoint beside training takes a copy of the weights, which a
tenth must be left for; in the last 4 % the kernel begins to kill."""
SWAP = (0.25, 0.75)
"""Shares of the swap space: some of it is always used by what sleeps; a quarter is what trains."""
DISK = (0.95, 0.99)
"""Shares of the disk, where the size of a checkpoint is not known yet."""
SNAPSHOTS_LEFT = (5, 2)
"""Snapshots that still fit: retention frees some of five, with two the next saves stop training."""
HOT = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown")
"""The card's own emergency brakes: heat or power that it was not built for."""
WARM = ("sw_thermal_slowdown",)
"""The driver keeps it cool. `sw_power_cap` warns of nothing: a card in full use runs at its cap."""


def level(value: float | None, limits: tuple[float, float]) -> str:
    """`!`, `!!` or "" for a value that warns from limits[0] and from limits[1] on."""
    if value is None:
        return CALM
    return ACT if value >= limits[1] else LOOK if value >= limits[0] else CALM


def worst(*levels: str) -> str:
    return max(levels, key=len, default=CALM)


def share(used: Any, total: Any) -> float | None:
    """`used` of `total`, None where one is not known."""
    a, b = real(used), real(total)
    return a / b if a is not None and b else None


def throttle(gpu: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How bad what holds a card's clocks down is, and its names."""
    names = gpu.get("throttle")
    found = [str(name) for name in names] if isinstance(names, list) else []
    if any(name in HOT for name in found):
        return ACT, found
    return (LOOK if any(name in WARM for name in found) else CALM), found


def gpu_level(gpu: Mapping[str, Any]) -> str:
    """The worst of a card's memory, temperature and throttling."""
    return worst(
        level(share(gpu.get("memory_used"), gpu.get("memory_total")), GPU_MEMORY),
        level(real(gpu.get("temperature")), GPU_DEGREES),
        throttle(gpu)[0],
    )


def disk_level(disk: Mapping[str, Any]) -> str:
    """By the snapshots that still fit; by the share that is used where that is not known."""
    left = disk.get("snapshots_left")
    if known(left):
        number = real(left)
        if number is None:
            return CALM
        return ACT if number < SNAPSHOTS_LEFT[1] else LOOK if number < SNAPSHOTS_LEFT[0] else CALM
    free = share(disk.get("free"), disk.get("total"))
    return level(None if free is None else 1 - free, DISK)
