"""An engine that is killed again and again, with a row more each time: nothing fails by that.

    python -m tests.faults.restarts

Prints one JSON object, {scenario, point, wrong[]}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from queue_store import queue
from queue_store.database import open_state
from queue_store.home import Home
from tests.faults.bench import aftermath, forked, scratch
from tests.faults.scenarios import empty
from tests.faults.world import FaultWorld, ears, one_thread, recover

TIMES = 6


def begin(root: Path) -> None:
    world = FaultWorld(root)
    empty(world)
    world.queued("a.jsonl")
    world.close()


def steps_and_dies(root: Path, further: int) -> None:
    recover(Home(root))
    world = FaultWorld(root)
    item = world.claim()
    assert item is not None, "nothing is left to train"
    world.steps(item, further)
    world.saved(item)
    os.kill(os.getpid(), signal.SIGKILL)


def killed_on_and_on(root: Path) -> list[str]:
    """What is wrong with a home whose engine died TIMES times."""
    with ears() as heard:
        ends = [forked(lambda: begin(root), heard)]
        ends += [
            forked(lambda n=n: steps_and_dies(root, n), heard)  # type: ignore[misc]
            for n in range(1, TIMES + 1)
        ]
        wrong = [] if ends == [0, *[-signal.SIGKILL] * TIMES] else [f"they ended with {ends}"]
        wrong += aftermath(root, heard.listen())
    with open_state(Home(root)) as state:
        wrong += [f"{one.name} is {one.state}" for one in queue.items(state) if one.state != "done"]
        counted = [a for a in queue.attempts(state, 1) if a.cause not in ("restart", "trained")]
        wrong += [f"a restart counts as {a.cause}" for a in counted]
    return wrong


def main() -> None:
    one_thread()
    with scratch() as folder:
        told = {"scenario": "restarts", "point": f"{TIMES} kills"}
        print(json.dumps(told | {"wrong": killed_on_and_on(folder / "home")}))


if __name__ == "__main__":
    sys.exit(main())
