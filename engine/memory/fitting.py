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
from queue_store.errors import ConfigError
from queue_store.sharing import check_processes

SHOWN = 3
"""Proposals that are told."""
MOST = 3
"""Changes of a proposal."""
CHECKPOINTING = {"training.gradient_checkpointing": True}
IN_BACKWARD = {"training.in_backward": True, "training.max_grad_norm": 0.0}
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
    training, model = config.training, config.model
    rest = training.muon.rest
    parts = (
        f"{model.name} {model.method}",
        f"precision {model.precision}" if model.precision != "auto" else "",
        f"batch_size {training.batch_size} of {training.effective_batch}",
        f"max_length {training.max_length}",
        training.optimizer,
        f"rest {rest}" if training.optimizer == "muon" and rest != "adamw" else "",
        f"rounding {training.rounding}" if training.rounding != "auto" else "",
        "in_backward" if training.in_backward else "",
        f"gradient_checkpointing {toml(training.gradient_checkpointing)}",
        "activation_offload" if training.activation_offload else "",
        f"chunked_loss {training.chunked_loss}" if training.chunked_loss != "auto" else "",
        f"liger {training.liger}" if training.liger != "auto" else "",
        f"processes {training.processes}" if training.processes != 1 else "",
        f"nodes {config.launch.nodes}" if config.launch.nodes > 1 else "",
        f"parallel {training.parallel}" if training.parallel != "auto" else "",
    )
    return ", ".join(part for part in parts if part)


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """`config` with other values; keys such as "training.batch_size". Raises ValueError where they
    do not go together."""
    changed: Config = _replaced(config, settings)
    try:
        check_processes(changed)
    except ConfigError as error:
        raise ValueError(error.what) from None
    return changed


def shared(config: Config, size: int) -> dict[str, Any]:
    """Settings: the batches nearest to those of `config` that so many processes can share."""
    whole, batch = config.training.effective_batch, config.training.batch_size
    whole = -(-whole // size) * size
    batch = next(n for n in range(min(batch, whole // size), 0, -1) if whole % (n * size) == 0)
    return {"training.effective_batch": whole, "training.batch_size": batch}


def _replaced(part: Any, settings: Mapping[str, Any]) -> Any:
    """All values of a table at once: checked one after the other they might not fit."""
    own: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        name, _, rest = key.partition(".")
        if rest:
            below.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    own |= {name: _replaced(getattr(part, name), values) for name, values in below.items()}
    return msgspec.structs.replace(part, **own)


def nearest(
    config: Config, device: Device, estimated: Callable[[Config], Estimate | None]
) -> list[Proposal]:
    """At most SHOWN changes after which training fits `device`, each of other keys: those first
    that change the training least, alone or together with lesser ones. `estimated` gives None
    where it does not know."""
    found: list[Proposal] = []
    for settings in _together([*_moves(config, device)]):
        if any(one.settings.keys() <= settings.keys() for one in found):
            continue  # what fits already, with another value or with more than it needs
        try:
            changed = with_settings(config, settings)
        except ValueError:
            continue  # these do not go together
        estimate = estimated(changed)
        if estimate is not None and estimate.total <= device.usable:
            found.append(Proposal(settings, estimate))
        if len(found) == SHOWN:
            break
    return found


def _together(moves: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each move alone, then with one and with two of those before it, that change less."""
    for at, last in enumerate(moves):
        for count in range(MOST):
            for chosen in combinations(moves[:at], count):
                settings = {key: value for move in (*chosen, last) for key, value in move.items()}
                if all(settings[key] == move[key] for move in chosen for key in move):
                    yield settings


def _moves(config: Config, device: Device) -> Iterator[dict[str, Any]]:
    """Single changes that save memory, those that change the training least first: the same step
    in smaller parts, or computed anew; states in fewer bits; no clipping; other steps; other rows;
    fewer trained weights."""
    training, model = config.training, config.model
    batch, whole = training.batch_size, training.effective_batch
    while batch > 1 and not training.in_backward:  # which has one batch a step
        batch = next(n for n in range(batch - 1, 0, -1) if whole % n == 0)
        yield {"training.batch_size": batch}
    if training.chunked_loss != "on":
        yield {"training.chunked_loss": "on"}
    if not training.gradient_checkpointing:
        yield CHECKPOINTING
    if not training.activation_offload and device.gpu:
        yield {**CHECKPOINTING, "training.activation_offload": True}
    if training.optimizer == "muon" and training.muon.rest == "adamw":
        yield {"training.muon.rest": "adamw_8bit"}
    if training.optimizer in ("adamw", "muon"):
        yield {"training.optimizer": "adamw_8bit"}
    if training.optimizer != "paged_adamw_8bit" and device.gpu:
        yield {"training.optimizer": "paged_adamw_8bit"}
    if not training.in_backward:
        yield {**IN_BACKWARD, "training.batch_size": whole}
    if model.precision == "fp32" or (model.precision == "auto" and not device.gpu):
        yield {"model.precision": "bf16"}
    if not training.in_backward and training.batch_size < whole:
        yield {**IN_BACKWARD, "training.effective_batch": training.batch_size}
    length = training.max_length // 2
    while length >= SHORTEST:
        yield {"training.max_length": length}
        length //= 2
    methods = ("full", "lora", "qlora")
    for method in methods[methods.index(model.method) + 1 :]:
        yield {"model.method": method}
