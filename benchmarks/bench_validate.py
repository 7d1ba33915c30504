"""Reading rows: the quick check of a file, the same with evaluation sets, and the deeper levels.

Real rows, repeated; seconds of CPU of one core, so that a busy machine does not count.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import at_least, at_most, figure
from benchmarks.kit import made_home
from engine.checks import run_checks
from queue_store.heldout import held_out
from queue_store.rows import Row, quick_check, read_rows

SOURCE = Path(__file__).parents[1] / "tests" / "data" / "gsm8k_100.jsonl"
MEGABYTES = 85
TARGET_MB_S = 100.0
TARGET_MB = 200.0


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rows = SOURCE.read_bytes()
    with made_home() as home:
        path = home.root / "rows.jsonl"
        copies = (MEGABYTES * 1_000_000 // (8 if quick else 1)) // len(rows)
        with path.open("wb") as out:
            for _ in range(copies):
                out.write(rows)
        size = path.stat().st_size / 1e6
        rounds = 3 if quick else 9

        def rates(act: Callable[[], object], megabytes: float, times: int) -> list[float]:
            found = []
            for _ in range(times):
                started = time.process_time()
                act()
                found.append(megabytes / (time.process_time() - started))
            return found

        plain = rates(lambda: quick_check(path), size, rounds)
        (home.evaluation / "own.jsonl").write_text(
            '{"prompt": "A question that nobody asks?", "response": "No."}\n'
        )
        holds = held_out(home).holds
        with_sets = rates(lambda: quick_check(path, held_out=holds), size, rounds)
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        few = [row for row in read_rows(SOURCE) if isinstance(row, Row)] * 20
        deep = rates(lambda: run_checks(few, "deep"), 20 * len(rows) / 1e6, 3)
    return {
        "rows": [
            at_least("quick validation", plain, "MB/s", TARGET_MB_S),
            at_least("quick validation with evaluation sets", with_sets, "MB/s", TARGET_MB_S),
            at_most("peak memory of it", [int(peak[1]) / 1024 if peak else 0], "MB", TARGET_MB),
            figure("deep checks of rows in memory", deep, "MB/s"),
        ]
    }
