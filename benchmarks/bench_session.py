"""Sessions: how long a question to an engine takes, and what asking costs the engine.

The engine is a thread that does a fixed piece of
work a step in plain Python, which is the worst case: it wants the interpreter lock at every
moment. Rounds with and without a face that polls are interleaved.
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

from engine.messages import EngineState
from engine.reading.status import disk_status, engine_status, model_status, status
from engine.reading.views import Views
from engine.sessions.client import connect
from engine.sessions.controlport import Control
from engine.sessions.dispatch import Dispatcher
from engine.sessions.server import Server
from engine.sessions.session import LocalSession, Session
from queue_store import records
from queue_store.database import open_metrics
from queue_store.home import Home

ATTACH_MS = 1000.0


class Busy:
    """An engine without a model: counts pieces of Python work, and answers commands at once."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.pieces = 0
        self._end = False
        self._status = status(
            state=EngineState.TRAINING,
            branch=1,
            global_step=1,
            queue={},
            head_checkpoint=None,
            head_version=None,
            model=model_status(name="none", method="full"),
            gpus=[],
            ram={"used": 0, "total": 0, "process": 0},
            disk=disk_status(home.store, None, 0),
            engine=engine_status(pid=1, supervisor_pid=None, mode="daemon", started=0.0),
        )
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._end = True
        self._thread.join()

    def _work(self) -> None:
        while not self._end:
            sum(range(2000))
            self.pieces += 1

    def meters(self) -> dict[str, Any]:
        return {}

    def snapshot(self) -> dict[str, Any]:
        return self._status

    def submit(self, command: str, arguments: dict[str, Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        answer.set_result({"step": self.pieces})
        return answer

    def wake(self) -> None:
        self.pieces += 0


@contextmanager
def served(home: Home, engine: Control) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(engine)
    server = Server(home, dispatcher)
    server.start()
    try:
        yield dispatcher
    finally:
        server.stop()
        dispatcher.close()


def make_home(root: Path) -> Home:
    home = Home(root)
    home.create()
    home.config.write_text("")
    return home


def milliseconds(act: Callable[[], object], times: int) -> float:
    """Median of `times` calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


def row(label: str, value: float, unit: str, target: float | None = None) -> dict[str, Any]:
    """`target` is the most that is allowed."""
    return {
        "label": label,
        "value": round(value, 3),
        "unit": unit,
        "target": "" if target is None else f"<= {target:g}",
        "met": target is None or value <= target,
    }


def fill(home: Home, steps: int) -> None:
    """A history of `steps` steps of one run."""
    with Views(home) as views:
        records.start(views.state, "0" * 64, "none")
        run = records.start_run(views.state)
        db = open_metrics(home)
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss,"
            " learning_rate, grad_norm, tokens, seconds, memory, time)"
            " VALUES(?, 1, ?, 1, 0, 1, ?, 1, 1, 1, 1, 1, 1)",
            ((run.id, n, 1 / n) for n in range(1, steps + 1)),
        )
        db.execute("COMMIT")
        db.close()
        with views.state.transaction():
            point = records.insert_checkpoint(
                views.state,
                name="c",
                kind="saved",
                branch=1,
                step=steps,
                progress=records.Progress({}, frozenset()),
                run=run.id,
                parent=0,
            )
            records.set_head(views.state, point, 1)


def share_left(engine: Busy, session: Session, rounds: int, seconds: float) -> float:
    """The engine's rate while a face polls 4 times a second, over its rate alone: the median of
    interleaved rounds."""
    ratios = []
    for _ in range(rounds):
        rates = []
        for polled in (False, True):
            end = threading.Event()
            asking = threading.Thread(target=_poll, args=(session, end)) if polled else None
            if asking:
                asking.start()
            before, started = engine.pieces, time.perf_counter()
            end.wait(seconds)
            rates.append((engine.pieces - before) / (time.perf_counter() - started))
            end.set()
            if asking:
                asking.join()
        ratios.append(rates[1] / rates[0])
    return statistics.median(ratios)


def _poll(session: Session, end: threading.Event) -> None:
    while not end.wait(0.25):
        session.request("snapshot")
        session.request("events", after=0)


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rows = []
    times = 200 if quick else 2000
    steps = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder) / "home")
        fill(home, steps)
        idle, engine = Busy(home), Busy(home)
        with served(home, idle) as dispatcher:
            local, remote = LocalSession(dispatcher), connect(home)
            rows += [
                row("round trip, socket, idle engine", _trip(remote, times), "ms", 5.0),
                row("round trip, same process, idle engine", _trip(local, times), "ms"),
                row("attach (connect and hello)", milliseconds(_attach(home), 20), "ms", ATTACH_MS),
                row(
                    f"a series of {steps:,} steps as 1,000 points",
                    milliseconds(lambda: remote.request("series", metric="loss"), 3),
                    "ms",
                    1000.0,
                ),
                row(
                    "a series' newest steps",
                    milliseconds(
                        lambda: remote.request("series", metric="loss", start=steps - 9),
                        times // 10,
                    ),
                    "ms",
                    20.0,
                ),
            ]
            remote.close()
        with served(home, engine) as dispatcher:
            engine.start()
            remote = connect(home, timeout=5)
            rows.append(
                row("round trip, socket, busy engine", _trip(remote, times // 10), "ms", 100.0)
            )
            left = share_left(engine, remote, 3 if quick else 9, 1.0)
            rows.append(row("engine's time that a polling face takes", (1 - left) * 100, "%", 5.0))
            remote.close()
            engine.end()
    return {"name": "session", "rows": rows}


def _trip(session: Session, times: int) -> float:
    return milliseconds(lambda: session.request("snapshot"), times)


def _attach(home: Home) -> Callable[[], None]:
    return lambda: connect(home).close()
