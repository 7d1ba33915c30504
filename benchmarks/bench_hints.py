"""Hints: what one look of the watch costs after many steps, and how much of the journal a console
keeps.

The look is the keeper's, every 5 s beside training: it holds the interpreter lock for no longer
than it takes. A validation every 50 steps; each look finds one new step on record, so that nothing
is passed over. The journal is read by the real poller and pane, event after event.
"""

from __future__ import annotations

import gc
import random
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import at_most, figure, median_and_p95
from engine.hints.watch import SECONDS, Watch
from engine.messages import EngineState
from engine.reading.views import Views
from queue_store import journal, records
from queue_store.database import State, open_metrics, open_state
from queue_store.home import Home
from queue_store.metrics import VAL_LOSS
from tui.eventlog import MOST, EventWindow
from tui.poller import EVENTS_KEPT, Poller

LOOK_MS = 50.0
"""A hundredth of a core at one look every 5 s."""
EVENTS = 50_000
"""More than an hour brings: a sample tick every 50 steps and a checkpoint every 500."""


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rows = []
    for steps in (1_000, 100_000) if quick else (1_000, 1_000_000):
        rows += _look(steps, 20 if quick else 100)
    return {"rows": rows + _journal(1000)}


def _look(steps: int, times: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Home(Path(folder) / "home")
        home.create()
        home.config.write_text("")
        with open_state(home) as state:
            run = _fill(home, state, steps)
            watch, status = Watch(home), _status(steps)
            taken = []
            for number in range(1, times + 1):
                with closing(open_metrics(home)) as db:
                    _insert(db, run, range(steps + number, steps + number + 1))
                started = time.thread_time()
                with open_state(home) as own:  # as the keeper does
                    watch.look(own, status)
                taken.append((time.thread_time() - started) * 1e3)
    rows = median_and_p95(f"CPU of a look at {steps:,} steps", taken, "ms", LOOK_MS)
    share = sorted(taken)[len(taken) // 2] / SECONDS / 10
    return [*rows, figure(f"share of a core, {steps:,} steps", [share], "%")]


def _journal(batch: int) -> list[dict[str, Any]]:
    """EVENTS events in batches through the poller into the pane's window: how many are kept, and
    the memory of the process after the first fifth and at the end."""
    kept, sizes, taken = 0, {}, []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Home(Path(folder) / "home")
        home.create()
        home.config.write_text("")
        with open_state(home) as state, Views(home) as views:
            records.start(state, "0" * 64, "builtin:tiny")
            poller = Poller(_Silent(), views, lambda frame: None, clock=time.time)
            window = EventWindow()
            for done in range(batch, EVENTS + 1, batch):
                with state.transaction():
                    for number in range(batch):
                        journal.record(state, "samples", f"samples exact: syllo {number}/1000")
                poller.hurry()
                started = time.perf_counter()
                poller.frame = poller.poll(views)
                window.take(poller.frame.events, None)
                taken.append((time.perf_counter() - started) * 1e3)
                kept = max(kept, len({id(e) for e in (*poller.frame.events, *window.rows)}))
                if done in (EVENTS // 5, EVENTS):
                    gc.collect()
                    sizes[done] = psutil.Process().memory_info().rss / 1e6
    return [
        at_most(f"events kept of {EVENTS:,}", [kept], "events", EVENTS_KEPT + MOST),
        at_most(
            f"memory after {EVENTS:,} events over after {EVENTS // 5:,}",
            [sizes[EVENTS] / sizes[EVENTS // 5]],
            "times",
            1.05,
        ),
        figure(f"a poll that finds {batch:,} new events", taken, "ms"),
    ]


class _Silent:
    """An engine that answers a status in which nothing moves."""

    local = False

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        return {"state": "idle", "global_step": 0, "events_seq": 0}

    def close(self) -> None:
        pass


def _status(steps: int) -> dict[str, Any]:
    return {
        "state": EngineState.TRAINING,
        "global_step": steps,
        "item": {"name": "rows.jsonl"},
        "queue": {"high": 0, "normal": 3, "low": 0},
        "eta_seconds": 900.0,
        "gpus": [],
    }


def _fill(home: Home, state: State, steps: int) -> int:
    records.start(state, "0" * 64, "builtin:tiny")
    run = records.start_run(state).id
    with closing(open_metrics(home)) as db:
        _insert(db, run, range(1, steps + 1))
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO validations(run, branch, step, name, loss, tokens, seconds, time)"
            " VALUES(?, 1, ?, ?, ?, 1000, 1, 0)",
            [
                (run, step, name, 0.5 + random.random() / 50)
                for step in range(50, steps + 1, 50)
                for name in ("one", "two", VAL_LOSS)
            ],
        )
        db.execute("COMMIT")
    return run


def _insert(db: Any, run: int, steps: range) -> None:
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss, learning_rate,"
        " grad_norm, tokens, seconds, memory, time) VALUES(?,1,?,?,?,?,?,1e-4,1,100,0.1,0,0)",
        (
            (run, step, 1 + step // 20_000, step, step + 1, 0.4 + random.random() / 10)
            for step in steps
        ),
    )
    db.execute("COMMIT")
