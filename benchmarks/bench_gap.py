"""What lies between two items: from the last step of one to the first step of the next, which was
prepared meanwhile in a process of its own; and what that process costs the steps beside it."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from typing import Any

from benchmarks.figures import at_most, figure
from benchmarks.kit import Daemon, add, made_home, query, wait_for
from engine.prepare import prepare
from engine.training.base import resolve_base
from engine.training.items import Settings
from queue_store import config as configuration
from queue_store import journal
from queue_store.database import open_state
from queue_store.home import Home

GAP = 1.0
WORDS = 40


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rounds, first, rows = (1, 1500, 4000) if quick else (3, 4000, 20_000)
    gaps: list[float] = []
    beside: list[float] = []
    inline: list[float] = []
    for number in range(rounds):
        gap, slower, seconds = _pair(first, rows, 10 * number)
        gaps.append(gap)
        inline.append(seconds)
        beside += [slower] if slower else []
    what = f"{rows} rows of about {WORDS} words"
    return {
        "rows": [
            at_most(f"gap between two items, the second of {what}", gaps, "s", GAP),
            figure("  preparing it in line", inline, "s"),
            *(
                [figure("  a step beside its preparing / after it", beside, "times")]
                if beside
                else []
            ),
        ]
    }


def _pair(first: int, rows: int, seed: int) -> tuple[float, float, float]:
    """(gap in seconds, median step beside the preparing over that after it, seconds of preparing
    the second file in line)."""
    with made_home() as home, closing(open_state(home)) as state:
        one = add(state, first, WORDS, seed, "first.jsonl")
        two = add(state, rows, WORDS, seed + 1, "second.jsonl")
        seconds = _in_line(home, home.items / two.file)
        with Daemon(home):
            sql = "SELECT 1 FROM steps WHERE item = ? LIMIT 1"
            wait_for("the second item trains", lambda: query(home, sql, two.id), 600)
        ended = query(home, "SELECT MAX(time) FROM steps WHERE item = ?", one.id)[0][0]
        begun = query(
            home, "SELECT time - seconds FROM steps WHERE item = ? ORDER BY id LIMIT 1", two.id
        )
        made = [e.time for e in journal.events(state, 0, 500, ["item.prepared"], two.id)]
        steps = query(home, "SELECT time, seconds FROM steps WHERE item = ? ORDER BY id", one.id)
    before = [s for at, s in steps[3:] if at < made[0]]
    after = [s for at, s in steps[3:] if at > made[0]]
    told = len(made) > 1 and len(before) > 5 and len(after) > 5
    slower = statistics.median(before) / statistics.median(after) if told else 0.0
    return begun[0][0] - ended, slower, seconds


def _in_line(home: Home, path: Any) -> float:
    """Seconds of preparing a file as the engine does when its turn comes; nothing of it stays."""
    config = configuration.load(home.config)
    with made_home() as other:
        started = time.perf_counter()
        prepare(
            path,
            model_folder=resolve_base(home, config.model.base, config.training.seed),
            settings=Settings.of(config).prepare_settings(),
            held_out=frozenset(),
            root=other.prepared,
            progress=lambda done, total: None,
            cancelled=lambda: False,
        )
        return time.perf_counter() - started
