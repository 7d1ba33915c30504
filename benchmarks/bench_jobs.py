"""Evaluation jobs beside training: what the engine's process pays for one, and what training does.

On a host over a real sshd on loopback the worker takes the processor of the machine that trains,
which a host of its own would not: the steps/s of that would say nothing. So it is the engine's
process alone that is measured there, its CPU seconds with jobs against those without. On this
machine the worker is meant to run beside training, and the rate of the steps is what counts: the
same file trains, in turn with a job and without one.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import Row, at_least, at_most, figure, skipped
from benchmarks.kit import Daemon, add_one, made_home, query, wait_for
from queue_store import jobs
from queue_store.database import open_state
from queue_store.home import Home
from queue_store.items import Priority
from queue_store.jobs import Reason
from tests.sshd_kit import MISSING, make_host

SETTLE_SECONDS = 5.0
BUDGET = 0.05
"""The default of training.monitoring_budget."""
HOST_SHARE = 1.0
"""Per cent of a core that the engine may pay while a host evaluates: training is slowed by less."""
LOOK_MS = 20.0
"""A hundredth of a core at one look every 2 s."""


def write_set(home: Home, name: str, items: int) -> None:
    """A set of short questions."""
    rows = (
        {
            "messages": [
                {"role": "user", "content": f"What is {n} + 1?"},
                {"role": "assistant", "content": str(n + 1)},
            ]
        }
        for n in range(items)
    )
    home.evaluation.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (home.evaluation / f"{name}.jsonl").write_text(text)


def configure(home: Home, **tables: str) -> None:
    """No job but those that are ordered; more tables of config.toml."""
    quiet = "[evaluation]\nafter_item = false\nversions = false\nbaseline = false\n"
    home.config.write_text("\n".join([home.config.read_text(), quiet, *tables.values()]))


def cpu(daemon: Daemon) -> float:
    """CPU seconds of the process that trains, without those of its children."""
    times = psutil.Process(daemon.status["engine"]["pid"]).cpu_times()
    return float(times.user + times.system)


def cpu_of_jobs(daemon: Daemon) -> float:
    """CPU seconds of the processes of jobs: other programs of a busy machine are not in it."""
    whole = 0.0
    for process in psutil.Process(daemon.status["engine"]["pid"]).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            whole += times.user + times.system
    return whole


def paid(daemon: Daemon, seconds: float) -> float:
    """CPU seconds that the engine's process takes in so many seconds, with nothing to do."""
    before = cpu(daemon)
    time.sleep(seconds)
    return cpu(daemon) - before


def on_a_host(quick: bool) -> list[Row]:
    """What the engine's process pays for a job that a host does."""
    label = "a job on a host, over ssh"
    if MISSING:
        return [skipped(label, f"not installed here: {', '.join(MISSING)}")]
    rounds, items = (2, 64) if quick else (4, 256)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, made_home() as home:
        host = make_host(Path(folder), "bench")
        host.start()
        values = {
            **{"ssh": "bench", "store": str(Path(folder) / "store"), "python": sys.executable},
            "ssh_config": str(host.config),
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        configure(home, hosts="\n".join(["[hosts.bench]", *lines]))
        for number in range(rounds):
            write_set(home, f"set{number}", items)
        try:
            add_one(home, 8, 20)
            with Daemon(home) as daemon:
                wait_for("a checkpoint", lambda: daemon.status["state"] == "idle")
                whole, took, share = [], [], []
                idle = paid(daemon, SETTLE_SECONDS) / SETTLE_SECONDS
                for number in range(rounds):
                    before, began = cpu(daemon), time.monotonic()
                    job = daemon.session.request(
                        "evaluate", timeout=30, model="base", sets=[f"set{number}"]
                    )
                    wait_for("the job", lambda job=job: ended(home, job["id"]), 600)
                    seconds = time.monotonic() - began
                    more = max(0.0, cpu(daemon) - before - idle * seconds)
                    whole.append(more * 1e3)
                    took.append(seconds)
                    share.append(100 * more / seconds)
        finally:
            host.stop()
    return [
        figure(f"{label}, {items} items: from the order to its end", took, "s"),
        figure("  CPU of the engine's process for it, beyond idling", whole, "ms"),
        at_most("  share of a core while it runs", share, "%", HOST_SHARE),
        figure("  idling engine, share of a core", [100 * idle], "%"),
    ]


def ended(home: Home, job: int) -> bool:
    with open_state(home) as state:
        found = jobs.get(state, job)
    if found.state in (jobs.JobState.FAILED, jobs.JobState.SUPERSEDED):
        raise RuntimeError(found.error)
    return found.ended is not None


@contextmanager
def job_here(daemon: Daemon, number: int) -> Iterator[None]:
    """A job on this machine runs while the context lasts, its worker with its model loaded."""
    job = daemon.session.request("evaluate", timeout=30, model="base", sets=[f"set{number}"])

    def runs() -> bool:
        return any(one["state"] == "running" for one in daemon.status["evaluation"]["running"])

    wait_for("the worker", runs, 600)
    try:
        yield
    finally:
        daemon.session.request("cancel_job", timeout=30, job=job["id"])
        wait_for("its end", lambda: not daemon.status["evaluation"]["running"], 60)


def steps_in(home: Home, start: float, end: float) -> float:
    """Steps a second of that time."""
    sql = "SELECT COUNT(*) FROM steps WHERE time BETWEEN ? AND ?"
    return float(query(home, sql, start, end)[0][0]) / (end - start)


def span(seconds: float) -> tuple[float, float]:
    """Wait so long; when that began and ended."""
    start = time.time()
    time.sleep(seconds)
    return start, time.time()


def here(quick: bool, threads: int) -> list[Row]:
    """Steps/s with a job on this machine against those without, in turn."""
    rounds, seconds = (3, 24.0) if quick else (5, 30.0)
    with made_home(threads=threads, epochs=1000) as home:
        configure(home)
        for number in range(rounds):
            write_set(home, f"set{number}", 20_000)
        add_one(home, 2_000, 30)
        plain, beside, after, taken = [], [], [], []
        with Daemon(home) as daemon:
            daemon.wait_step(50)
            for number in range(rounds):
                plain.append(span(seconds))
                with job_here(daemon, number):
                    asked = cpu_of_jobs(daemon)
                    beside.append(span(seconds))
                    more = max(0.0, cpu_of_jobs(daemon) - asked)
                    taken.append(100 * more / seconds / (os.cpu_count() or 1))
                after.append(span(seconds))
            daemon.session.request("pause", timeout=60)
            # Before and after: a machine of others' wins or loses speed meanwhile.
            without = [
                (steps_in(home, *one) + steps_in(home, *other)) / 2
                for one, other in zip(plain, after, strict=True)
            ]
            having = [steps_in(home, *one) for one in beside]
    ratios = [one / other for one, other in zip(having, without, strict=True)]
    of = f"{threads} of {os.cpu_count()} cores train"
    rows = [
        figure(f"a job on this machine, {of}: steps/s without", without, "1/s"),
        figure("  with it", having, "1/s"),
        at_least("  with it against without", ratios, "times", 1 - BUDGET),
    ]
    return [*rows, at_most("  share of the processor for it", taken, "%", 100 * BUDGET)]


def looking(quick: bool) -> list[Row]:
    """CPU of one look at the jobs, with many that have ended."""
    from engine.loop.evaluations import SECONDS
    from engine.loop.thread import Engine
    from queue_store import config

    with made_home() as home:
        configure(home)
        write_set(home, "set0", 8)
        engine = Engine(home, config.load(home.config))
        with open_state(home) as state:
            for number in range(200 if quick else 2000):
                made = jobs.add(
                    state,
                    model=f"checkpoint-{number}",
                    digest=f"{number:064x}",
                    step=number,
                    branch=1,
                    sets=["set0"],
                    reason=Reason.CHECKPOINT,
                    priority=Priority.LOW,
                )
                jobs.fail(state, made.id, "bench")
        taken = []
        for _ in range(50):
            started = time.thread_time()
            with open_state(home) as own:  # as the keeper does
                engine.evaluations.look(engine, own)
            taken.append((time.thread_time() - started) * 1e3)
    share = statistics.median(taken) / SECONDS / 10
    return [
        at_most("CPU of a look at the jobs, every 2 s", taken, "ms", LOOK_MS),
        figure("  share of a core", [share], "%"),
    ]


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    cores = os.cpu_count() or 1
    rows = looking(quick) + on_a_host(quick) + here(quick, cores)
    return {"rows": rows + (here(quick, 1) if cores > 1 and not quick else [])}
