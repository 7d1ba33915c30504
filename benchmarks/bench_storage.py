"""Storage: a checkpoint with digests against a plain write and fsync of the same files; a version
against `cp`; verifying against plain reading; a rollback. Interleaved, medians and spread."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from queue_store import durable, records
from queue_store.database import State, open_state
from queue_store.home import Home
from snapshots import rollback, versions
from snapshots.checkpoints import CheckpointWriter
from snapshots.digest import file_digest
from snapshots.manifest import check

REAL = 20e9
"""Bytes of a 4B model's state (bf16 weights, 8-bit optimizer)."""

TENSOR = 4 << 20
"""Bytes of a tensor, about a 1024 x 1024 matrix in fp32."""


def files(size: int) -> dict[str, bytes]:
    """A training state: weights, an optimizer of twice their size, and the small files."""
    block = os.urandom(TENSOR)

    def tensors(count: int) -> bytes:
        header = {
            f"layer.{n}": {
                "dtype": "F32",
                "shape": [1024, TENSOR // 4096],
                "data_offsets": [n * TENSOR, (n + 1) * TENSOR],
            }
            for n in range(count)
        }
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + block * count

    third = max(1, size // 3 // TENSOR)
    return {
        "model.safetensors": tensors(third),
        "optimizer.safetensors": tensors(2 * third),
        "rng.json": b"{}" * 4000,
        "training_state.json": b"{}",
        "tokenizer.json": b" " * 2_000_000,
    }


def write(folder: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        with (folder / name).open("wb") as file:
            file.write(data)


def plain(home: Home, content: dict[str, bytes]) -> float:
    """Write the files, fsync each and the folder: what any program that cares would do."""
    folder = durable.new_tmp(home, "plain")
    started = time.perf_counter()
    write(folder, content)
    for name in content:
        durable.fsync_file(folder / name)
    durable.fsync_folder(folder)
    seconds = time.perf_counter() - started
    durable.discard(folder, home)
    return seconds


def digested(state: State, content: dict[str, bytes], step: int, run: int) -> float:
    """The same files as a checkpoint: digests, ledger, manifest, publishing, transaction."""
    head = records.head(state)
    assert head is not None
    started = time.perf_counter()
    with CheckpointWriter(state) as writer:
        write(writer.folder, content)
        writer.commit(
            branch=head.branch,
            step=step,
            run=run,
            item=None,
            cursors={},
            loss=1.0,
            val_loss=None,
            learning_rate=1e-4,
        )
    return time.perf_counter() - started


def timed(act: Callable[[], Any]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def copied(source: Path, target: Path) -> float:
    """`cp` of a folder and the syncing of it: the other way to keep a state."""

    def act() -> None:
        shutil.copytree(source, target)
        for path in target.iterdir():
            durable.fsync_file(path)

    seconds = timed(act)
    shutil.rmtree(target)
    return seconds


def row(label: str, value: float, unit: str, target: str, met: bool) -> dict[str, Any]:
    return {"label": label, "value": value, "unit": unit, "target": target, "met": met}


def spread(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def run(quick: bool) -> dict[str, Any]:
    """Rows of the benchmark's table. `quick`: 192 MB and 5 rounds instead of 1 GB and 7."""
    size, rounds = (192 << 20, 5) if quick else (1 << 30, 7)
    root = Path(tempfile.mkdtemp(prefix="bench-storage-"))
    home = Home(root)
    try:
        with open_state(home) as state:
            return _run(home, state, files(size), rounds)
    finally:
        shutil.rmtree(root)


def _run(home: Home, state: State, content: dict[str, bytes], rounds: int) -> dict[str, Any]:
    total = sum(map(len, content.values()))
    records.start(state, "0" * 64, "bench")
    number = records.start_run(state).id
    ratios: list[float] = []
    pure: list[float] = []
    ours: list[float] = []
    plain(home, content)
    for n in range(rounds):
        if n % 2:  # which of the two comes first alternates, or the disk's mood decides
            ours.append(digested(state, content, n + 1, number))
            pure.append(plain(home, content))
        else:
            pure.append(plain(home, content))
            ours.append(digested(state, content, n + 1, number))
        ratios.append(ours[-1] / pure[-1])
        for old in records.checkpoints(state)[1:-1]:
            records.mark_deleted(state, old.id, "benchmark")
            durable.discard(home.checkpoints / old.name, home)
    head = records.head(state)
    assert head is not None
    folder = home.checkpoints / head.checkpoint.name
    making, copying = [], []
    for _ in range(3):
        copying.append(copied(folder, home.tmp / "copy"))
        making.append(timed(lambda: versions.create(state, verified=False)))
    names = [folder / name for name in content]
    reading = [timed(lambda: list(map(_read, names))) for _ in range(3)]
    checking = [timed(lambda: check(folder, from_medium=True)) for _ in range(3)]
    versions.verify(state, "v001")
    digested(state, content, rounds + 5, number)
    whole = timed(lambda: rollback.apply(state, rollback.plan(state, "v001")))
    ratio = statistics.median(ratios)
    copy_rate = total / statistics.median(copying)
    # Linking costs the same for any size, copying does not: compare at the size of a real state.
    linked = statistics.median(making) / (REAL / copy_rate)
    rate = statistics.median(reading) / statistics.median(checking)
    digest = timed(lambda: [file_digest(name) for name in names])
    return {
        "name": "storage",
        "bytes": total,
        "rows": [
            row(
                "checkpoint with digests / plain write+fsync",
                round(ratio, 3),
                "x",
                "<= 1.05",
                ratio <= 1.05,
            ),
            row(
                "  spread of that ratio",
                round(statistics.pstdev(ratios), 3),
                spread(ratios),
                "",
                True,
            ),
            row(
                "  plain write+fsync",
                round(total / statistics.median(pure) / 1e6),
                "MB/s",
                "",
                True,
            ),
            row(
                "version create / cp+fsync of 20 GB, at cp's measured rate",
                round(linked, 5),
                "x",
                "<= 0.01",
                linked <= 0.01,
            ),
            row("  version create", round(1e3 * statistics.median(making), 1), "ms", "", True),
            row("verify / plain read from the disk", round(rate, 3), "x", ">= 0.8", rate >= 0.8),
            row(
                "  BLAKE3 of files in the page cache", round(total / digest / 1e6), "MB/s", "", True
            ),
            row(
                "rollback to a verified version, without loading",
                round(whole, 3),
                "s",
                "< 1",
                whole < 1,
            ),
        ],
    }


def _read(path: Path) -> None:
    """Read a file from the disk, not from the page cache."""
    buffer = bytearray(4 << 20)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.readinto(buffer):
            pass


if __name__ == "__main__":
    print(json.dumps(run(quick=True), indent=1))
