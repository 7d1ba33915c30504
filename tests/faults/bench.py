"""Homes made ready once and copied, acts in forks, and what must hold after each fault.

`aftermath` is the judgement: the independent checker before recovery, after it, after a second
one that must do nothing, and after everything that is left was trained to its end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from queue_store import queue
from queue_store.database import open_state
from queue_store.home import Home
from tests.faults import outside
from tests.faults.checker import check
from tests.faults.looked import Ack
from tests.faults.scenarios import Scenario, perform, prepare
from tests.faults.world import EARS, Ears, FaultWorld, ears, expected_model, recover, traced

ROOT = Path(__file__).resolve().parents[2]
MEMORY = Path("/dev/shm")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for homes, in memory where that is possible: a kill takes nothing that was
    written, so that a disk would only make it slower."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="trainctl-faults-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Bench:
    """Templates of scenarios under one folder, and copies of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ready: dict[str, tuple[Path, list[Ack]]] = {}
        self._count = 0

    def template(self, scenario: Scenario) -> tuple[Path, list[Ack]]:
        """The home before the act, and what was acknowledged while it was made."""
        if scenario.name not in self._ready:
            root = self.folder / f"template-{scenario.name}"
            with ears() as heard:
                code = forked(lambda: prepare(scenario, root), heard)
                assert code == 0, f"{scenario.name} cannot be made ready: {code}"
                self._ready[scenario.name] = root, heard.listen()
        return self._ready[scenario.name]

    def copy(self, root: Path) -> Path:
        """Another home with the same bytes, and the same links between them."""
        self._count += 1
        target = self.folder / f"home-{self._count}"
        subprocess.run(["cp", "-a", "--", str(root), str(target)], check=True)
        return target


def forked(act: Callable[[], object], heard: Ears | None = None, point: str = "") -> int:
    """Run `act` in a child, killed at a crash point if one is named: its exit code, or minus the
    signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["TRAINCTL_CRASH_AT"] = point
            if heard is not None:
                os.environ[EARS] = str(heard.fd)
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def points_of(bench: Bench, scenario: Scenario) -> list[str]:
    """The crash points that an undisturbed act passes, each pass of it; the act must end well."""
    root, acks = bench.template(scenario)
    home = bench.copy(root)
    passed, code = listened(lambda: perform(scenario, home))
    assert code == 0, f"{scenario.name} does not work undisturbed"
    wrong = aftermath(home, acks, scenario)
    assert not wrong, f"{scenario.name} undisturbed: {wrong}"
    shutil.rmtree(home)
    return passed


def listened(act: Callable[[], object]) -> tuple[list[str], int]:
    """The crash points that `act` passes in a child, and how the child ended."""
    reading, writing = os.pipe()

    def told() -> None:
        passed: list[str] = []
        try:
            passed += traced(lambda: (act(), None)[1])
        finally:
            os.write(writing, "\n".join(passed).encode())

    code = forked(told)
    os.close(writing)
    with os.fdopen(reading) as file:
        return file.read().split(), code


def aftermath(root: Path, acks: Iterable[Ack], scenario: Scenario | None = None) -> list[str]:
    """What is wrong after a fault: at once, recovered, recovered again, and trained to the end."""
    home, acks = Home(root), list(acks)
    damaged = scenario.damaged(home) if scenario else set()
    wrong = [f"at once {v}" for v in check(root, acks, recovered=False, damaged=damaged)]
    if forked(lambda: recover(home)):
        return [*wrong, "recovery fails"]
    wrong += [f"recovered {v}" for v in check(root, acks, damaged=damaged)]
    before = outside.picture(root)
    if forked(lambda: recover(home)):
        return [*wrong, "a second recovery fails"]
    after = outside.picture(root)
    wrong += [f"recovery is not idempotent: {k}" for k in differing(before, after)]
    if forked(lambda: finish(root)):
        return [*wrong, "what is left cannot be trained"]
    return wrong + [f"trained {v}" for v in check(root, acks, damaged=damaged)]


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))


def finish(root: Path) -> None:
    """An engine that trains and verifies all that is left, in a process of its own. Raises where
    something is left, or the weights are not those of the rows that trained."""
    world = FaultWorld(root)
    with world.state.transaction() as db:
        db.execute("UPDATE items SET not_before = 0")  # as if the seconds had passed
    world.train_all()
    world.verify_all()
    left = [i for i in queue.items(world.state) if i.state not in ("done", "skipped", "failed")]
    world.close()
    assert not left, left
    expected, has = expected_model(Home(root))
    assert expected == has, "the weights are not those of the rows that trained"
    with open_state(Home(root)) as state:
        assert not recoverable(state.home), "a clean end leaves something to recover"


def recoverable(home: Home) -> list[str]:
    return recover(home)
