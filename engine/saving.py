"""Checkpoints and versions as the engine thread makes them: when one is due, and the making.

A save reads what is still on the device and checks it (no bad state is ever saved), syncs the
metrics, writes the state beside, and moves the head in one transaction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from engine.live import Live
from engine.state import save_state
from engine.status import free_limit
from queue_store import durable, journal, records
from queue_store.config import Config
from queue_store.database import State
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.items import Item
from queue_store.metrics import Metrics
from snapshots import versions
from snapshots.checkpoints import CheckpointWriter
from snapshots.listing import versions_json
from snapshots.upkeep import prune_checkpoints

log = logging.getLogger("trainctl.engine")


class Saver:
    """Knows when the head was last saved. `flush` is that of the run that steps, if one does."""

    def __init__(self, home: Home, state: State, metrics: Metrics) -> None:
        self.home = home
        self.state = state
        self.metrics = metrics
        self.step = 0
        self.at = time.monotonic()
        self.flush: Callable[[], None] | None = None

    def stands_on(self, step: int) -> None:
        """The live state is that of the head's checkpoint, at `step`."""
        self.step, self.at = step, time.monotonic()

    def due(self, step: int, config: Config) -> bool:
        """Whether `save_steps` steps and `save_seconds` have passed since the last one."""
        return (
            step - self.step >= config.training.save_steps
            and time.monotonic() - self.at >= config.snapshots.save_seconds
        )

    def save(
        self,
        live: Live,
        config: Config,
        run: records.Run,
        *,
        step: int,
        item: Item | None,
        cursors: dict[int, tuple[int, int]],
        figures: dict[str, float | None],
    ) -> records.Checkpoint:
        """Write the live state as the checkpoint that the head stands on from now on.

        Raises Refused (too little room, with the numbers), OSError, NonFinite; then nothing of
        it remains and the head is where it was.
        """
        if self.flush is not None:
            self.flush()
        self.metrics.flush()
        at = records.head(self.state)
        assert at is not None
        self._require_room(at.checkpoint.size_bytes, config)
        with CheckpointWriter(self.state) as writer:
            info: dict[str, Any] = {
                "branch": at.branch,
                "step": step,
                "cursors": {str(k): list(v) for k, v in cursors.items()},
            }
            save_state(writer.folder, live.loaded, live.optimizer, live.schedule, info)
            saved = writer.commit(
                branch=at.branch,
                step=step,
                run=run.id,
                item=item.id if item else None,
                cursors=cursors,
                file=item.name if item else "",
                loss=figures.get("loss"),
                val_loss=figures.get("val_loss"),
                learning_rate=figures.get("learning_rate"),
            )
        self.stands_on(step)
        keep, best = config.snapshots.keep_checkpoints, config.snapshots.keep_best
        prune_checkpoints(self.state, keep=keep, keep_best=best)
        return saved

    def _require_room(self, size: int, config: Config) -> None:
        """Raises Refused where a save as large as the last one would leave less than stop_free."""
        free = durable.free_bytes(self.home.store)
        limit = free_limit(config.snapshots.stop_free, size)
        if size and free - size < limit:
            raise Refused(
                f"{free / 1e9:.1f} GB are free, a checkpoint takes {size / 1e9:.2f} GB and"
                f" {limit / 1e9:.1f} GB are to stay free",
                where=str(self.home.store),
                mend="free some, or lower snapshots.stop_free",
            )

    def low_disk(self, size: int, config: Config) -> str:
        """A hint where less than warn_free is left, else ""."""
        free = durable.free_bytes(self.home.store)
        if size and free < free_limit(config.snapshots.warn_free, size):
            return (
                f"{free / 1e9:.1f} GB are free on the disk of {self.home.store}, room for"
                f" {max(0, free // size)} checkpoints"
            )
        return ""

    def snapshot(
        self, at: records.Checkpoint, description: str, *, weights_only: bool, pin: bool
    ) -> dict[str, Any]:
        """A version of checkpoint `at`, verified in a child process before it is called so."""
        version = versions.create(
            self.state,
            at,
            description=description,
            scope=versions.WEIGHTS if weights_only else versions.WHOLE,
            pinned=pin,
        )
        return next(v for v in versions_json(self.state) if v["name"] == version.name)


def room(error: Refused | OSError) -> str:
    """The hint for a save that did not happen, with its reason."""
    return f"not saved: {error}: training waits; free some room, then resume"


def journal_failed_save(state: State, step: int, error: Exception) -> None:
    """A save did not happen; training is paused by the caller."""
    with state.transaction():
        text = f"not saved at step {step}: {error}"
        journal.record(state, "checkpoint.failed", text, step=step)
