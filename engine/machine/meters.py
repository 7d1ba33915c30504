"""The last minutes of the machine: a bounded ring of samples, and its shape for faces.

Written by the telemetry's thread, read from any. Plain numbers, so that a thousand of them cost a
few kilobytes; what was not known at a moment is null there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from engine.messages import is_unknown

SAMPLES = 150
"""Kept, 2 s apart: five minutes, in which a loader that starves the GPU, a leak of memory or a
checkpoint's writing can be seen; at eight GPUs 20 kB of JSON, asked once in 2 s by each console."""

_GPU = ("utilization", "memory", "temperature", "power")
_MACHINE = ("cpu", "process_cpu", "ram", "swap", "process_memory", "written_per_second")


class History:
    """Samples, the oldest first. `number` of `shown` counts all that ever were, so that a face
    can put them in bins that do not move."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self._rows: deque[tuple[list[float | None], list[list[float | None]]]] = deque(
            maxlen=samples
        )
        self._number = 0
        self._time = 0.0
        self._guard = threading.Lock()

    def add(self, at: float, read: Mapping[str, Any]) -> None:
        """One sample of the telemetry: `read` has gpus, ram, cpu and process."""
        gpus = read["gpus"]
        row = (_machine(read), [_gpu(gpu) for gpu in gpus] if isinstance(gpus, list) else [])
        with self._guard:
            self._rows.append(row)
            self._number += 1
            self._time = at

    def shown(self, interval: float) -> dict[str, Any]:
        """{interval_seconds, number, time, cpu[], process_cpu[], ram[], swap[], process_memory[],
        written_per_second[], gpus[{utilization[], memory[], temperature[], power[]}]}.

        One value a sample, the oldest first: cpu, ram, swap, utilization and memory in per cent,
        process_cpu in per cent of one core, process_memory in bytes, temperature in degrees C,
        power in W; null where it was not known. `number` is that of the last sample, `time` when
        it was taken (seconds since the epoch).
        """
        with self._guard:
            rows, number, at = list(self._rows), self._number, self._time
        cards = max((len(gpus) for _, gpus in rows), default=0)
        return {
            "interval_seconds": interval,
            "number": number,
            "time": at,
            **{key: [machine[n] for machine, _ in rows] for n, key in enumerate(_MACHINE)},
            "gpus": [
                {
                    key: [gpus[card][n] if card < len(gpus) else None for _, gpus in rows]
                    for n, key in enumerate(_GPU)
                }
                for card in range(cards)
            ],
        }


def _machine(read: Mapping[str, Any]) -> list[float | None]:
    ram, cpu, process = (_part(read, key) for key in ("ram", "cpu", "process"))
    return [
        _number(cpu.get("utilization")),
        _number(process.get("cpu")),
        _share(ram.get("used"), ram.get("total")),
        _share(ram.get("swap_used"), ram.get("swap_total")),
        _number(process.get("memory")),
        _number(process.get("written_per_second")),
    ]


def _gpu(gpu: Mapping[str, Any]) -> list[float | None]:
    return [
        _number(gpu.get("utilization")),
        _share(gpu.get("memory_used"), gpu.get("memory_total")),
        _number(gpu.get("temperature")),
        _number(gpu.get("power")),
    ]


def _part(read: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = read.get(key)
    return part if isinstance(part, Mapping) and not is_unknown(part) else {}


def _number(value: Any) -> float | None:
    return round(float(value), 1) if isinstance(value, int | float) else None


def _share(used: Any, total: Any) -> float | None:
    a, b = _number(used), _number(total)
    return round(100 * a / b, 1) if a is not None and b else None
