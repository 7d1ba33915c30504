"""What the machine does while it trains: GPUs by NVML, memory and processor by psutil, now and
over the last minutes.

Sampled a few times a minute on a thread of its own, so that a driver that hangs costs nobody but
this thread. Whoever asks gets the last sample, or the reason why there is none; never null.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from engine.machine.gpus import Gpus, reason
from engine.machine.meters import History
from engine.messages import unknown

log = logging.getLogger("trainctl.telemetry")

INTERVAL = 2.0
STALE = 5
"""Samples that may be missed before what is shown counts as unknown."""


class Machine:
    """Memory and processor of the machine and of this process, through psutil."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._clock = clock
        # psutil measures use since the last call: the first one only starts the clock.
        psutil.cpu_percent()
        self._process.cpu_percent()
        self._moved = (clock(), *self._bytes())

    def sample(self) -> dict[str, Any]:
        """{ram: {used, total, process, swap_used, swap_total} in bytes, cpu: {utilization, process,
        cores} in % (the process's share is of one core, so it may exceed 100), process: {memory
        (resident bytes), cpu (as above), threads, read_per_second, written_per_second (bytes from
        and to the disk since the last sample)}}."""
        memory, swap = self._psutil.virtual_memory(), self._psutil.swap_memory()
        resident, share = self._process.memory_info().rss, self._process.cpu_percent()
        return {
            "ram": {
                "used": memory.total - memory.available,
                "total": memory.total,
                "process": resident,
                "swap_used": swap.used,
                "swap_total": swap.total,
            },
            "cpu": {
                "utilization": self._psutil.cpu_percent(),
                "process": share,
                "cores": self._psutil.cpu_count() or 1,
            },
            "process": {
                "memory": resident,
                "cpu": share,
                "threads": self._process.num_threads(),
                **self._speeds(),
            },
        }

    def _bytes(self) -> tuple[int | None, int | None]:
        """Bytes that this process ever read from and wrote to a disk; None where nobody counts."""
        try:
            moved = self._process.io_counters()
        except (self._psutil.Error, NotImplementedError, AttributeError, OSError):
            return None, None
        return moved.read_bytes, moved.write_bytes

    def _speeds(self) -> dict[str, Any]:
        before, now = self._moved, (self._clock(), *self._bytes())
        self._moved = now
        gone = now[0] - before[0]
        speeds: dict[str, Any] = {}
        for name, old, new in zip(("read", "written"), before[1:], now[1:], strict=True):
            speeds[f"{name}_per_second"] = (
                unknown("this system does not count it")
                if old is None or new is None or gone <= 0
                else (new - old) / gone
            )
        return speeds


class Telemetry:
    """Samples on a thread from `start` to `stop`; `latest` never waits for it."""

    def __init__(
        self,
        interval: float = INTERVAL,
        gpus: Gpus | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._gpus = gpus or Gpus()
        self._clock = clock
        self._history = History()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = clock()
        self._sampled: float | None = None
        # Two values, for NVML may hang while psutil does not: memory is sampled first.
        self._machine: dict[str, Any] = _nothing("not measured yet")
        self._cards: list[dict[str, Any]] | dict[str, str] = unknown("not measured yet")

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="trainctl-telemetry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End sampling; does not wait for a driver that hangs. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1)

    def latest(self) -> dict[str, Any]:
        """{gpus, ram, cpu, process} as the status has them, of the last sample. From any thread."""
        since = self._sampled if self._sampled is not None else self._began
        silent = self._clock() - since
        if self._thread is not None and silent > max(STALE * self._interval, 10):
            cards: Any = unknown(f"NVML has not answered for {silent:.0f} s")
        else:
            cards = self._cards
        return {"gpus": cards, **self._machine}

    def history(self) -> dict[str, Any]:
        """The last minutes; see meters.History.shown. From any thread."""
        return self._history.shown(self._interval)

    def _run(self) -> None:
        machine: Machine | None = None
        while not self._stop.is_set():
            try:
                machine = machine or Machine()
                self._machine = machine.sample()
            except Exception as error:
                log.exception("psutil failed")
                self._machine = _nothing(f"psutil: {error}")
            try:
                self._cards = self._gpus.sample()
            except Exception as error:
                log.exception("NVML failed")
                self._cards = unknown(reason(error))
            self._sampled = self._clock()
            self._history.add(time.time(), {"gpus": self._cards, **self._machine})
            self._stop.wait(self._interval)
        self._gpus.close()


def _nothing(why: str) -> dict[str, Any]:
    return {key: unknown(why) for key in ("ram", "cpu", "process")}
