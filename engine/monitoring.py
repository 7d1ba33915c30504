"""What the ticks of an item look at: the held-out packs and the fixed examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine import examples
from engine.items import validation_sets
from engine.position import Packs
from engine.prepare.prepared import Prepared
from engine.run import Monitoring
from engine.ticks import Monitor
from queue_store.errors import TrainctlError
from queue_store.metrics import SPLIT

if TYPE_CHECKING:
    from engine.worker import Worker


class Watch:
    """Lives as long as the engine thread: the time budget goes on over items."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.monitor = Monitor(worker.config.training.monitoring_budget)
        self.fixed: dict[str, examples.Fixed] = {}
        self._packs: dict[str, Packs] = {}

    def look_at(self, prepared: Prepared, folder: Path, cancelled: Callable[[], bool]) -> None:
        """Take the sets as they are now, and the rows that the item keeps for validation.

        A set that cannot be read is a hint, not the item's failure.
        """
        worker = self.worker
        config = worker.config
        self.monitor.budget = config.training.monitoring_budget
        self._packs = {}
        try:
            self.fixed = examples.choose(worker.home, config)
            worker.metrics.set_examples([f.row for f in self.fixed.values()])
            self._packs.update(validation_sets(worker.home, config, folder, cancelled))
        except TrainctlError as error:
            worker.warn(f"a held-out set cannot be used: {error}")
        if prepared.validation.rows:
            self._packs[SPLIT] = prepared.validation

    def monitoring(self) -> Monitoring:
        """For the run of the item that was looked at last."""
        return Monitoring(
            self.monitor,
            dict(self._packs),
            [f.prompt for f in self.fixed.values()],
            self.worker.config.samples.max_tokens,
        )
