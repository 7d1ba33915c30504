"""The way back and the way in: from the kill of the training process to the next step, less the
loading of torch and the model; and from a file's rename into the inbox to its row in the queue."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.figures import Row, at_most, figure
from benchmarks.kit import Daemon, add_one, made_home, query, wait_for, write_rows
from engine.sessions.client import connect
from queue_store import config as configuration
from queue_store import queue
from queue_store.database import open_state
from queue_store.errors import TrainctlError
from queue_store.home import Home

QUEUED = 0.5
LOADING = """
import sys, pathlib
from queue_store import config, records
from queue_store.database import open_state
from queue_store.home import Home
import engine.loop.worker
from engine.training.live import load_live
home = Home(pathlib.Path(sys.argv[1]))
with open_state(home) as state:
    load_live(home, config.load(home.config), records.head(state).checkpoint)
"""
"""What a new training process has to load before it can do anything."""


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    return {"rows": [*_killed(3 if quick else 10), *_queued(6 if quick else 20)]}


def _killed(rounds: int) -> list[Row]:
    back, loading, lost = [], [], []
    supervised = False
    with made_home(epochs=100_000, save_steps=50) as home:
        text = home.config.read_text().replace("save_seconds = 1000000", "save_seconds = 0")
        home.config.write_text(text)
        add_one(home, rows=40, words=40)
        with ExitStack() as stack:
            daemon = stack.enter_context(Daemon(home))
            daemon.wait_step(60)
            for _ in range(rounds):
                status = daemon.status
                supervised = isinstance(status["engine"]["supervisor_pid"], int)
                daemon.session.close()
                os.kill(status["engine"]["pid"], signal.SIGKILL)
                killed = time.time()
                if not supervised:
                    daemon.process.wait()
                    daemon = stack.enter_context(Daemon(home))
                wait_for("it trains again", lambda at=killed: _stepped(home, at))  # type: ignore[misc]
                first = query(home, "SELECT MIN(time) FROM steps WHERE time > ?", killed)
                back.append(first[0][0] - killed)
                wait_for("the daemon answers", lambda d=daemon: _answers(d))  # type: ignore[misc]
                lost.append(status["global_step"] - _first_step(home, killed) + 1)
                daemon.wait_step(_first_step(home, killed) + 60)
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", LOADING, str(home.root)], check=True)
            loading.append(time.perf_counter() - started)
    how = "by its supervisor" if supervised else "started again by hand"
    load = statistics.median(loading)
    return [
        figure(f"killed to training again, {how}, less the loading", [b - load for b in back], "s"),
        figure("  killed to the next step", back, "s"),
        figure("  loading of torch and the model, in a process of its own", loading, "s"),
        figure("  steps trained again (a checkpoint every 50)", lost, "steps"),
    ]


def _stepped(home: Home, at: float) -> bool:
    return bool(query(home, "SELECT 1 FROM steps WHERE time > ? LIMIT 1", at))


def _first_step(home: Home, at: float) -> int:
    """The step that was the first one after `at`."""
    row = query(home, "SELECT step FROM steps WHERE time > ? ORDER BY time LIMIT 1", at)[0]
    return int(row[0])


def _answers(daemon: Daemon) -> bool:
    try:
        daemon.session = connect(daemon.home, timeout=5)
    except TrainctlError:
        return False
    return True


def _queued(rounds: int) -> list[Row]:
    """From the rename into the inbox of an engine that trains to the row in the database."""
    taken = []
    with made_home(epochs=100_000) as home:
        quiet = configuration.load(home.config).queue.quiet_seconds
        add_one(home, rows=40, words=40)
        with Daemon(home) as daemon, open_state(home) as state:
            daemon.wait_step(5)
            for n in range(rounds):
                name = f"{n}.jsonl"
                path = write_rows(home.root / name, 20, 20, n)
                place = home.inbox / name
                started = time.perf_counter()
                _drop(path, place)
                wait_for(
                    "the row",
                    lambda name=name: any(i.name == name for i in queue.items(state)),  # type: ignore[misc]
                )
                taken.append(time.perf_counter() - started - quiet)
    label = f"inbox to queued, less the quiet time of {quiet:g} s"
    return [at_most(label, taken, "s", QUEUED)]


def _drop(path: Path, place: Path) -> None:
    """As rsync and careful programs do it: written beside, then renamed."""
    path.rename(place)
