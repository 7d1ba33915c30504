"""A worker here takes no more of the processor than it may, and is never left stopped."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from evaluation.host import pace
from evaluation.host.pace import BURST, Pace
from tests.waiting import wait_until


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes all it gets."""
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield child
    child.kill()
    child.wait()


def used(child: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)


def stands(child: subprocess.Popen[bytes]) -> bool:
    return psutil.Process(child.pid).status() == psutil.STATUS_STOPPED


def test_it_is_held_to_its_limit_and_let_go_again(busy: subprocess.Popen[bytes]) -> None:
    limit: list[float | None] = [0.05]
    pace = Pace(busy, lambda: limit[0])
    began = time.monotonic()
    wait_until(lambda: stands(busy), timeout=30)
    wait_until(lambda: time.monotonic() - began > 3, timeout=10)
    assert used(busy) <= 0.05 * (time.monotonic() - began) + 2 * BURST + 0.1
    limit[0] = None
    before = used(busy)
    wait_until(lambda: used(busy) > before + 0.5, timeout=60)
    limit[0] = 0.01
    wait_until(lambda: stands(busy), timeout=30)
    pace.close()
    assert not stands(busy)
    pace.close()


def test_of_cores_that_train_it_has_the_share_of_one_and_the_others_whole() -> None:
    assert pace.beside(0.05, cores=2, threads=2) == pace.beside(0.05, cores=1, threads=4) == 0.05
    assert pace.beside(0.05, cores=8, threads=6) == pytest.approx(2.05)


def test_the_end_of_the_child_ends_the_watch(busy: subprocess.Popen[bytes]) -> None:
    pace = Pace(busy, lambda: 0.01)
    wait_until(lambda: stands(busy), timeout=30)
    busy.kill()
    busy.wait()
    wait_until(lambda: not pace._thread.is_alive())
    pace.close()
