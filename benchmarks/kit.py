"""A home with the tiny model and small files, and the real `trainctl --daemon` on it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from engine.sessions.client import SocketSession, connect
from queue_store import intake
from queue_store.database import State, open_metrics, open_state
from queue_store.errors import TrainctlError
from queue_store.home import Home
from queue_store.items import Item

WORDS = ["carry", "borrow", "the", "syllable", "a", "bank", "of", "tiles", "answers", "every"]
POLL_SECONDS = 0.02


@contextmanager
def made_home(**training: Any) -> Iterator[Home]:
    """A home in a temporary folder: torch on one thread, no ticks, no checkpoint but the last."""
    settings: dict[str, Any] = {
        "model": {"name": "bench", "base": "builtin:tiny"},
        "training": {
            "max_length": 128,
            "batch_size": 2,
            "effective_batch": 2,
            "threads": 1,
            "eval_steps": 0,
            "sample_steps": 0,
            "save_steps": 1_000_000,
            **training,
        },
        "snapshots": {"save_seconds": 1_000_000},
        "samples": {"count": 0},
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Home(Path(folder) / "home")
        home.create()
        home.config.write_text(tomli_w.dumps(settings))
        yield home


def write_rows(path: Path, rows: int, words: int, seed: int) -> Path:
    """Conversations of about `words` words (a bit more tokens), the same for a seed."""
    draw = random.Random(seed)
    with path.open("w") as file:
        for _ in range(rows):
            said = [draw.choice(WORDS) for _ in range(draw.randint(words // 2, words * 3 // 2))]
            third = max(1, len(said) // 3)
            turns = [
                {"role": "user", "content": " ".join(said[:third])},
                {"role": "assistant", "content": " ".join(said[third:]) or "none"},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def add(state: State, rows: int, words: int, seed: int, name: str = "rows.jsonl") -> Item:
    """A queued file of made rows."""
    path = write_rows(state.home.root / name, rows, words, seed)
    return intake.add_file(state, path)


def add_one(home: Home, rows: int, words: int, seed: int = 1) -> Item:
    """A queued file, where no connection is at hand."""
    with open_state(home) as state:
        return add(state, rows, words, seed)


def wait_for(what: str, condition: Callable[[], object], seconds: float = 120) -> None:
    """Until `condition` holds. Raises RuntimeError after `seconds`."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds:g} s")
        pause.wait(POLL_SECONDS)


def query(home: Home, sql: str, *values: Any) -> list[Any]:
    """Rows of metrics.db."""
    with closing(open_metrics(home)) as db:
        return db.execute(sql, values).fetchall()


class Daemon:
    """`trainctl --daemon` in a process of its own; a context manager that saves and ends it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainctl", "--daemon", "--home", str(home.root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self.session: SocketSession

    def __enter__(self) -> Daemon:
        wait_for("the daemon answers", self._answers)
        return self

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon ended with exit code {self.process.returncode}")
        try:
            self.session = connect(self.home, timeout=5)
        except TrainctlError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.session.request("snapshot", timeout=30)
        return found

    def wait_step(self, step: int) -> None:
        """Until that many global steps are done."""
        wait_for(f"step {step}", lambda: self.status["global_step"] >= step)
