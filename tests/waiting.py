"""Waiting for a condition with a deadline, so that no test sleeps a fixed time and hopes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LEAST = 120.0
"""Seconds that are waited at the least: on a busy machine a process of the lowest priority may get
no time for long, which is no fault."""
_never = threading.Event()


def wait_until(
    condition: Callable[[], T], timeout: float = 20.0, *, every: float = 0.02, what: str = ""
) -> T:
    """The first true value of `condition`, asked every `every` seconds.

    Raises AssertionError naming `what` once `timeout` seconds (LEAST or more) have passed.
    """
    timeout = max(timeout, LEAST)
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        _never.wait(every)
