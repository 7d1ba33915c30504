"""The console: time to its first frame, cost of a curve, bytes it writes, memory it takes.

Consoles run on a pseudo-terminal of 120x36,
attached over the socket to an engine that writes 20 steps a second into a real store.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bench_session import fill, row
from benchmarks.figures import at_most, figure
from benchmarks.screen import Screen
from engine.machine.telemetry import Telemetry
from engine.messages import EngineState
from engine.reading.status import disk_status, engine_status, item_status, model_status, status
from engine.sessions.dispatch import Dispatcher
from engine.sessions.server import Server
from queue_store.home import Home
from queue_store.lock import EngineLock
from queue_store.metrics import Metrics, StepMetric

FIRST_FRAME_RATIO = 2.5
PAINT_MS = 50.0
KIB_PER_SECOND = 15.0
STILL_KIB, STILL_SECONDS = 0.1, 20
"""While paused only the meters of a machine that others use still move, a line now and then."""
MEGABYTES = 120.0
STEPS_PER_SECOND = 20
HISTORY = 20_000


class Trainer:
    """An engine without a model: a step every 50 ms, in metrics.db and in the status."""

    def __init__(self, home: Home, step: int) -> None:
        self.home = home
        self.step = step
        self.training = True
        self._end = threading.Event()
        self._telemetry = Telemetry()
        self._telemetry.start()
        self._status = self._tell()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _tell(self) -> dict[str, Any]:
        return status(
            state=EngineState.TRAINING if self.training else EngineState.PAUSED,
            branch=1,
            global_step=self.step,
            loss=1 / self.step,
            learning_rate=2e-4,
            tokens_per_second=8000.0 + self.step % 100,
            eta_seconds=float(100_000 - self.step) / STEPS_PER_SECOND,
            item=item_status(
                id=1,
                name="train_syllo_level1_20000.jsonl",
                priority="normal",
                step=self.step,
                steps=100_000,
                rows=20_000,
                cursor=self.step,
            ),
            queue={"normal": 3},
            head_checkpoint="c",
            head_version=None,
            model=model_status(name="tiny", method="full"),
            gpus=[],
            ram={"used": 6e9, "total": 64e9, "process": 9e8},
            disk=disk_status(self.home.store, 12_000_000, 0),
            engine=engine_status(pid=1, supervisor_pid=None, mode="daemon", started=0.0),
        )

    def _work(self) -> None:
        metrics = Metrics(self.home)
        while not self._end.wait(1 / STEPS_PER_SECOND):
            if self.training:
                self.step += 1
                at = (1, self.step, 1, self.step, self.step + 1)
                metrics.add_step(1, StepMetric(*at, 1 / self.step, 2e-4, 1.0, 400, 0.05, 10**9))
                metrics.flush()
                self._status = self._tell()
        metrics.close()

    def pause(self) -> None:
        self.training = False
        self._status = self._tell()

    def end(self) -> None:
        self._end.set()
        self._thread.join()
        self._telemetry.stop()

    def snapshot(self) -> dict[str, Any]:
        # The machine's own meters: what they change on the screen is part of the bytes.
        return {**self._status, **self._telemetry.latest()}

    def meters(self) -> dict[str, Any]:
        return self._telemetry.history()

    def submit(self, command: str, arguments: dict[str, Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        answer.set_result({"step": self.step})
        return answer

    def wake(self) -> None:
        """Nothing waits for the queue here."""


@contextmanager
def trained_home(
    steps: int = HISTORY, made: Callable[[Home, int], Trainer] = Trainer
) -> Iterator[tuple[Home, Trainer]]:
    """A home with a history of `steps` and a running engine behind its socket."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.create()
        home.config.write_text("")
        fill(home, steps)
        with EngineLock.acquire(home, "daemon"):
            trainer = made(home, steps)
            server = Server(home, Dispatcher(trainer))
            server.start()
            try:
                yield home, trainer
            finally:
                server.stop()
                trainer.end()


def _screen(argument: str) -> Screen:
    """A bare app ("bare") or the console of a home, until its first frame."""
    return Screen(["benchmarks.console_process", argument], b"6 events")


def first_frames(home: Home, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds to the first frame of a bare app and of the console, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for argument, taken in zip(("bare", str(home.root)), times, strict=True):
            screen = _screen(argument)
            screen.wait()
            taken.append(screen.first)
            screen.close()
    return times


def rate(screen: Screen, seconds: float) -> float:
    """KiB a second that a console writes."""
    before, started = screen.bytes, time.perf_counter()
    threading.Event().wait(seconds)
    return (screen.bytes - before) / (time.perf_counter() - started) / 1024


def paint(points: int, repeats: int) -> float:
    """CPU milliseconds to draw a curve of `points` steps in 160x48."""
    import numpy as np

    from tui.curve import Look, plot
    from tui.series import Series

    values = np.random.default_rng(0).normal(1.0, 0.1, points)
    series = Series("loss", 1, np.arange(1, points + 1), values, values, values)
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        plot(series, None, (), Look(1.0, float(points)), 160, 48)
        spent.append((time.process_time() - started) * 1000)
    return statistics.median(spent)


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rows = []
    for points in (1_000, 10_000, 100_000, 1_000_000):
        cost = paint(points, 3 if quick else 11)
        rows.append(row(f"a curve of {points:,} points at 160x48, CPU", cost, "ms", PAINT_MS))
    with trained_home() as (home, trainer):
        bare, console = first_frames(home, 3 if quick else 9)
        ratios = [c / b for b, c in zip(bare, console, strict=True)]
        rows += [
            figure("first frame of a bare Textual app", [s * 1000 for s in bare], "ms"),
            figure("first frame of the console, attached", [s * 1000 for s in console], "ms"),
            at_most("first frame, console over bare app", ratios, "times", FIRST_FRAME_RATIO),
        ]
        screen = _screen(str(home.root))
        screen.wait()
        threading.Event().wait(4)
        seconds = 5 if quick else 30
        rows.append(row("written while training", rate(screen, seconds), "KiB/s", KIB_PER_SECOND))
        process = psutil.Process(screen.process.pid)
        used = process.cpu_times()
        spent = used.user + used.system
        threading.Event().wait(seconds)
        used = process.cpu_times()
        share = (used.user + used.system - spent) / seconds * 100
        rows.append(row("processor of the attached console", share, "%"))
        memory = process.memory_info().rss / 1e6
        rows.append(row("memory of the attached console", memory, "MB", MEGABYTES))
        trainer.pause()
        threading.Event().wait(3)
        still = rate(screen, max(seconds, STILL_SECONDS))
        rows.append(row("written while paused", still, "KiB/s", STILL_KIB))
        screen.close()
    return {"name": "console", "rows": rows}
