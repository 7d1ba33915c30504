"""The meters say what the machine does, or why they do not know; never nothing."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.machine.gpus import Gpus
from engine.machine.meters import SAMPLES, History
from engine.machine.telemetry import Machine, Telemetry
from engine.messages import is_unknown
from tests.waiting import wait_until


class NVMLError(Exception):
    def __init__(self, value: int, text: str) -> None:
        super().__init__(text)
        self.value = value


class Card:
    """NVML's functions over described cards; `broken` {function: error} fail, and so do the cards
    in `lost`."""

    NVMLError = NVMLError
    NVML_ERROR_INVALID_ARGUMENT = 2
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16
    NVML_ERROR_UNKNOWN = 999
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, **broken: NVMLError) -> None:
        self.broken = broken
        self.opened = 0
        self.cards = 1
        self.lost: set[int] = set()
        self.throttled = 0
        self.running: list[Any] = []

    def _call(self, name: str, value: Any) -> Any:
        if name in self.broken:
            raise self.broken[name]
        return value

    def nvmlInit(self) -> None:
        self._call("init", None)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self._call("count", self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.lost:
            raise NVMLError(self.NVML_ERROR_GPU_IS_LOST, "GPU is lost")
        return self._call("handle", index)

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return self._call("name", b"A Card")

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return self._call("utilization", SimpleNamespace(gpu=91, memory=40))

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return self._call("memory", SimpleNamespace(used=19 << 30, total=24 << 30))

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return self._call("temperature", 64)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return self._call("power", 351_500)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return self._call("power_limit", 450_000)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return self._call("throttle", self.throttled)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        return self._call("processes", self.running)


def process(pid: int, memory: int | None) -> Any:
    return SimpleNamespace(pid=pid, usedGpuMemory=memory)


def test_a_card_is_described_in_the_promised_units() -> None:
    assert Gpus(lambda: Card()).sample() == [
        {
            "name": "A Card",
            "utilization": 91,
            "memory_used": 19 << 30,
            "memory_total": 24 << 30,
            "temperature": 64,
            "power": 351.5,
            "power_limit": 450.0,
            "throttle": [],
            "others": [],
        }
    ]


def test_without_a_driver_there_are_no_gpus_and_that_is_no_error() -> None:
    card = Card(init=NVMLError(12, "NVML Shared Library Not Found"))
    assert Gpus(lambda: card).sample() == []
    assert Gpus(lambda: Card(count=NVMLError(6, "Not Found"))).sample() == []


def test_an_nvml_error_shows_its_reason_and_the_next_look_opens_it_again() -> None:
    card = Card(count=NVMLError(15, "GPU is lost"))
    gpus = Gpus(lambda: card)
    assert gpus.sample() == {"unknown": "NVML: GPU is lost"}
    assert card.opened == 0
    card.broken.clear()
    assert isinstance(gpus.sample(), list)
    assert card.opened == 1
    gpus.close()
    assert card.opened == 0


def test_what_a_card_does_not_tell_is_unknown_by_itself() -> None:
    card = Card(power=NVMLError(3, "Not Supported"), memory=NVMLError(4, "No Permission"))
    (found,) = Gpus(lambda: card).sample()
    assert found["power"] == {"unknown": "NVML: Not Supported"}
    assert found["memory_used"] == {"unknown": "NVML: No Permission"}
    assert found["utilization"] == 91


def test_a_card_that_falls_off_the_bus_says_so_and_hides_no_other() -> None:
    card = Card()
    card.cards = 8
    gpus = Gpus(lambda: card)
    gpus.sample()
    card.lost = {3}
    found = gpus.sample()
    assert isinstance(found, list) and len(found) == 8
    assert all(value == {"unknown": "NVML: GPU is lost"} for value in found[3].values())
    assert set(found[3]) == set(found[0])
    assert [gpu["utilization"] for gpu in found if gpu is not found[3]] == [91] * 7
    assert card.opened == 1, "NVML is not opened anew for every sample"
    # Falling off between two questions about it.
    card.lost, card.broken = set(), {"temperature": NVMLError(999, "Unknown Error")}
    (*_, last) = gpus.sample()
    assert last["temperature"] == {"unknown": "NVML: Unknown Error"} and last["power"] == 351.5


def test_what_holds_the_clocks_down_is_named_and_an_idle_card_is_not_throttled() -> None:
    card = Card()
    card.throttled = 0x1 | 0x4 | 0x40
    (found,) = Gpus(lambda: card).sample()
    assert found["throttle"] == ["sw_power_cap", "hw_thermal_slowdown"]
    card.throttled = 0x1
    assert Gpus(lambda: card).sample()[0]["throttle"] == []
    card.broken = {"throttle": NVMLError(13, "Function Not Found")}
    assert "unknown" in Gpus(lambda: card).sample()[0]["throttle"]


def test_processes_of_others_on_a_card_are_named_and_this_one_is_not() -> None:
    card = Card()
    nobody = 2**22 + 5
    card.running = [process(os.getpid(), 5 << 30), process(os.getppid(), None)]
    (found,) = Gpus(lambda: card).sample()
    (other,) = found["others"]
    assert other["pid"] == os.getppid() and isinstance(other["name"], str)
    assert is_unknown(other["memory"])
    # In a container the pids are the host's: one that cannot be seen is this process.
    card.running = [process(nobody, 5 << 30)]
    assert Gpus(lambda: card).sample()[0]["others"] == []
    card.running = [process(nobody, 5 << 30), process(nobody + 1, 1 << 30)]
    (other,) = Gpus(lambda: card).sample()[0]["others"]
    assert other["pid"] == nobody + 1 and is_unknown(other["name"])


def test_a_missing_package_is_a_reason() -> None:
    def missing() -> Any:
        raise ImportError("no module named pynvml")

    assert Gpus(missing).sample() == {"unknown": "NVML: no module named pynvml"}


def test_the_real_nvml_answers_with_cards_or_a_reason() -> None:
    gpus = Gpus()
    found = gpus.sample()
    gpus.close()
    if isinstance(found, dict):
        assert is_unknown(found)
    else:
        assert all(card["name"] for card in found)


@pytest.mark.gpu
def test_a_gpu_is_metered() -> None:
    gpus = Gpus()
    found = gpus.sample()
    gpus.close()
    assert isinstance(found, list)
    assert found
    assert found[0]["memory_total"] > 0
    assert all(value is not None for card in found for value in card.values())
    assert isinstance(found[0]["throttle"], list)


def test_memory_and_processor_are_those_of_this_machine() -> None:
    found = Machine().sample()
    assert 0 < found["ram"]["process"] < found["ram"]["used"] < found["ram"]["total"]
    assert found["cpu"]["cores"] >= 1
    assert found["ram"]["swap_used"] <= found["ram"]["swap_total"]
    assert found["process"]["threads"] >= 1
    assert found["process"]["memory"] == found["ram"]["process"]


def test_the_speed_of_writing_is_that_since_the_last_sample(tmp_path: Path) -> None:
    now = [0.0]
    machine = Machine(clock=lambda: now[0])
    with (tmp_path / "f").open("wb") as file:
        file.write(b"x" * (8 << 20))
        file.flush()
        os.fsync(file.fileno())
    now[0] = 2.0
    speed = machine.sample()["process"]["written_per_second"]
    if not is_unknown(speed):  # a file system that is memory counts nothing
        assert speed == 0 or (8 << 20) / 2 <= speed < 64 << 20


def test_the_meters_are_filled_by_a_thread_and_say_so_before() -> None:
    telemetry = Telemetry(interval=0.01, gpus=Gpus(lambda: Card()))
    before = telemetry.latest()
    assert is_unknown(before["gpus"])
    assert is_unknown(before["ram"])
    telemetry.start()
    wait_until(lambda: isinstance(telemetry.latest()["gpus"], list), 10, what="a sample")
    assert telemetry.latest()["ram"]["total"] > 0
    telemetry.stop()
    assert telemetry.latest()["gpus"][0]["name"] == "A Card"


def test_the_last_minutes_are_kept_and_no_more() -> None:
    history = History(samples=3)
    assert history.shown(2.0)["number"] == 0 and history.shown(2.0)["gpus"] == []
    machine = {
        "ram": {"used": 1, "total": 4, "swap_used": 0, "swap_total": 0},
        "cpu": {"utilization": 50.0},
        "process": {"cpu": 100.0, "memory": 7, "written_per_second": {"unknown": "no"}},
    }
    card = {"utilization": 90, "memory_used": 3, "memory_total": 4, "temperature": 60, "power": 9}
    history.add(1.0, {"gpus": {"unknown": "not measured yet"}, **machine})
    for n in range(3):
        lost = {key: {"unknown": "GPU is lost"} for key in card}
        history.add(2.0 + n, {"gpus": [card, lost] if n else [card], **machine})
    shown = history.shown(2.0)
    assert (shown["number"], shown["time"], shown["interval_seconds"]) == (4, 4.0, 2.0)
    assert shown["cpu"] == [50.0] * 3 and shown["ram"] == [25.0] * 3
    assert shown["swap"] == [None] * 3 and shown["written_per_second"] == [None] * 3
    assert shown["gpus"][0]["memory"] == [75.0] * 3
    assert shown["gpus"][1]["utilization"] == [None] * 3


def test_history_of_eight_gpus_stays_small() -> None:
    card = Card()
    card.cards = 8
    history = History()
    read = {"gpus": Gpus(lambda: card).sample(), **Machine().sample()}
    for n in range(SAMPLES + 50):
        history.add(float(n), read)
    shown = history.shown(2.0)
    assert len(shown["cpu"]) == SAMPLES and shown["number"] == SAMPLES + 50
    assert len(json.dumps(shown)) < 40_000


def test_the_telemetry_keeps_what_it_sampled() -> None:
    telemetry = Telemetry(interval=0.01, gpus=Gpus(lambda: Card()))
    telemetry.start()
    wait_until(lambda: telemetry.history()["number"] >= 3, 10, what="three samples")
    telemetry.stop()
    found = telemetry.history()
    assert found["gpus"][0]["utilization"][-1] == 91 and found["ram"][-1] > 0


def test_a_driver_that_hangs_costs_the_caller_nothing_and_becomes_unknown() -> None:
    release = threading.Event()
    entered = threading.Event()
    now = [0.0]

    class Hanging(Card):
        def nvmlDeviceGetCount(self) -> int:
            entered.set()
            release.wait(120)
            return 0

    telemetry = Telemetry(interval=0.01, gpus=Gpus(lambda: Hanging()), clock=lambda: now[0])
    telemetry.start()
    assert entered.wait(120)
    now[0] = 100.0
    found = telemetry.latest()
    assert found["gpus"] == {"unknown": "NVML has not answered for 100 s"}
    assert found["ram"]["total"] > 0
    release.set()
    telemetry.stop()


def test_a_defect_in_the_driver_binding_does_not_end_the_meters() -> None:
    class Broken(Card):
        def nvmlDeviceGetCount(self) -> int:
            raise ValueError("odd")

    telemetry = Telemetry(interval=0.01, gpus=Gpus(lambda: Broken()))
    telemetry.start()
    wait_until(lambda: telemetry.latest()["gpus"] == {"unknown": "NVML: odd"}, 10, what="reason")
    telemetry.stop()
