"""What the card and the process take while something runs, and how fast the card multiplies."""

from __future__ import annotations

import threading
import time
from typing import Any

import psutil
import torch

from engine.machine.gpus import Gpus

EVERY = 0.05
"""Seconds between two looks at NVML and at the process."""
SIDE = {"cuda": 8192, "cpu": 512}
"""Rows of the square matrices that are multiplied."""
TIMES = 20


def is_card(device: str) -> bool:
    return device != "cpu"


def name(device: str) -> str:
    return torch.cuda.get_device_name(device) if is_card(device) else "no card (CPU)"


def total(device: str) -> int:
    """Bytes of the card, or of the machine."""
    if is_card(device):
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def context(device: str, before: int | None) -> int:
    """Bytes of the card by NVML that this process takes beside torch's allocator, over the `before`
    that others had; of paged memory what lies there, so give that back first."""
    gpus = Gpus()
    used = used_of_card(gpus) if is_card(device) else None
    gpus.close()
    if before is None or used is None:
        return 0
    return max(0, used - before - int(torch.cuda.memory_reserved(device)))


def wait(device: str) -> None:
    if is_card(device):
        torch.cuda.synchronize(device)


def matrix_peak(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large product of matrices, the best of TIMES."""
    side = SIDE["cuda" if is_card(device) else "cpu"]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(TIMES):
        wait(device)
        started = time.perf_counter()
        a @ b
        wait(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * side**3 / best


class Peaks:
    """The most that is taken while the context lasts, bytes: `allocated` and `reserved` by torch's
    allocator, `card` by NVML over what was taken before the process began (all None without a
    card), `host` resident memory of the process."""

    def __init__(self, device: str, before: int | None) -> None:
        self.device, self._before = device, before
        self.allocated: int | None = None
        self.reserved: int | None = None
        self.card: int | None = None
        self.host = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._gpus = Gpus()

    def __enter__(self) -> Peaks:
        if is_card(self.device):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if is_card(self.device):
            self.allocated = int(torch.cuda.max_memory_allocated(self.device))
            self.reserved = int(torch.cuda.max_memory_reserved(self.device))
        self._end.set()
        self._thread.join()
        self._gpus.close()

    def _look(self) -> None:
        process = psutil.Process()
        while True:
            self.host = max(self.host, process.memory_info().rss)
            used = used_of_card(self._gpus) if self._before is not None else None
            if used is not None and self._before is not None:
                self.card = max(self.card or 0, used - self._before)
            if self._end.wait(EVERY):
                return


def used_of_card(gpus: Gpus) -> int | None:
    """Bytes of the first card that are taken, by anybody; None where NVML does not tell."""
    found: Any = gpus.sample()
    used = found[0]["memory_used"] if isinstance(found, list) and found else None
    return used if isinstance(used, int) else None
