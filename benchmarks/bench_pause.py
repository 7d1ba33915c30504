"""Pause: how many steps a real engine still does after the request, and how soon it answers.

The daemon trains the tiny model; requests come over its socket at moments that have nothing to do
with its steps. Steps are counted twice: by what the engine answers, and by the times that the
steps have in metrics.db, against the clock of the asker.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

from benchmarks.figures import at_most, figure
from benchmarks.kit import Daemon, add_one, made_home, query

MOST_STEPS = 1


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    requests = 40 if quick else 200
    draw, pause = random.Random(3), threading.Event()
    done, sent, answered = [], [], []
    with made_home(epochs=100_000) as home:
        add_one(home, rows=40, words=40)
        with Daemon(home) as daemon:
            daemon.wait_step(5)
            for _ in range(requests):
                pause.wait(draw.uniform(0.0, 0.15))
                asked, started = time.time(), time.perf_counter()
                answer = daemon.session.request("pause", timeout=60)
                answered.append((time.perf_counter() - started) * 1000)
                pause.wait(0.02)
                # What a face sees now: an engine that goes on would have passed the answer's step.
                step = daemon.status["global_step"]
                done.append(step - answer["requested_step"])
                sent.append((asked, time.time()))
                daemon.session.request("resume", timeout=60)
        times = [row[0] for row in query(home, "SELECT time FROM steps ORDER BY time")]
        seconds = [row[0] * 1000 for row in query(home, "SELECT seconds FROM steps")]
    ended = [sum(start < at <= end for at in times) for start, end in sent]
    return {
        "rows": [
            at_most(
                f"steps done after a pause, most of {requests} requests",
                [max(done)],
                "steps",
                MOST_STEPS,
            ),
            figure(
                "  the same by the asker's clock (the way to the engine included)",
                [max(ended)],
                "steps",
            ),
            figure("from the request to the answer: paused", answered, "ms"),
            figure("a step, to compare with", seconds, "ms"),
        ]
    }
