"""What safety costs on the disk: a version against `cp -r`, verifying against plain reading,
training beside a verification, and going back. All on a real state that a model really trains.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench_saving import Trained, make_model, timed
from benchmarks.bench_storage import REAL, TENSOR
from benchmarks.bench_storage import _read as read_cold
from benchmarks.figures import Row, at_least, at_most, figure
from benchmarks.kit import Daemon, add_one, made_home, query
from engine.training.live import load_live
from queue_store import config as configuration
from queue_store import durable, programs, records
from queue_store.database import State, open_state
from queue_store.home import Home
from snapshots import child, rollback, versions
from snapshots.checkpoints import CheckpointWriter

CREATE, NEW_DISK, VERIFY, SLOWED, BACK = 0.01, 1.0, 0.8, 1.03, 1.0


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rounds, size = (3, 2 << 30) if quick else (7, 4 << 30)
    with made_home() as home, open_state(home) as state:
        checkpoint = made_checkpoint(state, size)
        rows = _created(home, state, checkpoint, rounds)
        rows += _verified(home, state, 2 * rounds + 1)
        rows += _trained_beside(home.versions / versions.versions(state)[0].name, 2 * rounds)
    with made_home() as home:
        make_model(home.root / "model")
        with open_state(home) as state:
            trained = Trained(home, state, configuration.load(home.config))
            try:
                trained.step()
                trained.in_line()
                versions.create(state)
                rows += _went_back(trained, rounds)
            finally:
                trained.saver.close()
                trained.metrics.close()
    return {"rows": rows}


def made_checkpoint(state: State, size: int) -> records.Checkpoint:
    """A checkpoint of about `size` bytes, weights and an optimizer of twice their size."""
    records.start(state, "0" * 64, "bench")
    run, block = records.start_run(state).id, os.urandom(TENSOR)
    with CheckpointWriter(state) as writer:
        for name, count in (("model", size // 3 // TENSOR), ("optimizer", 2 * size // 3 // TENSOR)):
            header = {
                f"layer.{n}": {
                    "dtype": "U8",
                    "shape": [TENSOR],
                    "data_offsets": [n * TENSOR, (n + 1) * TENSOR],
                }
                for n in range(count)
            }
            text = json.dumps(header).encode()
            with (writer.folder / f"{name}.safetensors").open("wb") as file:
                file.write(struct.pack("<Q", len(text)) + text)
                for _ in range(count):
                    file.write(block)
        return writer.commit(
            branch=1,
            step=1,
            run=run,
            item=None,
            cursors={},
            loss=1.0,
            val_loss=None,
            learning_rate=1e-4,
        )


def _created(home: Home, state: State, checkpoint: records.Checkpoint, rounds: int) -> list[Row]:
    """A version of a checkpoint, against `cp -r` of its folder and the syncing of that copy: a
    version is on the disk when it is made."""
    source, target = home.checkpoints / checkpoint.name, home.tmp / "copy"
    size = checkpoint.size_bytes
    made, copied, plain, disk = [], [], [], []

    def create() -> None:
        made.append(timed(lambda: versions.create(state, verified=False)))
        disk.append(new_disk(home.versions / versions.versions(state)[-1].name) / 1e6)

    def copy() -> None:
        command = ["cp", "-r", str(source), str(target)]
        plain.append(timed(lambda: subprocess.run(command, check=True)))
        synced = timed(lambda: [durable.fsync_file(path) for path in target.iterdir()])
        copied.append(plain[-1] + synced)
        shutil.rmtree(target)

    for n in range(rounds):
        for act in (create, copy) if n % 2 else (copy, create):
            act()
    ratios = [a / b for a, b in zip(made, copied, strict=True)]
    linked = statistics.median(made) / (REAL / (size / statistics.median(copied)))
    about = f"{size / 1e9:.1f} GB"
    return [
        at_most(f"version create / cp -r and sync, {about}", ratios, "x", CREATE),
        at_most("  the same of 20 GB, at the rate of this copy", [linked], "x", CREATE),
        figure("  version create", [1000 * s for s in made], "ms"),
        figure(f"  cp -r and sync of {about}", copied, "s"),
        figure(f"  cp -r of {about} into the page cache", plain, "s"),
        at_most("new disk of a version", disk, "MB", NEW_DISK),
    ]


def new_disk(folder: Path) -> int:
    """Bytes of disk that a folder takes beside what others share: its own blocks, and those of
    files that have no other name."""
    places = [folder, *folder.rglob("*")]
    infos = [place.lstat() for place in places]
    alone = [i for p, i in zip(places, infos, strict=True) if i.st_nlink == 1 or p.is_dir()]
    return sum(info.st_blocks * 512 for info in alone)


def _verified(home: Home, state: State, rounds: int) -> list[Row]:
    """Verifying as it is done (a child at idle priority), against reading the same files; neither
    from the page cache."""
    version = versions.versions(state)[0]
    folder = home.versions / version.name
    files = [p for p in folder.iterdir() if p.is_file()]
    ratios, rates, whole = [], [], []
    read, verified = [], []

    def reads() -> None:
        read.append(timed(lambda: [read_cold(file) for file in files]))

    def verifies() -> None:
        whole.append(timed(lambda: verified.append(verify_once(folder))))

    for n in range(rounds):
        for act in (reads, verifies) if n % 2 else (verifies, reads):
            act()
        ratios.append(read[-1] / verified[-1])
        rates.append(version.size_bytes / verified[-1] / 1e6)
    return [
        at_least("verify / plain read, both from the disk", ratios, "x", VERIFY),
        figure("  verify", rates, "MB/s"),
        figure("  verify with the start of its process", whole, "s"),
    ]


def verify_once(folder: Path) -> float:
    """The seconds that a verifying child took for the reading."""
    return float(child.run("snapshots.verify", [str(folder)], where=str(folder))["seconds"])


def _went_back(trained: Trained, rounds: int) -> list[Row]:
    """Back to a version that was verified before, from a state ahead of it."""
    state, name = trained.state, versions.versions(trained.state)[0].name
    versions.verify(state, name)
    seconds, loading = [], []
    for _ in range(rounds):
        trained.step()
        trained.in_line()
        made = rollback.plan(state, name)
        seconds.append(timed(lambda made=made: rollback.apply(state, made)))  # type: ignore[misc]
        head = records.head(state)
        assert head is not None
        config = trained.config
        started = time.perf_counter()
        trained.live = load_live(trained.home, config, head.checkpoint)
        loading.append(time.perf_counter() - started)
        trained.line = records.start_run(state)
        for version in versions.versions(state)[1:]:  # the disk is not ours
            folder = trained.home.versions / version.name
            if folder.exists():
                durable.discard(folder, trained.home)
    return [
        at_most("rollback to a version verified before, without loading", seconds, "s", BACK),
        figure("  loading it: model, optimizer, generators", loading, "s"),
    ]


READER = """
import os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with os.fdopen(fd, "rb", buffering=0) as file:
        block = bytearray(4 << 20)
        while file.readinto(block):
            pass
"""


def read_once(folder: Path) -> None:
    """What a verification cannot do without: its files from the disk, at its priority."""
    files = [str(path) for path in folder.iterdir() if path.is_file()]
    programs.run([sys.executable, "-I", "-S", "-c", READER, *files])


@contextmanager
def repeating(act: Callable[[Path], object], folder: Path) -> Iterator[None]:
    """The act again and again, while the block runs."""
    over = threading.Event()

    def loop() -> None:
        while not over.is_set():
            act(folder)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _trained_beside(folder: Path, rounds: int, seconds: float = 3.0) -> list[Row]:
    """Seconds of a step of the tiny model on one thread: alone, beside verifications, and beside
    plain reading of the same files at the same priority."""
    pause = threading.Event()
    beside: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "alone": contextlib.nullcontext,
        "verified": lambda: repeating(verify_once, folder),
        "read": lambda: repeating(read_once, folder),
    }
    windows: list[tuple[str, float, float]] = []
    with made_home(epochs=100_000) as home:
        add_one(home, rows=40, words=40)
        with Daemon(home) as daemon:
            daemon.wait_step(20)
            for n in range(rounds):
                for name in list(beside)[:: -1 if n % 2 else 1]:
                    with beside[name]():
                        pause.wait(0.5)  # children and caches of the window before
                        started = time.time()
                        pause.wait(seconds)
                        windows.append((name, started, time.time()))
        times = [row[0] for row in query(home, "SELECT time FROM steps ORDER BY time")]
    rates: dict[str, list[float]] = {name: [] for name in beside}
    for name, started, ended in windows:
        rates[name].append(sum(started < t <= ended for t in times) / (ended - started))

    def slower(than: str, name: str) -> list[float]:
        return [a / b for a, b in zip(rates[than], rates[name], strict=True)]

    return [
        at_most("a step beside verifications / alone", slower("alone", "verified"), "x", SLOWED),
        figure("  beside plain reading, same priority / alone", slower("alone", "read"), "x"),
        figure("  beside verifications / beside plain reading", slower("read", "verified"), "x"),
        figure("  steps alone", rates["alone"], "steps/s"),
    ]
