"""SIGKILL at every crash point of every protocol, and at every one of the recovery after it.

    python -m tests.faults.kills [--every N] [--recovery] [--trace] [SCENARIO…]

Prints one JSON object a point: {scenario, point, wrong[]}; then {passed: [names]}. A process of
its own, that forks: nothing is imported twice.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from queue_store.home import Home
from tests.faults.bench import Bench, aftermath, forked, listened, points_of, scratch
from tests.faults.scenarios import NAMES, Scenario, perform
from tests.faults.world import ears, one_thread, recover


def at_each_point(bench: Bench, scenario: Scenario, points: list[str]) -> Iterator[dict[str, Any]]:
    """Kill the act at each of the points, on a home of its own."""
    template, before = bench.template(scenario)
    for point in points:
        root = bench.copy(template)
        with ears() as heard:
            ended = forked(lambda root=root: perform(scenario, root), heard, point)  # type: ignore[misc]
            acks = before + heard.listen()
        told: dict[str, Any] = {"scenario": scenario.name, "point": point, "ended": ended}
        told["wrong"] = [] if ended == -signal.SIGKILL else [f"it was not killed: {ended}"]
        told["left"] = bench.copy(root)
        told["acks"] = acks
        told["wrong"] += aftermath(root, acks, scenario)
        shutil.rmtree(root)
        yield told


def inside_recovery(bench: Bench, scenario: Scenario, left: Path, acks: Any) -> Iterator[Any]:
    """Kill the recovery of a home that a kill left, at each of its own points."""
    tried = bench.copy(left)
    passed, _ = listened(lambda: recover(Home(tried)))
    shutil.rmtree(tried)
    for point in passed:
        root = bench.copy(left)
        ended = forked(lambda root=root: recover(Home(root)), None, point)  # type: ignore[misc]
        wrong = [] if ended == -signal.SIGKILL else [f"recovery was not killed: {ended}"]
        yield point, wrong + aftermath(root, acks, scenario)
        shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=list(NAMES))
    parser.add_argument("--every", type=int, default=1, help="only each Nth point")
    parser.add_argument("--recovery", action="store_true", help="kill the recoveries too")
    parser.add_argument("--trace", action="store_true", help="no kills: only the points passed")
    given = parser.parse_args()
    one_thread()
    passed: set[str] = set()
    with scratch() as folder:
        bench = Bench(folder)
        for number, name in enumerate(given.scenarios or list(NAMES)):
            scenario = NAMES[name]
            points = points_of(bench, scenario)
            passed |= {point.rpartition(":")[0] for point in points}
            told: dict[str, Any] = {"scenario": name, "point": "undisturbed", "wrong": []}
            print(json.dumps(told), flush=True)
            first = number % max(1, min(given.every, len(points)))
            chosen = [] if given.trace else points[first :: given.every]
            for told in at_each_point(bench, scenario, chosen):
                left, acks = told.pop("left"), told.pop("acks")
                print(json.dumps(told), flush=True)
                if given.recovery:
                    for point, wrong in inside_recovery(bench, scenario, left, acks):
                        passed.add(point.rpartition(":")[0])
                        told |= {"point": f"{told['point']} > {point}", "wrong": wrong}
                        print(json.dumps(told), flush=True)
                        told["point"] = told["point"].partition(" > ")[0]
                shutil.rmtree(left)
    print(json.dumps({"passed": sorted(passed)}))


if __name__ == "__main__":
    sys.exit(main())
