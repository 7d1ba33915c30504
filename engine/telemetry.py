"""What the machine does while it trains: GPUs by NVML, memory and processor by psutil.

Sampled a few times a minute on a thread of its own, so that a driver that hangs costs nobody but
this thread. Whoever asks gets the last sample, or the reason why there is none; never null.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from engine.messages import unknown

log = logging.getLogger("trainctl.telemetry")

INTERVAL = 2.0
STALE = 5
"""Samples that may be missed before what is shown counts as unknown."""

Nvml = Any
"""The module pynvml, or what a test puts in its place."""


class Gpus:
    """The GPUs through NVML, opened at the first look and again after it was lost."""

    def __init__(self, load: Callable[[], Nvml] | None = None) -> None:
        self._load = load or _pynvml
        self._nvml: Nvml | None = None

    def sample(self) -> list[dict[str, Any]] | dict[str, str]:
        """One object a GPU: name, utilization (%), memory_used and memory_total (bytes),
        temperature (degrees C), power (W). [] where there is no GPU or no NVIDIA driver; unknown
        with NVML's reason where it fails."""
        try:
            nvml = self._nvml or self._load()
        except ImportError as error:
            return unknown(f"NVML: {error}")
        try:
            if self._nvml is None:
                nvml.nvmlInit()
                self._nvml = nvml
            return [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as error:
            self.close()
            if _code(error) in (
                nvml.NVML_ERROR_LIBRARY_NOT_FOUND,
                nvml.NVML_ERROR_NOT_FOUND,
            ):
                return []
            return unknown(_reason(error))

    def close(self) -> None:
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError as error:
                log.info("closing NVML: %s", _reason(error))


def _pynvml() -> Nvml:
    import pynvml

    return pynvml


def _code(error: Exception) -> int:
    return int(getattr(error, "value", -1))


def _reason(error: Exception) -> str:
    return f"NVML: {error}"


def _gpu(nvml: Nvml, index: int) -> dict[str, Any]:
    """One GPU. What a card does not tell (power in a laptop, utilization of a MIG slice) is
    unknown on its own; an error about the card itself goes up."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except nvml.NVMLError as error:
            if _code(error) in (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_NO_PERMISSION,
                nvml.NVML_ERROR_INVALID_ARGUMENT,
            ):
                return unknown(_reason(error))
            raise

    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    failed = isinstance(memory, dict)
    return {
        "name": ask(lambda: _text(nvml.nvmlDeviceGetName(handle))),
        "utilization": ask(lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
        "memory_used": memory if failed else int(memory.used),
        "memory_total": memory if failed else int(memory.total),
        "temperature": ask(
            lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        ),
        "power": ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
    }


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class Machine:
    """Memory and processor of the machine and of this process, through psutil."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        # psutil measures use since the last call: the first one only starts the clock.
        psutil.cpu_percent()
        self._process.cpu_percent()

    def sample(self) -> dict[str, Any]:
        """{ram: {used, total, process} in bytes, cpu: {utilization, process, cores} in % (the
        process's share is of one core, so it may exceed 100)}."""
        memory = self._psutil.virtual_memory()
        return {
            "ram": {
                "used": memory.total - memory.available,
                "total": memory.total,
                "process": self._process.memory_info().rss,
            },
            "cpu": {
                "utilization": self._psutil.cpu_percent(),
                "process": self._process.cpu_percent(),
                "cores": self._psutil.cpu_count() or 1,
            },
        }


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
        """{gpus, ram, cpu} as the status has them, of the last sample. From any thread."""
        since = self._sampled if self._sampled is not None else self._began
        silent = self._clock() - since
        if self._thread is not None and silent > max(STALE * self._interval, 10):
            cards: Any = unknown(f"NVML has not answered for {silent:.0f} s")
        else:
            cards = self._cards
        return {"gpus": cards, **self._machine}

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
                self._cards = unknown(_reason(error))
            self._sampled = self._clock()
            self._stop.wait(self._interval)
        self._gpus.close()


def _nothing(why: str) -> dict[str, Any]:
    return {"ram": unknown(why), "cpu": unknown(why)}
