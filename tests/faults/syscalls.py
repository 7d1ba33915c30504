"""A kill, a full disk or a broken one at every system call of every protocol.

    python -m tests.faults.syscalls [--fault kill|full|stays-full|broken] [--every N] [SCENARIO…]

Prints one JSON object a point: {scenario, fault, point, wrong[]}. Needs strace.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from typing import Any

from tests.faults import order, strace
from tests.faults.bench import Bench, aftermath, scratch
from tests.faults.scenarios import NAMES, Scenario, perform
from tests.faults.world import ears, one_thread

WRITES = ("write", "pwrite64", "mkdir", "mkdirat", "ftruncate", "linkat", "link")
SYNCS = ("fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat")
FAULTS = {
    "kill": ("signal=KILL:when={n}", strace.CHANGING),
    "full": ("error=ENOSPC:when={n}", WRITES),
    "stays-full": ("error=ENOSPC:when={n}+", WRITES),
    "broken": ("error=EIO:when={n}", (*WRITES, *SYNCS)),
}
"""What strace is told, and the calls to which it can happen."""


def undisturbed(bench: Bench, scenario: Scenario) -> tuple[list[strace.Call], list[str]]:
    """The calls that an act makes, and what is wrong with their order."""
    template, before = bench.template(scenario)
    root = bench.copy(template)
    with ears() as heard:
        ended, calls = strace.run(lambda: perform(scenario, root), heard)
        acks = before + heard.listen()
    wrong = [] if ended == 0 else [f"it ends with {ended}"]
    wrong += order.problems(calls, str(root))
    wrong += aftermath(root, acks, scenario)
    shutil.rmtree(root)
    return calls, wrong


def with_fault(bench: Bench, scenario: Scenario, point: str) -> list[str]:
    """Perform the act with a fault in it; what is wrong afterwards."""
    template, before = bench.template(scenario)
    root = bench.copy(template)
    with ears() as heard:
        ended, _ = strace.run(lambda: perform(scenario, root), heard, point)
        acks = before + heard.listen()
    wrong = []
    if "KILL" in point and ended != -signal.SIGKILL:
        wrong = [f"it was not killed: {ended}"]
    if "KILL" not in point and ended not in (0, strace.REFUSED):
        wrong = [f"it was not refused cleanly: {ended}"]
    wrong += aftermath(root, acks, scenario)
    shutil.rmtree(root)
    return wrong


def sweep(bench: Bench, scenario: Scenario, faults: list[str], every: int) -> Iterator[Any]:
    calls, wrong = undisturbed(bench, scenario)
    yield {"scenario": scenario.name, "fault": "none", "point": "order", "wrong": wrong}
    for number, fault in enumerate(faults):
        offset = (sum(map(ord, scenario.name)) + number) % every
        for point in strace.points(calls, *FAULTS[fault])[offset::every]:
            wrong = with_fault(bench, scenario, point)
            yield {"scenario": scenario.name, "fault": fault, "point": point, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS))
    parser.add_argument("--every", type=int, default=1, help="only each Nth point")
    given = parser.parse_args()
    one_thread()
    with scratch() as folder:
        bench = Bench(folder)
        for name in given.scenarios or list(NAMES):
            for told in sweep(bench, NAMES[name], given.fault or list(FAULTS), given.every):
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.exit(main())
