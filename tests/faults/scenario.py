"""What a scenario is: a home made ready, and the acts that faults are put into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from queue_store.home import Home
from tests.faults.world import FaultWorld


@dataclass(frozen=True)
class Scenario:
    """`needs_world`: an engine's duties (loading the head) come before the act; otherwise the act
    gets the home alone. `damaged`: names of what `before` broke on purpose."""

    name: str
    before: Callable[[FaultWorld], None]
    act: Callable[[FaultWorld], None] | None = None
    bare: Callable[[Home], None] | None = None
    damaged: Callable[[Home], set[str]] = lambda home: set()
