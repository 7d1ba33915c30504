"""The GPUs through NVML: use, memory, temperature, power, what holds their clocks down, and who
else computes on them.

Reads only. What a card does not tell is unknown on its own with NVML's reason; a card that fell
off the bus says so and hides no other.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from engine.messages import is_unknown, unknown

log = logging.getLogger("trainctl.telemetry")

Nvml = Any
"""The module pynvml, or what a test puts in its place."""

THROTTLE = {
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
}
"""NVML's bits of what holds the clocks down, under the names of `nvidia-smi -q`. Left out: an idle
card, clocks that a person set, and those that follow another card or a display."""

OTHERS = 8
"""Most processes named a card: the list goes out with every status."""


class Gpus:
    """The GPUs through NVML, opened at the first look and again after it was lost."""

    def __init__(self, load: Callable[[], Nvml] | None = None) -> None:
        self._load = load or _pynvml
        self._nvml: Nvml | None = None

    def sample(self) -> list[dict[str, Any]] | dict[str, str]:
        """One object a GPU: name, utilization (%), memory_used and memory_total (bytes),
        temperature (degrees C), power and power_limit (W), throttle (names of THROTTLE), others
        (processes that are not this one: [{pid, name, memory}]). [] where there is no GPU or no
        NVIDIA driver; unknown with NVML's reason where it fails."""
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
            return unknown(reason(error))

    def close(self) -> None:
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError as error:
                log.info("closing NVML: %s", reason(error))


def _pynvml() -> Nvml:
    import pynvml

    return pynvml


def _code(error: Exception) -> int:
    return int(getattr(error, "value", -1))


def reason(error: Exception) -> str:
    """An error of NVML in words."""
    return f"NVML: {error}"


def _gpu(nvml: Nvml, index: int) -> dict[str, Any]:
    """One GPU. What a card does not tell (power in a laptop, utilization of a MIG slice) is
    unknown on its own, and so is all of a card that is lost: the others go on. Any other error
    is NVML's own and goes up."""
    lost = (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED, nvml.NVML_ERROR_UNKNOWN)
    passed_over = (
        nvml.NVML_ERROR_NOT_SUPPORTED,
        nvml.NVML_ERROR_NO_PERMISSION,
        nvml.NVML_ERROR_INVALID_ARGUMENT,
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND,  # an old driver
        *lost,
    )

    def ask(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except nvml.NVMLError as error:
            if _code(error) in passed_over:
                return unknown(reason(error))
            raise

    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        if _code(error) not in lost:
            raise
        return dict.fromkeys(_FIELDS, unknown(reason(error)))
    memory = ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    failed = is_unknown(memory)
    bits = ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)))
    running = ask(lambda: list(nvml.nvmlDeviceGetComputeRunningProcesses(handle)))
    values = (
        ask(lambda: _text(nvml.nvmlDeviceGetName(handle))),
        ask(lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
        memory if failed else int(memory.used),
        memory if failed else int(memory.total),
        ask(lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
        bits if is_unknown(bits) else [name for bit, name in THROTTLE.items() if bits & bit],
        running if is_unknown(running) else _others(running),
    )
    return dict(zip(_FIELDS, values, strict=True))


_FIELDS = (
    *("name", "utilization", "memory_used", "memory_total", "temperature", "power"),
    *("power_limit", "throttle", "others"),
)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _others(running: list[Any]) -> list[dict[str, Any]]:
    """The processes on a card that are not this one, the largest first.

    Inside a container NVML may tell pids of the host: where this process is not among them, one
    that cannot be seen from here is taken for it.
    """
    mine = os.getpid()
    running = [process for process in running if not _rank_of(process.pid, mine)]
    here = any(process.pid == mine for process in running)
    found = []
    for process in sorted(running, key=lambda process: -(process.usedGpuMemory or 0)):
        if process.pid == mine:
            continue
        name = _process_name(process.pid)
        if name is None and not here:
            here = True
            continue
        found.append(
            {
                "pid": int(process.pid),
                "name": name or unknown("it runs outside of this container"),
                "memory": int(process.usedGpuMemory)
                if process.usedGpuMemory
                else unknown("NVML does not tell"),
            }
        )
    return found[:OTHERS]


def _rank_of(pid: int, engine: int) -> bool:
    """Whether a process trains for the engine: a rank that its agent started."""
    import psutil

    try:
        return any(one.pid == engine for one in psutil.Process(pid).parents())
    except psutil.Error:
        return False


def _process_name(pid: int) -> str | None:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.AccessDenied:
        return f"pid {pid}"
    except psutil.Error:
        return None
