"""A kill, a full disk and a broken disk at the Nth system call."""

from __future__ import annotations

import pytest

from tests.faults import strace
from tests.faults.parts import nothing_wrong, part
from tests.faults.scenarios import NAMES

pytestmark = pytest.mark.skipif(bool(strace.missing()), reason=strace.missing() or "strace works")


def test_the_order_of_calls_of_every_protocol_survives_a_power_cut() -> None:
    nothing_wrong(part("syscalls", "--every", 10**6))


@pytest.mark.parametrize("fault", ["kill", "full", "stays-full", "broken"])
def test_a_fault_at_some_calls_loses_nothing(fault: str) -> None:
    every = 60 if fault == "kill" else 30
    nothing_wrong(part("syscalls", "--every", every, "--fault", fault, "checkpoint", "inbox"))


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", NAMES)
def test_a_kill_at_every_call_loses_nothing(scenario: str) -> None:
    nothing_wrong(part("syscalls", "--fault", "kill", scenario))


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", NAMES)
def test_a_full_or_broken_disk_at_any_call_is_refused_and_loses_nothing(scenario: str) -> None:
    faults = [word for fault in ("full", "stays-full", "broken") for word in ("--fault", fault)]
    nothing_wrong(part("syscalls", "--every", 3, *faults, scenario))
