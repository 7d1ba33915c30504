"""The live training state: model, optimizer and schedule, as the head has them.

Loaded whole from the head's checkpoint, at the start and whenever the head has moved back; the
engine thread owns it from then on, through all items.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.training.base import resolve_base
from engine.training.fingerprint import fingerprint
from engine.training.freeing import give_pages
from engine.training.model import LoadedModel, configure_process, load_model
from engine.training.optim import by_rule, make_optimizer, rule_of, shares
from engine.training.parallel import ALONE, Ranks
from engine.training.rng import seed_rank
from engine.training.schedule import GlobalSchedule
from engine.training.sharded import shard
from engine.training.state import INFO, read_info, restore_state, restore_weights
from queue_store import records
from queue_store.config import Config, Training
from queue_store.database import State
from queue_store.home import Home
from queue_store.records import Checkpoint
from queue_store.sharing import check_parts
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
            "kernels": loaded.kernels,
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


def load_live(home: Home, config: Config, at: Checkpoint, ranks: Ranks | None = None) -> Live:
    """The state of checkpoint `at`, or a fresh one from the base model (checkpoint 0). With `ranks`
    all of them call it, and each reads the folder itself.

    Raises TrainctlError, VerificationFailed.
    """
    ranks = ranks or ALONE
    # The base model may have to be made or fetched: by one.
    base = Path(ranks.decide(lambda: str(base_folder(home, config))))
    training = config.training
    if at.kind == "base":
        configure_process(training, _threads(training, ranks))
        loaded = _load(base, config, ranks)
        optimizer = make_optimizer(loaded.model, training)
        seed_rank(training.seed, 0, ranks.rank)
        schedule = GlobalSchedule(optimizer, training, 0)
        return Live(loaded, optimizer, schedule, rule_of(training))
    folder = home.checkpoints / at.name
    if not (folder / INFO).is_file():
        return _of_weights(folder, base, config, at.step, ranks)
    info = read_info(folder)
    same = int(info.get("world_size", 1)) == ranks.size
    configure_process(training, int(info["threads"]) if same else _threads(training, ranks))
    loaded = _load(base, config, ranks, folder)
    # The state needs the optimizer that made it; another one asked for by config.toml takes over
    # at the next item (use_optimizer), where it is journaled.
    made_by = by_rule(training, str(info["optimizer"]))
    optimizer = make_optimizer(loaded.model, made_by)
    schedule = GlobalSchedule(optimizer, made_by, at.step)
    restore_state(folder, loaded, optimizer, schedule, weights=False, ranks=ranks)
    return Live(loaded, optimizer, schedule, rule_of(made_by))


def _load(base: Path, config: Config, ranks: Ranks, weights: Path | None = None) -> LoadedModel:
    """The model of the base, or with `weights`, on this rank's device; split where it is to be."""
    training = config.training
    if ranks.size == 1:
        return load_model(base, config.model, training, weights=weights)
    if ranks.sharded:
        check_parts(training, config.model.method)
    loaded = load_model(
        *(base, config.model, training),
        weights=weights,
        device=ranks.device,
        on_host=ranks.sharded,
    )
    ranks.same("the weights that were read", fingerprint(loaded.model))
    if ranks.sharded:
        shard(loaded.model, ranks)
    return loaded


def _threads(training: Training, ranks: Ranks) -> int:
    """Threads where no state says how many: each process of this host has its share."""
    return training.threads or max(1, (os.cpu_count() or 1) // ranks.local_size)


def _of_weights(folder: Path, base: Path, config: Config, step: int, ranks: Ranks) -> Live:
    """The state of imported weights: everything beside them begins anew, at their step."""
    training = config.training
    configure_process(training, _threads(training, ranks))
    loaded = _load(base, config, ranks, folder)
    if loaded.method != "full":
        restore_weights(folder, loaded, cast=True)
    optimizer = make_optimizer(loaded.model, training)
    seed_rank(training.seed, step, ranks.rank)
    schedule = GlobalSchedule(optimizer, training, step)
    return Live(loaded, optimizer, schedule, rule_of(training))


def first_head(state: State, home: Home, config: Config) -> records.Head:
    """Where training stands in a home that has not trained: on the base model, from now on."""
    folder = base_folder(home, config)
    return records.start(state, weights_digest(folder), config.model.base)
