"""What a console costs training: the real engine's tokens/s headless, with a console attached from
another process, with three, and with the console in its own process.

One daemon with consoles attached to it, and one console with an engine of its own, all in
pseudo-terminals of 120x36 that are read. In turns some of them are frozen (SIGSTOP) and the others
train, so that all ways are measured within seconds of each other, many times. Tokens and
times are those of metrics.db: a window counts from the end of its first step to that of its last.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import at_least, figure
from benchmarks.kit import Daemon, add_one, made_home, query, wait_for
from benchmarks.screen import Screen
from queue_store.home import Home

ATTACHED, SAME = 0.90, 0.85
SETTLE_SECONDS = 2.0
TRAINING = {"max_length": 512, "batch_size": 2, "effective_batch": 2, "epochs": 100_000}
"""Small and quick steps: the more of them, the more a console has to show."""

WAYS = ("headless", "attached", "three attached", "in one process")


def _signal(number: int, pids: Sequence[int]) -> None:
    for pid in pids:
        os.kill(pid, number)


def _rate(home: Home, start: float, end: float) -> float:
    """Tokens/s of the steps that ended between two times."""
    sql = "SELECT time, tokens FROM steps WHERE time > ? AND time <= ? ORDER BY id"
    steps = query(home, sql, start, end)
    if len(steps) < 3:
        raise RuntimeError(f"{len(steps)} steps in {end - start:.0f} s: the engine does not train")
    return sum(row[1] for row in steps[1:]) / (steps[-1][0] - steps[0][0])


def _cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    times = os.sysconf("SC_CLK_TCK")
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / times


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rounds, seconds = (3, 5.0) if quick else (7, 8.0)
    windows: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    shares: list[float] = []
    rest = threading.Event()
    with made_home(**TRAINING) as alone, made_home(**TRAINING) as own:
        for home in (alone, own):
            add_one(home, rows=60, words=120)
        with Daemon(alone) as daemon:
            daemon.wait_step(5)
            consoles = [
                Screen(["trainctl", "--home", str(alone.root)], b"rows.jsonl") for _ in range(3)
            ]
            attached = consoles[0]
            same = Screen(["trainctl", "--home", str(own.root)], b"rows.jsonl")
            shown = [*consoles, same]
            pids = (daemon.process.pid, *(screen.process.pid for screen in shown))
            runs = dict(zip(WAYS, (pids[:1], pids[:2], pids[:4], pids[4:]), strict=True))
            try:
                for screen in shown:
                    screen.wait()
                count = "SELECT COUNT(*) FROM steps"
                wait_for("the console's own engine", lambda: query(own, count)[0][0] > 5)
                _signal(signal.SIGSTOP, pids)
                for turn in range(rounds):
                    first = turn % len(WAYS)
                    for way in (*WAYS[first:], *WAYS[:first]):
                        _signal(signal.SIGCONT, runs[way])
                        rest.wait(SETTLE_SECONDS)
                        start, used = time.time(), _cpu(attached.process.pid)
                        rest.wait(seconds)
                        windows[way].append((start, time.time()))
                        if way == WAYS[1]:
                            shares.append((_cpu(attached.process.pid) - used) / seconds * 100)
                        rest.wait(0.2)
                        _signal(signal.SIGSTOP, runs[way])
            finally:
                _signal(signal.SIGCONT, pids)
                for screen in shown:
                    screen.close()
        rates = {
            way: [_rate(own if way == WAYS[3] else alone, *window) for window in found]
            for way, found in windows.items()
        }

    def ratios(way: str) -> list[float]:
        return [a / b for a, b in zip(rates[way], rates[WAYS[0]], strict=True)]

    return {
        "rows": [
            figure("training headless, torch on one thread", rates[WAYS[0]], "tokens/s"),
            at_least("with a console attached, over headless", ratios(WAYS[1]), "times", ATTACHED),
            figure("with three consoles attached, over headless", ratios(WAYS[2]), "times"),
            at_least(
                "with the console in its process, over headless", ratios(WAYS[3]), "times", SAME
            ),
            figure("processor of the attached console meanwhile", shares, "%"),
        ]
    }
