"""The curves of a million steps: what drawing them costs, and what reading them from the store
costs a console, the first time and with every new step.

CPU time of the one thread that does it. The picture of 160x48 has everything in it at once: band,
moving average, validation, 100 items, 20 versions, 8 branches left behind.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench_console import (
    KIB_PER_SECOND,
    STILL_KIB,
    STILL_SECONDS,
    rate,
    trained_home,
)
from benchmarks.bench_session import fill
from benchmarks.figures import at_most, figure
from benchmarks.screen import Screen
from engine.reading.views import Views
from queue_store import records
from queue_store.database import open_metrics, open_state
from queue_store.home import Home
from queue_store.lock import EngineLock
from tui.curve_reader import CurveReader
from tui.frame import CurveAim, Frame

PAINT_MS = 50.0
FIRST_READ_MS = 1000.0
POLL_MS = 12.5
"""A twentieth of the time between two frames."""
STEPS = 1_000_000
RUNS = 30


def spent(act: Callable[[], Any], repeats: int) -> list[float]:
    """CPU milliseconds of this thread, each time."""
    found = []
    for _ in range(repeats):
        started = time.thread_time()
        act()
        found.append((time.thread_time() - started) * 1000)
    return found


def paints(points: int, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds to draw `points` steps with everything beside them, and two over each other."""
    import numpy as np

    from tui.curve import Look, Other, plot
    from tui.marks import Mark
    from tui.series import Series

    def made(first: int, length: int) -> Series:
        values = np.random.default_rng(first).normal(1.0, 0.1, length)
        return Series("loss", 1, np.arange(first, first + length), values, values, values)

    whole = made(1, points)
    ticks = Series("val_loss", 1, *(a[:: max(1, points // 200)] for a in _arrays(whole)))
    marks = [
        Mark("item", n * points // 100, f"train_syllo_level{n}", f"item {n} begins")
        for n in range(100)
    ]
    marks += [Mark("version", n * points // 20, f"v{n:03d}", f"version {n}") for n in range(20)]
    marks.sort(key=lambda mark: mark.step)
    left = [Other(made(n * points // 10, points // 20), "~", "dim") for n in range(1, 9)]
    other = [Other(made(1, points // 2), "o", "accent", every=2, whole=True)]
    look = Look(1.0, float(points))
    return (
        spent(lambda: plot(whole, ticks, marks, look, 160, 48, left), repeats),
        spent(lambda: plot(whole, None, (), look, 160, 48, other), repeats),
    )


def _arrays(series: Any) -> list[Any]:
    return [series.steps, series.low, series.high, series.mean]


def history(home: Home) -> None:
    """A million steps of 100 items; then 30 runs, the later ones rolled back in between, so that
    branches were left."""
    fill(home, STEPS)
    db = open_metrics(home)
    db.execute("UPDATE steps SET item = 1 + step * 100 / ?, time = step", (STEPS + 1,))
    with open_state(home) as state:
        point = records.head(state)
        assert point is not None
        for number in range(RUNS):
            with state.transaction():
                if number % 3 == 0:
                    branch = records.new_branch(
                        state, 1, point.checkpoint.id, STEPS, "rolled back to v001"
                    )
                    records.set_head(state, point.checkpoint.id, branch)
            run = records.start_run(state)
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss,"
                " learning_rate, grad_norm, tokens, seconds, memory, time)"
                " VALUES(?, 1, ?, 100, 0, 1, ?, 1, 1, 1, 1, 1, ?)",
                ((run.id, STEPS + n, 1 / n, STEPS + n) for n in range(1, 2001)),
            )
            db.execute("COMMIT")
    db.close()


class Growing:
    """A history that grows by a step, as the poller sees it."""

    def __init__(self, home: Home, views: Views, aim: CurveAim) -> None:
        self.views, self.aim = views, aim
        self.reader = CurveReader()
        self.frame = Frame()
        self.db = open_metrics(home)
        self.run, self.step = self.db.execute("SELECT run, MAX(step) FROM steps WHERE run = ("
                                              "SELECT MAX(run) FROM steps)").fetchone()  # fmt: skip

    def poll(self) -> None:
        """One step more, and what a console reads for it."""
        from dataclasses import replace

        status = {"global_step": self.step, "branch": 1, "events_seq": 1}
        frame = replace(self.frame, status=status)
        changes = self.reader.read(self.views, frame, self.frame, self.aim)
        self.frame = replace(frame, **changes)

    def grow(self) -> None:
        self.step += 1
        self.db.execute(
            "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss,"
            " learning_rate, grad_norm, tokens, seconds, memory, time)"
            " VALUES(?, 1, ?, 100, 0, 1, 1, 1, 1, 1, 1, 1, 1)",
            (self.run, self.step),
        )


def polls(home: Home, views: Views, aim: CurveAim, repeats: int) -> tuple[float, list[float]]:
    """Milliseconds of the first reading, and of each with a step more."""
    growing = Growing(home, views, aim)
    (first,) = spent(growing.poll, 1)
    found = []
    for _ in range(repeats):
        growing.grow()
        found += spent(growing.poll, 1)
    growing.db.close()
    return first, found


def written(seconds: float) -> list[dict[str, Any]]:
    """KiB a second on a terminal of 120x36 while 20 steps a second come: with all steps in view
    few columns change, with a short window the whole curve moves."""
    rows = []
    with trained_home() as (home, trainer):
        screen = Screen(["benchmarks.console_process", str(home.root)], b"6 events")
        screen.wait()
        pause = threading.Event()
        pause.wait(4)
        for keys, label in (
            (b"2", "all steps"),
            (b"www", "the last 100"),
            (b"z", "the last 100, zoomed"),
            (b"h", "held"),
        ):
            for key in keys:
                os.write(screen.master, bytes([key]))
                pause.wait(0.5)
            pause.wait(1.5)
            kib = [rate(screen, seconds)]
            rows.append(at_most(f"written while training, {label}", kib, "KiB/s", KIB_PER_SECOND))
        trainer.pause()
        pause.wait(3)
        still = [rate(screen, max(seconds, STILL_SECONDS))]
        rows.append(at_most("written while paused", still, "KiB/s", STILL_KIB))
        screen.close()
    return rows


def by_length(seconds: float) -> list[dict[str, Any]]:
    """KiB a second of a console before histories of so many steps, all of them in view."""
    rows = []
    for points in (1_000, 100_000, STEPS):
        with trained_home(points) as (home, _):
            screen = Screen(["benchmarks.console_process", str(home.root)], b"6 events")
            screen.wait()
            threading.Event().wait(4)
            label = f"written while training, {points:,} steps"
            kib = [rate(screen, seconds)]
            rows.append(at_most(label, kib, "KiB/s", KIB_PER_SECOND))
            screen.close()
    return rows


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    repeats = 3 if quick else 11
    rows = []
    for points in (1_000, 100_000, STEPS):
        everything, overlay = paints(points, repeats)
        label = f"{points:,} points at 160x48, CPU a paint"
        rows.append(at_most(f"{label}, everything shown", everything, "ms", PAINT_MS))
        rows.append(at_most(f"{label}, two over each other", overlay, "ms", PAINT_MS))
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.create()
        home.config.write_text("")
        history(home)
        with EngineLock.acquire(home, "daemon"), Views(home) as views:
            whole = spent(lambda: views.series("loss", width=4000), repeats)
            tail = spent(lambda: views.series("loss", width=4000, start=STEPS + 1990), repeats)
            label = "series of a million steps, CPU"
            rows.append(at_most(f"{label}, the whole", whole, "ms", FIRST_READ_MS))
            rows.append(figure(f"{label}, its last steps", tail, "ms"))
            rows.append(figure("marks of 100 items and 31 runs, CPU", spent(views.marks, 5), "ms"))
            left = spent(lambda: views.left_branches("loss", width=2000), 5)
            label = "8 branches left of 2,000 steps each, CPU"
            rows.append(figure(f"{label}, first", left[:1], "ms"))
            rows.append(figure(f"{label}, again", left[1:], "ms"))
            for label, aim in (
                ("following all", CurveAim()),
                ("following the last 1,000", CurveAim(detail=(STEPS, None, 900))),
                ("following the last 50,000", CurveAim(detail=(STEPS - 98_000, None, 900))),
            ):
                first, more = polls(home, views, aim, 5 * repeats)
                rows.append(at_most(f"console reads, {label}, first", [first], "ms", 2000.0))
                rows.append(at_most(f"console reads, {label}, a step more", more, "ms", POLL_MS))
    seconds = 5 if quick else 20
    return {"name": "curves", "rows": rows + by_length(seconds) + written(seconds)}
