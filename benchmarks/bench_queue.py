"""A queue of 100,000 items: adding a file, claiming the next, and reading a page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.figures import at_most, median_and_p95
from benchmarks.kit import add, made_home, write_rows
from engine.reading.views import Views
from queue_store import intake, queue, transitions
from queue_store.database import State, open_state

ITEMS = 100_000
TARGET_MS = 20.0
PAGE = 100


def fill(state: State, count: int) -> None:
    """`count` queued items, copies of one that was added: only their bytes are missing."""
    first = add(state, 2, 8, seed=1)
    names = [row[1] for row in state.db.execute("PRAGMA table_info(items)")]
    values = dict(state.db.execute("SELECT * FROM items WHERE id = ?", (first.id,)).fetchone())
    marks = ", ".join("?" * len(names))
    with state.transaction() as db:
        db.executemany(
            f"INSERT INTO items({', '.join(names)}) VALUES({marks})",
            (
                tuple(
                    {
                        **values,
                        "id": None,
                        "position": n + 2.0,
                        "file": f"{n}-1-rows.jsonl",
                    }.values()
                )
                for n in range(count - 1)
            ),
        )


def timed(act: Callable[[], object], count: int, after: Callable[[], object] = int) -> list[float]:
    """Milliseconds of `count` calls; `after` runs between them and is not counted."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1000)
        after()
    return taken


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    count = 60 if quick else 300
    with made_home() as home, open_state(home) as state, Views(home) as views:
        fill(state, ITEMS)
        path = write_rows(home.root / "small.jsonl", 2, 8, seed=2)
        adding = timed(lambda: intake.add_file(state, path), count)

        def put_back() -> None:
            state.db.execute("UPDATE items SET state = 'done' WHERE state = 'preparing'")

        claiming = timed(lambda: transitions.claim(state), count, put_back)
        first = timed(lambda: views.queue(limit=PAGE), count)
        middle = timed(lambda: views.queue(limit=PAGE, offset=ITEMS // 2), count)
        counting = timed(lambda: queue.waiting_by_priority(state), count)
    what = f"of {ITEMS:,} items"
    return {
        "rows": [
            *median_and_p95(f"add a file to a queue {what}", adding, "ms", TARGET_MS),
            *median_and_p95(f"claim the next {what}", claiming, "ms", TARGET_MS),
            *median_and_p95(f"the first page ({PAGE}) {what}", first, "ms", TARGET_MS),
            *median_and_p95(f"a page from the middle {what}", middle, "ms", TARGET_MS),
            at_most(f"counting by priority {what} (in every status)", counting, "ms", TARGET_MS),
        ]
    }
