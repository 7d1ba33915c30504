"""A home with the real stores and protocols, and a model that is a hash chain over its rows.

Every row that trains goes into the chain, so two worlds have the same weights only where the
same rows trained in the same order, each once: what a real model shows in minutes, this one shows
in milliseconds. No torch. `Ears` is how acknowledgements leave the process that may be killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.loop import recovery
from queue_store import durable, intake, queue, records, transitions
from queue_store.errors import VerificationFailed
from queue_store.home import Home
from queue_store.items import Item, ItemState
from queue_store.metrics import Metrics, StepMetric
from queue_store.records import Checkpoint
from snapshots import versions
from snapshots.checkpoints import CheckpointWriter, open_checkpoint
from tests import store_world

ROWS = store_world.ROWS
BASE = hashlib.sha256(b"base").hexdigest()
EARS = "TRAINCTL_FAULTS_EARS"
"""The file descriptor of the socket on which a world says what was acknowledged."""


def tell(kind: str, **what: Any) -> None:
    """Acknowledge something to whoever listens outside. By `send`: faults are put into writes."""
    fd = os.environ.get(EARS)
    if fd:
        with socket.socket(fileno=os.dup(int(fd))) as mouth:
            mouth.send(json.dumps({"kind": kind, **what}).encode())


class Ears:
    """The outer end: hears what a world acknowledged, until and after its death."""

    def __init__(self) -> None:
        self.here, self.there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.here.setblocking(False)
        self.there.set_inheritable(True)
        self.heard: list[dict[str, Any]] = []

    def listen(self) -> list[dict[str, Any]]:
        """All that was acknowledged so far."""
        while True:
            try:
                data = self.here.recv(1 << 16)
            except BlockingIOError:
                return self.heard
            if not data:
                return self.heard
            self.heard.append(json.loads(data))

    @property
    def fd(self) -> int:
        return self.there.fileno()

    def close(self) -> None:
        self.here.close()
        self.there.close()


@contextmanager
def ears() -> Iterator[Ears]:
    made = Ears()
    try:
        yield made
    finally:
        made.close()


def rows_of(name: str) -> str:
    """ROWS lines that no other file has."""
    return store_world.LINE.replace("1+1?", f"{name}?") * ROWS


def chain(before: str, item: str, cursor: int) -> str:
    """The model after one more row."""
    return hashlib.sha256(f"{before} {item} {cursor}".encode()).hexdigest()


class FaultWorld(store_world.World):
    """One home with an engine's duties: it loads the head, steps, saves, verifies."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.metrics = Metrics(self.home)
        self.model = self.loaded()

    def loaded(self) -> str:
        """The head's weights, as an engine would load them: every byte checked first."""
        at = records.head(self.state)
        assert at is not None
        if at.checkpoint.kind == "base":
            return BASE
        folder = open_checkpoint(self.state, at.checkpoint)
        model = json.loads((folder / "training_state.json").read_text())["model"]
        assert isinstance(model, str)
        return model

    def stand_on_head(self) -> None:
        """The head was moved: another run of steps begins there."""
        at = records.head(self.state)
        assert at is not None
        self.branch, self.step = at.branch, at.checkpoint.step
        self.model = self.loaded()
        self.run = records.start_run(self.state).id

    def close(self) -> None:
        self.metrics.close()
        super().close()

    def queued(self, name: str) -> Item:
        """An item by the way of `trainctl add`, acknowledged."""
        path = self.home.root / name
        path.write_text(rows_of(name))
        item = self.ready(intake.add_file(self.state, path))
        tell("item", id=item.id, name=item.name, digest=item.digest)
        return item

    def ready(self, item: Item) -> Item:
        """An item that was prepared (a file from the inbox or from recovery is not yet)."""
        if item.rows is None:
            return transitions.prepared(
                self.state,
                item.id,
                key="k",
                settings={},
                rows=ROWS,
                epochs=1,
                steps=ROWS,
                held_out=0,
                report={},
            )
        return item

    def claim(self) -> Item | None:
        """The next item, preparing, as the engine takes it."""
        item = transitions.claim(self.state)
        return None if item is None else self.ready(item)

    def steps(self, item: Item, cursor: int) -> None:
        """Train an item that was claimed up to a cursor, one row a step; nothing is saved."""
        item = queue.get(self.state, item.id)
        if item.state is ItemState.PREPARING:
            transitions.training(self.state, item.id, "trains")
        for at in range(self.reached(item), cursor):
            self.step += 1
            self.model = chain(self.model, item.digest, at)
            self.metrics.add_step(
                self.run,
                StepMetric(
                    *(self.branch, self.step, item.id, at, at + 1),
                    loss=1.0 / self.step,
                    learning_rate=2e-4,
                    grad_norm=1.0,
                    tokens=10,
                    seconds=0.01,
                    memory=0,
                ),
            )
        if cursor >= ROWS:
            transitions.trained(self.state, item.id, self.step)
        self.live[item.id] = cursor

    @property
    def live(self) -> dict[int, int]:
        """Cursors since the head, of this run."""
        return self.__dict__.setdefault(f"live{self.run}", {})  # a new run knows none

    def reached(self, item: Item) -> int:
        return self.live.get(item.id, item.cursor)

    def saved(self, item: Item | None = None, model: str = "") -> Checkpoint:
        """A checkpoint of the present moment, acknowledged with what it made done."""
        self.metrics.flush()
        before = self._done()
        cursors = {
            one.id: (self.reached(one), self.reached(one))
            for one in queue.items(self.state)
            if self.reached(one) and one.state is not ItemState.DONE
        }
        with CheckpointWriter(self.state) as writer:
            write_model(writer.folder, model or self.model, self.step)
            made = writer.commit(
                branch=self.branch,
                step=self.step,
                run=self.run,
                item=item.id if item else None,
                cursors=cursors,
                loss=1.0 / (self.step + 1),
                val_loss=None,
                learning_rate=2e-4,
                file=item.name if item else "",
                rows=self.step,
            )
        tell("checkpoint", name=made.name, weights_digest=made.weights_digest, step=made.step)
        for number in sorted(self._done() - before):
            tell("done", id=number)
        return made

    def _done(self) -> set[int]:
        return {item.id for item in queue.items(self.state, ItemState.DONE)}

    def version(self, description: str = "") -> versions.Version:
        """A version of the head, acknowledged when made and again when verified."""
        made = versions.create(self.state, description=description, verified=False)
        tell("version", name=made.name, weights_digest=made.weights_digest)
        made = versions.verify(self.state, made.name)
        tell("version", name=made.name, weights_digest=made.weights_digest, verified=True)
        return made

    def train_all(self, save_every: int = 5) -> None:
        """What an engine does with the queue: everything, in order, saved on the way."""
        while (item := self.claim()) is not None:
            while self.reached(item) < ROWS:
                self.steps(item, min(self.reached(item) + save_every, ROWS))
                self.saved(item)
                item = queue.get(self.state, item.id)

    def verify_all(self) -> None:
        """What the keeper does with versions that nobody read back yet."""
        for version in versions.versions(self.state):
            if version.state == "unverified":
                with suppress(VerificationFailed):  # it is marked
                    versions.verify(self.state, version.name)


def write_model(folder: Path, model: str, step: int) -> None:
    """The files of a training state: tensors made of the chain's value."""
    weights = bytes.fromhex(model) * 64
    store_world.write_safetensors(
        folder / "model.safetensors",
        {"w": ("F32", (512,), weights), "b": ("U8", (32,), weights[:32])},
    )
    store_world.write_safetensors(
        folder / "optimizer.safetensors", {"m": ("F32", (512,), weights[::-1])}
    )
    (folder / "rng.json").write_text(json.dumps({"step": step}))
    (folder / "training_state.json").write_text(json.dumps({"global_step": step, "model": model}))
    (folder / "config.json").write_text("{}")


def recover(home: Home) -> list[str]:
    """What an engine does before its first step, as a process of its own would."""
    from queue_store.database import open_state

    with open_state(home) as state:
        metrics = Metrics(home)
        try:
            return recovery.recover(state, metrics)
        finally:
            metrics.close()


def expected_model(home: Home) -> tuple[str, str]:
    """The chain over the rows on the head's line (by metrics.db), and the head's own."""
    from queue_store.database import open_metrics, open_state

    with open_state(home) as state:
        line = records.line(state, live=False)
        digests = {item.id: item.digest for item in queue.items(state)}
        at = records.head(state)
        assert at is not None
        has = BASE
        if at.checkpoint.kind != "base":
            folder = open_checkpoint(state, at.checkpoint)
            has = json.loads((folder / "training_state.json").read_text())["model"]
    db = open_metrics(home)
    model = BASE
    for row in db.execute("SELECT * FROM steps ORDER BY step, id"):
        if any(row["run"] == n and (m is None or row["step"] <= m) for n, m in line):
            for cursor in range(row["cursor_from"], row["cursor_to"]):
                model = chain(model, digests[row["item"]], cursor)
    db.close()
    return model, has


def traced(act: Callable[[], None]) -> list[str]:
    """The crash points that `act` passes, in their order, with the pass: "publish.done:2"."""
    passed: list[str] = []
    original = durable.crash_point

    def note(name: str) -> None:
        passed.append(f"{name}:{1 + sum(one.rpartition(':')[0] == name for one in passed)}")
        original(name)

    durable.crash_point = note
    try:
        act()
    finally:
        durable.crash_point = original
    return passed


class _Inline:
    """A pool that does the work at once: system calls come in one order, in one thread."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, act: Callable[..., Any], *given: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(act(*given))
        except BaseException as error:
            done.set_exception(error)
        return done

    def map(self, act: Callable[..., Any], over: Any) -> list[Any]:
        return [act(one) for one in over]


def one_thread() -> None:
    """For faults at the Nth call: the pools of this process work in line, and a version is read
    back here (the real child takes longer to start than all else; other tests have it)."""
    from snapshots import checkpoints, digest, verify

    for module in (checkpoints, digest):
        module.ThreadPoolExecutor = _Inline  # type: ignore[assignment,misc]

    def read_back(folder: Path, expected: str | None = None, **_: object) -> verify.Outcome:
        return verify.Outcome.of(verify.verify(folder, expected))

    versions.read_back = read_back
