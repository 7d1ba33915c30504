"""How soon there is an answer: `status`, an attached console's first figures, an engine's first
step, and the next item's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import psutil

from benchmarks.figures import at_most, figure
from benchmarks.kit import Daemon, add, add_one, made_home, query, wait_for
from benchmarks.screen import Screen
from queue_store import queue
from queue_store.database import open_state
from queue_store.home import Home

STATUS_MS = 200.0
ATTACH_MS = 1000.0
START_SECONDS = 2.0
BETWEEN_SECONDS = 0.3
SMALL = 6
"""Rows of a small file: two or three steps."""


def _status(home: Home, times: int) -> tuple[list[float], list[float]]:
    """Milliseconds of wall and of CPU time of `trainctl status`, the whole process."""
    wall, cpu = [], []
    for _ in range(times):
        used, started = psutil.Process().cpu_times(), time.perf_counter()
        words = [sys.executable, "-m", "trainctl", "--home", str(home.root), "status"]
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        wall.append((time.perf_counter() - started) * 1000)
        after = psutil.Process().cpu_times()
        spent = after.children_user + after.children_system
        cpu.append((spent - used.children_user - used.children_system) * 1000)
    return wall, cpu


def answers(quick: bool) -> list[dict[str, Any]]:
    """`status` and attaching, without an engine and with one that trains."""
    times = 5 if quick else 21
    rows = []
    with made_home(epochs=100_000) as home:
        add_one(home, rows=40, words=40)
        alone, alone_cpu = _status(home, times)
        rows.append(at_most("trainctl status without an engine", alone, "ms", STATUS_MS))
        rows.append(figure("  its CPU time", alone_cpu, "ms"))
        with Daemon(home) as daemon:
            daemon.wait_step(5)
            asked, asked_cpu = _status(home, times)
            rows.append(at_most("trainctl status with an engine", asked, "ms", STATUS_MS))
            rows.append(figure("  its CPU time", asked_cpu, "ms"))
            shown, used = [], []
            for _ in range(3 if quick else 9):
                screen = Screen(["trainctl", "--home", str(home.root)], b"rows.jsonl")
                screen.wait()
                times_used = psutil.Process(screen.process.pid).cpu_times()
                used.append((times_used.user + times_used.system) * 1000)
                shown.append(screen.first * 1000)
                screen.close()
            label = "trainctl to the engine's figures on the screen"
            rows.append(at_most(label, shown, "ms", ATTACH_MS))
            rows.append(figure("  its CPU time until then", used, "ms"))
    return rows


def _wait_done(home: Home, count: int) -> None:
    """Until so many items are done."""
    with open_state(home) as state:
        wait_for(f"{count} items", lambda: queue.counts(state)["done"] >= count)


def start(quick: bool) -> list[dict[str, Any]]:
    """From a process's start to its engine's first step done."""
    found = []
    with made_home() as home:
        for turn in range(2 if quick else 6):
            add_one(home, rows=SMALL, words=20, seed=turn)
            words = [sys.executable, "-m", "benchmarks.start_process", str(home.root)]
            process = subprocess.Popen([*words, str(time.time())], stdout=subprocess.PIPE)
            _wait_done(home, turn + 1)
            home.stop_file.touch()
            out, _ = process.communicate(timeout=60)
            if process.returncode:
                raise RuntimeError("the engine did not start")
            if turn:  # the first one makes the model
                found.append(json.loads(out))
    rest = [one["total"] - one["imports"] - one["load"] for one in found]
    return [
        at_most("start to first step, without imports and load", rest, "s", START_SECONDS),
        figure("  imports", [one["imports"] for one in found], "s"),
        figure("  loading the model", [one["load"] for one in found], "s"),
    ]


def between(quick: bool) -> list[dict[str, Any]]:
    """From the last step of a small item to the start of the next one's first."""
    count = 8 if quick else 25
    with made_home() as home, open_state(home) as state:
        kinds = {add(state, SMALL, 20, seed=1).id: "prepared" for _ in range(count)}
        kinds |= {add(state, SMALL, 20, seed=n + 2).id: "new" for n in range(count)}
        with Daemon(home):
            _wait_done(home, len(kinds))
        steps = query(home, "SELECT item, time, seconds FROM steps ORDER BY id")
    gaps: dict[str, list[float]] = {"prepared": [], "new": []}
    for (one, ended, _), (other, done, seconds) in pairwise(steps):
        if one != other:
            gaps[kinds[other]].append(done - seconds - ended)
    label = "between two small items"
    return [
        at_most(f"{label}, the next one prepared before", gaps["prepared"], "s", BETWEEN_SECONDS),
        figure(f"{label}, the next one prepared in between", gaps["new"], "s"),
    ]


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    return {"rows": [*answers(quick), *start(quick), *between(quick)]}
