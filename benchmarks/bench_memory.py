"""Memory over many items: what the real engine keeps in memory after 100 and after 1,000."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

import psutil

from benchmarks.figures import at_most, figure
from benchmarks.kit import Daemon, add, made_home, wait_for
from queue_store import queue
from queue_store.database import open_state

FIRST = 100
GROWTH = 1.05
"""Most that memory may be after all items, by what it was after the first hundred."""


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    items = 300 if quick else 1000
    sizes = {}
    with made_home(max_length=64) as home, closing(open_state(home)) as state:
        for number in range(items):
            add(state, 2, 8, seed=number)

        def passed(count: int) -> bool:
            counts = queue.counts(state)
            if counts["failed"]:
                raise RuntimeError("an item failed")
            return counts["trained"] + counts["done"] >= count

        with Daemon(home) as daemon:
            process = psutil.Process(daemon.process.pid)
            for count in (FIRST, items):
                wait_for(f"{count} items", partial(passed, count), 600)
                sizes[count] = process.memory_info().rss / 1e6
    return {
        "rows": [
            figure(f"memory of the engine after {FIRST} items", [sizes[FIRST]], "MB"),
            figure(f"memory of the engine after {items:,} items", [sizes[items]], "MB"),
            at_most(
                f"after {items:,} over after {FIRST}",
                [sizes[items] / sizes[FIRST]],
                "times",
                GROWTH,
            ),
        ]
    }
