"""The meters say what the machine does, or why they do not know; never nothing."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from engine.messages import is_unknown
from engine.telemetry import Gpus, Machine, Telemetry
from tests.waiting import wait_until


class NVMLError(Exception):
    def __init__(self, value: int, text: str) -> None:
        super().__init__(text)
        self.value = value


class Card:
    """NVML's functions over one described card; `broken` {function: error} fail."""

    NVMLError = NVMLError
    NVML_ERROR_INVALID_ARGUMENT = 2
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, **broken: NVMLError) -> None:
        self.broken = broken
        self.opened = 0

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
        return self._call("count", 1)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
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


def test_a_card_is_described_in_the_promised_units() -> None:
    assert Gpus(lambda: Card()).sample() == [
        {
            "name": "A Card",
            "utilization": 91,
            "memory_used": 19 << 30,
            "memory_total": 24 << 30,
            "temperature": 64,
            "power": 351.5,
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


def test_memory_and_processor_are_those_of_this_machine() -> None:
    found = Machine().sample()
    assert 0 < found["ram"]["process"] < found["ram"]["used"] < found["ram"]["total"]
    assert found["cpu"]["cores"] >= 1


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


def test_a_driver_that_hangs_costs_the_caller_nothing_and_becomes_unknown() -> None:
    release = threading.Event()
    entered = threading.Event()
    now = [0.0]

    class Hanging(Card):
        def nvmlDeviceGetCount(self) -> int:
            entered.set()
            release.wait(30)
            return 0

    telemetry = Telemetry(interval=0.01, gpus=Gpus(lambda: Hanging()), clock=lambda: now[0])
    telemetry.start()
    assert entered.wait(10)
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
