"""A home with real checkpoints and no model: what the engine would write, as small files.

The database, the files, the digests and the protocols are the real ones; only the numbers in
the weights are made up (they depend on the step, so that every checkpoint differs).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

from queue_store import intake, queue, records, transitions
from queue_store.database import State, open_state
from queue_store.home import Home
from queue_store.items import Item, ItemState
from queue_store.records import Checkpoint
from snapshots.checkpoints import CheckpointWriter

ROOT = Path(__file__).parent.parent
ROW = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
LINE = json.dumps(ROW) + "\n"
ROWS = 10
Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def write_safetensors(path: Path, content: Tensors, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, written by hand."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name, (dtype, shape, data) in content.items():
        offsets = [position, position + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += len(data)
    text = json.dumps(header).encode()
    body = b"".join(data for _, _, data in content.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def flip(path: Path) -> None:
    """Change one bit of a file, whatever its mode."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


class World:
    """One home, its database, and a step counter that stands for the model."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.create()
        self.state: State = open_state(self.home)
        head = records.head(self.state) or records.start(self.state, "b" * 64, "builtin:tiny")
        self.branch, self.step = head.branch, head.checkpoint.step
        self.run = records.start_run(self.state).id

    def close(self) -> None:
        self.state.close()

    def add(self, name: str = "a.jsonl") -> Item:
        """A queued item of ROWS rows."""
        path = self.home.root / name
        path.write_text(LINE * ROWS)
        item = intake.add_file(self.state, path)
        transitions.prepared(
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
        return queue.get(self.state, item.id)

    def train(
        self, item: Item, cursor: int = ROWS, val_loss: float | None = None, **others: object
    ) -> Checkpoint:
        """Train an item up to a cursor (one row a step) and save."""
        if queue.get(self.state, item.id).state in (ItemState.QUEUED, ItemState.PAUSED):
            transitions.move_state(self.state, item.id, ItemState.PREPARING, "prepares")
            transitions.training(self.state, item.id, "trains")
        self.step += cursor - queue.get(self.state, item.id).cursor
        if cursor >= ROWS:
            transitions.trained(self.state, item.id, self.step)
        return self.save(item, {item.id: (cursor, cursor)}, val_loss)

    def save(
        self,
        item: Item | None = None,
        cursors: dict[int, tuple[int, int]] | None = None,
        val_loss: float | None = None,
    ) -> Checkpoint:
        """A checkpoint of the present step."""
        with CheckpointWriter(self.state) as writer:
            write_state(writer.folder, self.step)
            return writer.commit(
                branch=self.branch,
                step=self.step,
                run=self.run,
                item=item.id if item else None,
                cursors=cursors or {},
                loss=1.0 / (self.step + 1),
                val_loss=val_loss,
                learning_rate=2e-4,
                file=item.name if item else "",
                rows=self.step,
            )


def write_state(folder: Path, step: int) -> None:
    """The files of a training state at a step."""
    weights = hashlib.sha256(str(step).encode()).digest() * 64
    write_safetensors(folder / "model.safetensors", {"w": ("F32", (512,), weights)})
    write_safetensors(folder / "optimizer.safetensors", {"m": ("F32", (512,), weights[::-1])})
    (folder / "rng.json").write_text(json.dumps({"step": step}))
    (folder / "training_state.json").write_text(json.dumps({"global_step": step}))
    (folder / "config.json").write_text("{}")


def run_killed(code: str, root: Path, point: str) -> None:
    """Run Python in a child that kills itself at a crash point; `world` is ready in it.

    Raises AssertionError where the child came through alive.
    """
    preamble = (
        "import sys, pathlib\n"
        "from tests.store_world import *\n"
        "from queue_store import *\n"
        "world = World(pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", preamble + code, str(root)],
        env={**os.environ, "TRAINCTL_CRASH_AT": point},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, f"{point}: {done.returncode} {done.stderr}"
