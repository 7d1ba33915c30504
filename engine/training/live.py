"""The live training state: model, optimizer and schedule, as the head has them.

Loaded whole from the head's checkpoint, at the start and whenever the head has moved back; the
engine thread owns it from then on, through all items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.training.base import resolve_base
from engine.training.freeing import give_pages
from engine.training.model import LoadedModel, configure_process, load_model
from engine.training.optim import by_rule, make_optimizer, rule_of, shares
from engine.training.rng import seed_rng
from engine.training.schedule import GlobalSchedule
from engine.training.state import INFO, read_info, restore_state, restore_weights
from queue_store import records
from queue_store.config import Config, Training
from queue_store.database import State
from queue_store.home import Home
from queue_store.records import Checkpoint
from snapshots.digest import weights_digest


@dataclass
class Live:
    """What trains. `optimizer_name` is the rule of the state, whatever config.toml says by now."""

    loaded: LoadedModel
    optimizer: torch.optim.Optimizer
    schedule: GlobalSchedule
    optimizer_name: str

    @property
    def told(self) -> dict[str, Any]:
        """What the status tells of it: the arguments of engine.reading.status.model_status."""
        loaded = self.loaded
        return {
            "name": loaded.name,
            "method": loaded.method,
            "dtype": loaded.dtype,
            "device": loaded.device,
            "parameters": loaded.parameters,
            "optimizer": shares(loaded.model, self.schedule.training),
        }

    def use_optimizer(self, training: Training) -> bool:
        """Take the optimizer that an item's settings ask for. Returns True where it is another
        one than before: it begins with a fresh state, for no state fits two rules."""
        if rule_of(training) == self.optimizer_name:
            return False
        give_pages(self.optimizer)
        self.optimizer = make_optimizer(self.loaded.model, training)
        self.schedule = GlobalSchedule(self.optimizer, training, self.schedule.global_step)
        self.optimizer_name = rule_of(training)
        return True


def base_folder(home: Home, config: Config) -> Path:
    """The folder of the base model; made or fetched where it is not there yet."""
    return resolve_base(home, config.model.base, config.training.seed)


def load_live(home: Home, config: Config, at: Checkpoint) -> Live:
    """The state of checkpoint `at`, or a fresh one from the base model (checkpoint 0).

    Raises TrainctlError, VerificationFailed.
    """
    base = base_folder(home, config)
    training = config.training
    if at.kind == "base":
        configure_process(training)
        loaded = load_model(base, config.model, training)
        optimizer = make_optimizer(loaded.model, training)
        seed_rng(training.seed)
        schedule = GlobalSchedule(optimizer, training, 0)
        return Live(loaded, optimizer, schedule, rule_of(training))
    folder = home.checkpoints / at.name
    if not (folder / INFO).is_file():
        return _of_weights(folder, base, config, at.step)
    info = read_info(folder)
    configure_process(training, int(info["threads"]))
    loaded = load_model(base, config.model, training, weights=folder)
    # The state needs the optimizer that made it; another one asked for by config.toml takes over
    # at the next item (use_optimizer), where it is journaled.
    made_by = by_rule(training, str(info["optimizer"]))
    optimizer = make_optimizer(loaded.model, made_by)
    schedule = GlobalSchedule(optimizer, made_by, at.step)
    restore_state(folder, loaded, optimizer, schedule, weights=False)
    return Live(loaded, optimizer, schedule, rule_of(made_by))


def _of_weights(folder: Path, base: Path, config: Config, step: int) -> Live:
    """The state of imported weights: everything beside them begins anew, at their step."""
    training = config.training
    configure_process(training)
    loaded = load_model(base, config.model, training, weights=folder)
    if loaded.method == "lora":
        restore_weights(folder, loaded, cast=True)
    optimizer = make_optimizer(loaded.model, training)
    seed_rng(training.seed)
    schedule = GlobalSchedule(optimizer, training, step)
    return Live(loaded, optimizer, schedule, rule_of(training))


def first_head(state: State, home: Home, config: Config) -> records.Head:
    """Where training stands in a home that has not trained: on the base model, from now on."""
    folder = base_folder(home, config)
    return records.start(state, weights_digest(folder), config.model.base)
