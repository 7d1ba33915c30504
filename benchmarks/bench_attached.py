"""A console over time: attached, left unread, its engine killed, and after an hour's worth of what
happens.

Consoles run on a pseudo-terminal of 120x36. The engine has no model, but a real store: steps,
events, samples and the queue come as in training; the one that is killed is the real one.
"""

from __future__ import annotations

import os
import re
import signal
import statistics
import time
from contextlib import closing
from threading import Event
from typing import Any

import psutil

from benchmarks.bench_console import HISTORY, Trainer, trained_home
from benchmarks.figures import at_least, at_most, figure
from benchmarks.kit import Daemon, add, made_home, wait_for
from benchmarks.screen import Screen
from queue_store import journal, queue
from queue_store.database import open_state
from queue_store.home import Home
from queue_store.metrics import Example, Metrics, Sample, StepMetric
from tui.poller import INTERVAL

ATTACH_SECONDS = BEHIND_SECONDS = 1.0
BANNER_SECONDS = 2.0
RATE_UNREAD = 0.95
GROWTH = 1.05
"""Most that memory may be at the end of the hour, by what it was after its first tenth."""
HOUR = 3600.0
HURRY = 12.5
"""How much faster than in life the hour passes, for the engine and for the console's poller."""
EXAMPLES = 100
STEP = re.compile(rb"step (\d{1,3}(?: \d{3})*)(?!\d)")


class Eventful(Trainer):
    """Four times a second five steps; an event a second; answers to all examples twice a minute;
    an item of the queue changes every ten seconds. `hurry` times as fast as that."""

    hurry = 1.0

    def __init__(self, home: Home, step: int) -> None:
        self.told = {"samples_step": step, "events_seq": 0}
        self.turns = 0
        super().__init__(home, step)

    def snapshot(self) -> dict[str, Any]:
        return {**super().snapshot(), **self.told}

    def _work(self) -> None:
        metrics = Metrics(self.home)
        metrics.set_examples(
            [
                Example(f"e{n}", "syllo", n, f"prompt {n} " * 20, f"expected {n}", "syllo", 1)
                for n in range(EXAMPLES)
            ]
        )
        self._sample(metrics)
        with open_state(self.home) as state:
            for n in range(20):
                add(state, 2, 8, seed=n, name=f"part_{n}.jsonl")
            while not self._end.wait(INTERVAL / self.hurry):
                if not self.training:
                    continue
                self.turns += 1
                for _ in range(5):
                    self.step += 1
                    at = (1, self.step, 1, self.step, self.step + 1)
                    step = StepMetric(*at, 1 / self.step, 2e-4, 1.0, 400, 0.05, 10**9)
                    metrics.add_step(1, step)
                metrics.flush()
                if self.turns % 4 == 0:
                    with state.transaction():
                        text = f"something happened at step {self.step}, in some words"
                        self.told["events_seq"] = journal.record(state, "note", text)
                if self.turns % 40 == 0:
                    item = self.turns // 40 % 20 + 1
                    levels = (queue.Priority.NORMAL, queue.Priority.HIGH, queue.Priority.LOW)
                    queue.set_priority(state, item, levels[self.turns // 800 % 3])
                if self.turns % 120 == 0:
                    self._sample(metrics)
                self._status = self._tell()
        metrics.close()

    def _sample(self, metrics: Metrics) -> None:
        metrics.add_samples(
            1,
            [
                Sample(1, self.step, f"e{n}", "some words " * 20, n % 3 == 0, 0.5, 40, 0.01)
                for n in range(EXAMPLES)
            ],
        )
        self.told["samples_step"] = self.step


def _step(out: bytes) -> int:
    """The step that a screen showed last, -1 for none."""
    found = STEP.findall(out)
    return int(found[-1].replace(b" ", b"")) if found else -1


def _console(home: Home, *more: str) -> Screen:
    return Screen(["benchmarks.console_process", str(home.root), *more], b"6 events")


def attaching(home: Home, trainer: Trainer, rounds: int) -> list[float]:
    """Seconds from the start of a console's process until it shows the step of now, the curve and
    the samples."""
    taken = []
    for _ in range(rounds):
        now = trainer.step
        screen = _console(home)
        screen.watch(lambda out: b"EMA" in out and b"expected" in out and _step(out) >= now)  # noqa: B023
        screen.wait()
        taken.append(screen.first)
        screen.close()
    return taken


def unread(home: Home, trainer: Trainer, seconds: float) -> tuple[float, float]:
    """The engine's steps while nobody reads the console's terminal, by those before; and how many
    seconds after somebody reads again the screen shows the step of that moment."""
    screen, rest = _console(home), Event()
    screen.wait()
    rest.wait(3)
    start = trainer.step
    rest.wait(seconds)
    before = trainer.step - start
    screen.reading.clear()
    os.write(screen.master, b"zz" * 20)  # repaints that fill the terminal's queue
    start = trainer.step
    rest.wait(seconds)
    meanwhile = trainer.step - start
    now = trainer.step
    screen.watch(lambda out: _step(out) >= now)
    screen.reading.set()
    screen.wait()
    screen.close()
    return meanwhile / before, screen.first


def killed(rounds: int) -> list[float]:
    """Seconds from the kill of the engine to the words on the screen."""
    taken = []
    for _ in range(rounds):
        with made_home() as home:
            with closing(open_state(home)) as state:
                add(state, 2000, 30, seed=1)
            with Daemon(home) as daemon:
                daemon.wait_step(3)
                screen = _console(home)
                screen.wait()
                screen.watch(lambda out: _step(out) >= 3)
                screen.wait()
                pid = int(daemon.status["engine"]["pid"])
                screen.watch(lambda out: b"engine lost" in out)
                os.kill(pid, signal.SIGKILL)
                screen.wait()
                taken.append(screen.first)
                screen.close()
    return taken


def hour(seconds: float) -> list[dict[str, Any]]:
    """Memory of a console over so many seconds' worth of training, in less time."""

    class Hurried(Eventful):
        hurry = HURRY

    with trained_home(HISTORY, Hurried) as (home, trainer):
        assert isinstance(trainer, Hurried)
        screen = _console(home, str(HURRY))
        screen.wait()
        process = psutil.Process(screen.process.pid)
        turns = round(seconds / INTERVAL)
        started, sizes = trainer.turns, []
        clock = time.monotonic()
        for tenth in range(1, 11):
            wanted = started + turns * tenth // 10
            wait_for("training", lambda: trainer.turns >= wanted, 900)  # noqa: B023
            sizes.append(process.memory_info().rss / 1e6)
        taken = time.monotonic() - clock
        used = process.cpu_times()
        screen.close()
    what = f"{seconds / 60:g} minutes' worth of training"
    return [
        figure("memory of a console after a tenth of it", sizes[:1], "MB"),
        figure(f"memory of a console after {what}", sizes[-1:], "MB"),
        at_most(
            "memory in the second half, over after a tenth",
            [statistics.mean(sizes[5:]) / sizes[0]],
            "times",
            GROWTH,
        ),
        figure("  taken for it", [taken], "s"),
        figure("  processor of that console", [(used.user + used.system) / taken * 100], "%"),
    ]


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    with trained_home(HISTORY, Eventful) as (home, trainer):
        Event().wait(1)
        taken = attaching(home, trainer, 3 if quick else 9)
        rate, behind = unread(home, trainer, 8.0 if quick else 60.0)
    label = "from the start of a console to step, curve and samples of now"
    return {
        "rows": [
            at_most(label, taken, "s", ATTACH_SECONDS),
            at_least(
                "steps/s while a terminal is not read, over before", [rate], "times", RATE_UNREAD
            ),
            at_most("from reading it again to the step of then", [behind], "s", BEHIND_SECONDS),
            at_most(
                "from the engine's kill to the words",
                killed(1 if quick else 5),
                "s",
                BANNER_SECONDS,
            ),
            *hour(HOUR / 10 if quick else HOUR),
        ]
    }
