"""What the ticks of an item look at: the held-out packs and the fixed examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.prepare import profiles
from engine.prepare.render import Renderer
from engine.prepare.template import ModelText
from engine.training import examples
from engine.training.controls import Place
from engine.training.items import Ready, validation_sets
from engine.training.looking import Monitoring
from engine.training.position import Packs
from engine.training.ticks import Monitor
from queue_store.errors import DataError, TrainctlError
from queue_store.items import Item
from queue_store.metrics import SPLIT

if TYPE_CHECKING:
    from engine.loop.worker import Worker


class Watch:
    """Lives as long as the engine thread: the time budget goes on over items."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.monitor = Monitor(worker.config.training.monitoring_budget)
        self.fixed: dict[str, examples.Fixed] = {}
        self.profile = profiles.find("none")
        self._packs: dict[str, Packs] = {}
        self._answered: dict[Place, set[str]] = {}
        self._renderer: tuple[object, Renderer] | None = None

    def look_at(
        self, item: Item, ready: Ready, folder: Path, cancelled: Callable[[], bool]
    ) -> None:
        """Take the sets as they are now, some rows of the item, and those that it keeps for
        validation; asked and packed with the settings that the item trains with. Where a host
        answers the samples (samples.where), nothing is asked here.

        A set that cannot be read is a hint, not the item's failure; so is the item's own file, of
        which all that trains is prepared.
        """
        worker = self.worker
        config = worker.config
        self.monitor.budget = config.training.monitoring_budget
        self._packs = {}
        try:
            if config.samples_on_host:
                self.fixed = {}
            else:
                self._choose(item, ready, folder)
            self._packs.update(
                validation_sets(worker.home, config, ready.settings, folder, cancelled)
            )
        except TrainctlError as error:
            worker.warn(f"a held-out set cannot be used: {error}")
        if ready.prepared.validation.rows:
            self._packs[SPLIT] = ready.prepared.validation

    def _choose(self, item: Item, ready: Ready, folder: Path) -> None:
        worker = self.worker
        config = worker.config
        renderer = self._renderer_of(ready, folder)
        self.fixed = examples.choose(worker.home, config, renderer)
        if count := config.samples.item_count:
            try:
                self.fixed |= examples.of_item(worker.home, item, ready.prepared, count, renderer)
            except DataError as error:  # it is the item's own file, and of no set
                worker.warn(
                    f"no row of item {item.id}, {item.name}, is asked, for its file cannot be read"
                    f" again: {error.where}: {error.what}"
                )
        worker.metrics.set_examples([f.row for f in self.fixed.values()])

    def _renderer_of(self, ready: Ready, folder: Path) -> Renderer:
        """Text as the item's rows have it; kept while nothing of it changes, for a large vocabulary
        takes up to a second to load."""
        data, model = ready.settings.data, ModelText(folder)
        made_of = (model.fingerprint, ready.prepared.rendering.get("profile_digest"), data)
        if self._renderer is None or self._renderer[0] != made_of:
            self.profile = profiles.find(data.profile)
            made = Renderer(model, data.system_prompt, data.thinking, self.profile)
            self._renderer = made_of, made
        return self._renderer[1]

    def monitoring(self) -> Monitoring:
        """For the run of the item that was looked at last."""
        return Monitoring(
            self.monitor,
            dict(self._packs),
            [f.prompt for f in self.fixed.values()],
            self.worker.config.samples.max_tokens,
            {name: f.expected for name, f in self.fixed.items()},
            frozenset(self.worker.config.samples.schedule),
            self._answered,
        )
