"""A home with a real tiny model and real files, and an engine on it: what engine tests drive."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import tomli_w

from engine.loop.thread import Engine
from queue_store import config as configuration
from queue_store import intake, queue, records
from queue_store.database import State, open_metrics, open_state
from queue_store.home import Home
from queue_store.items import Item, ItemState, Priority
from queue_store.lock import EngineLock
from tests.waiting import wait_until

SETTINGS: dict[str, Any] = {
    "model": {"name": "kit", "base": "builtin:tiny"},
    "training": {
        "max_length": 128,
        "batch_size": 1,
        "effective_batch": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 10,
        "threads": 1,
        "eval_steps": 0,
        "sample_steps": 0,
        "save_steps": 5,
    },
    "snapshots": {"save_seconds": 0},
    "queue": {"quiet_seconds": 0.0},
    "samples": {"count": 0, "item_count": 0, "schedule": []},
    # Who tests evaluation jobs switches on what they are made of.
    "evaluation": {"after_item": False, "versions": False, "baseline": False},
}
ROOT = Path(__file__).parents[1]


def make_home(folder: Path, **changes: dict[str, Any]) -> Home:
    """A home whose config.toml is SETTINGS with `changes` per section."""
    settings = {k: {**v, **changes.get(k, {})} for k, v in SETTINGS.items()}
    settings |= {k: v for k, v in changes.items() if k not in settings}
    home = Home(folder)
    home.create()
    home.config.write_text(tomli_w.dumps(settings))
    return home


def write_rows(path: Path, rows: int, seed: int) -> Path:
    """A file of short arithmetic conversations, one or two turns, the same for a seed."""
    draw = random.Random(seed)
    lines = []
    for _ in range(rows):
        messages = []
        for _ in range(draw.choice((1, 1, 2))):
            a, b = draw.randrange(100), draw.randrange(100)
            messages += [
                {"role": "user", "content": f"What is {a} + {b}?"},
                {"role": "assistant", "content": f"{a} + {b} = {a + b}"},
            ]
        lines.append(json.dumps({"messages": messages}))
    path.write_text("\n".join(lines) + "\n")
    return path


def add(
    home: Home, name: str, rows: int = 24, seed: int = 1, priority: Priority = Priority.NORMAL
) -> Item:
    """A queued file."""
    path = write_rows(home.root / name, rows, seed)
    with open_state(home) as state:
        return intake.add_file(state, path, priority=priority)


class Running:
    """An engine in this process, with the home's lock held; a context manager that stops it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.lock = EngineLock.acquire(home, "test")
        self.engine = Engine(home, configuration.load(home.config), mode="daemon")

    def __enter__(self) -> Running:
        self.engine.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.engine.ended:
            self.engine.request_stop()
        assert self.engine.join(120), "the engine did not end"
        self.lock.release()

    @property
    def status(self) -> dict[str, Any]:
        return self.engine.snapshot()

    @property
    def step(self) -> int:
        return self.engine.board.global_step

    def ask(self, command: str, **arguments: Any) -> Any:
        """A command, and its result."""
        return self.engine.submit(command, arguments).result(120)

    def unpause(self) -> None:
        """Resume, where a pause outlived the last engine."""
        wait_until(lambda: self.status["state"] != "starting", timeout=180)
        if self.status["paused"]:
            self.ask("resume")

    def pause_at(self, step: int) -> None:
        """Pause exactly at a global step, whatever the machine's speed: asked for on the engine
        thread, when that step is reported. Returns when paused."""
        board, asked = self.engine.board, []
        original = board.step

        def reported(metric: Any) -> None:
            original(metric)
            if metric.step == step:
                asked.append(self.engine.submit("pause", {}))
                board.step = original  # type: ignore[method-assign]

        board.step = reported  # type: ignore[method-assign]
        self.unpause()
        wait_until(lambda: asked, timeout=120, what=f"step {step}")
        assert asked[0].result(60) == {
            "requested_step": asked[0].result()["step"] - 1,
            "step": step,
        }

    def wait_step(self, step: int) -> None:
        """Until that many global steps are done."""
        wait_until(lambda: self.step >= step or self.engine.ended, timeout=120)

    def wait_trained(self) -> None:
        """Until nothing is left to train and the last of it is saved."""

        def quiet() -> bool:
            if self.engine.ended:
                return True
            if self.status.get("state") != "idle":
                return False  # no look into the database beside every step
            with open_state(self.home) as state:
                left = {i.state for i in queue.items(state)} - {
                    ItemState.DONE,
                    ItemState.SKIPPED,
                    ItemState.FAILED,
                    ItemState.REJECTED,
                }
            return not left and self.status.get("state") == "idle"

        wait_until(quiet, timeout=180)
        assert self.engine.error is None, str(self.engine.error)


def head(home: Home) -> records.Checkpoint:
    """The checkpoint that the home stands on."""
    with open_state(home) as state:
        at = records.head(state)
        assert at is not None
        return at.checkpoint


def train_all(home: Home) -> str:
    """Train the whole queue undisturbed; the digest of the weights."""
    with Running(home) as running:
        running.unpause()
        running.wait_trained()
    return head(home).weights_digest


def steps(home: Home, item: int | None = None) -> list[dict[str, Any]]:
    """The steps on the head's line, oldest first, as metrics.db has them."""
    with open_state(home) as state:
        line = records.line(state, live=False)
    db = open_metrics(home)
    rows = [dict(r) for r in db.execute("SELECT * FROM steps ORDER BY step, id")]
    db.close()
    kept = [
        r for r in rows if any(r["run"] == n and (m is None or r["step"] <= m) for n, m in line)
    ]
    return [r for r in kept if item is None or r["item"] == item]


def assert_each_row_once(home: Home, item: int) -> None:
    """The cursor's intervals of an item tile its rows without a gap or an overlap."""
    with open_state(home) as state:
        found = queue.get(state, item)
    at = 0
    for row in steps(home, item):
        assert row["cursor_from"] == at, (row["cursor_from"], at)
        at = row["cursor_to"]
    assert found.rows is not None and found.epochs is not None
    assert at == found.rows * found.epochs


def states(home: Home) -> dict[str, str]:
    """Item names and their states."""
    with open_state(home) as state:
        return {i.name: i.state.value for i in queue.items(state)}


def opened(home: Home) -> State:
    return open_state(home)
