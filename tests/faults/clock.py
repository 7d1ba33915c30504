"""A clock that jumps inside every protocol: a day or a year, back and forth, at every look.

    python -m tests.faults.clock [SCENARIO…]

Prints one JSON object a jump: {scenario, point, wrong[]}.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable

from tests.faults.bench import Bench, aftermath, forked, scratch
from tests.faults.scenarios import NAMES, perform
from tests.faults.world import ears, one_thread

DAY = 86400.0
JUMPS = {
    "a year back": (-365 * DAY,),
    "a day ahead, then back": (DAY, -DAY),
    "to and fro at every look": (0.0, 3600.0, -7200.0, 365 * DAY),
}


def jumping(offsets: tuple[float, ...], act: Callable[[], object]) -> object:
    """Run `act` with a wall clock that is right at the first look and wrong from then on, by each
    of the offsets in turn."""
    true, turn = time.time, itertools.cycle(offsets)
    looks = itertools.count()
    time.time = lambda: true() + (next(turn) if next(looks) else 0.0)
    try:
        return act()
    finally:
        time.time = true


def main() -> None:
    one_thread()
    with scratch() as folder:
        bench = Bench(folder)
        for name in sys.argv[1:] or list(NAMES):
            scenario = NAMES[name]
            template, before = bench.template(scenario)
            for point, offsets in JUMPS.items():
                root = bench.copy(template)
                with ears() as heard:
                    ended = forked(
                        lambda s=scenario, o=offsets, r=root: jumping(o, lambda: perform(s, r)),  # type: ignore[misc]
                        heard,
                    )
                    acks = before + heard.listen()
                wrong = [f"it failed: {ended}"] if ended else []
                told = {"scenario": name, "point": point, "ended": ended}
                wrong += aftermath(root, acks, scenario)
                print(json.dumps(told | {"wrong": wrong}), flush=True)
                shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
