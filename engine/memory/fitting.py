"""The configurations nearby that fit: what to change, and what each change costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import msgspec

from engine.memory.cards import Device
from engine.memory.estimate import Estimate
from queue_store.config import Config

SHOWN = 3
"""Proposals that are told."""
SHORTEST = 256
"""Tokens below which no shorter length is proposed."""


@dataclass(frozen=True)
class Proposal:
    """Settings of config.toml, key to value, and what training takes with them."""

    settings: dict[str, Any]
    estimate: Estimate

    def words(self) -> str:
        return ", ".join(f"{key} = {toml(value)}" for key, value in self.settings.items())


def toml(value: Any) -> str:
    """A value as config.toml has it."""
    return str(value).lower() if isinstance(value, bool) else msgspec.json.encode(value).decode()


def words(config: Config) -> str:
    """What the estimate depends on, in a line."""
    training = config.training
    return (
        f"{config.model.name} {config.model.method}, batch_size {training.batch_size},"
        f" max_length {training.max_length}, {training.optimizer}, gradient_checkpointing"
        f" {toml(training.gradient_checkpointing)}"
    )


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """`config` with other values; keys such as "training.batch_size". Raises ValueError where they
    do not go together."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    parts = {
        section: msgspec.structs.replace(getattr(config, section), **values)
        for section, values in sections.items()
    }
    return msgspec.structs.replace(config, **parts)


def nearest(
    config: Config, device: Device, estimated: Callable[[Config], Estimate | None]
) -> list[Proposal]:
    """At most SHOWN changes after which training fits `device`: single ones first, in the order in
    which a person would rather make them; then two, then three together. `estimated` gives None
    where it does not know."""
    moves = [*_moves(config, device)]
    for count in (1, 2, 3):
        found: list[Proposal] = []
        for chosen in combinations(moves, count):
            settings = {key: value for move in chosen for key, value in move.items()}
            if len(settings) < sum(map(len, chosen)):
                continue  # two moves of one key
            estimate = estimated(with_settings(config, settings))
            if estimate is not None and estimate.total <= device.usable:
                found.append(Proposal(settings, estimate))
            if len(found) == SHOWN:
                return found
        if found:
            return found
    return []


def _moves(config: Config, device: Device) -> Iterator[dict[str, Any]]:
    """Single changes that save memory, one key each, those that change the training least first."""
    training, model = config.training, config.model
    batch = training.batch_size
    while batch > 1:
        batch = next(n for n in range(batch - 1, 0, -1) if training.effective_batch % n == 0)
        yield {"training.batch_size": batch}
    if not training.gradient_checkpointing:
        yield {"training.gradient_checkpointing": True}
    if training.optimizer in ("adamw", "muon"):
        yield {"training.optimizer": "adamw_8bit"}
    if training.optimizer != "paged_adamw_8bit" and device.gpu:
        yield {"training.optimizer": "paged_adamw_8bit"}
    if model.precision == "fp32" or (model.precision == "auto" and not device.gpu):
        yield {"model.precision": "bf16"}
    length = training.max_length // 2
    while length >= SHORTEST:
        yield {"training.max_length": length}
        length //= 2
    if model.method == "full":
        yield {"model.method": "lora"}
