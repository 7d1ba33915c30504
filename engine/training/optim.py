"""The optimizers by their names in config.toml.

Every group carries `base_lr`, from which the schedule sets its `lr`. Norms and biases are never
decayed.
"""

from __future__ import annotations

import importlib
from typing import Any

import msgspec
import torch

from engine.training.freeing import use_pages
from engine.training.muon import MuonWithAdamW, MuonWithAdamW8bit
from queue_store.config import Training
from queue_store.errors import ConfigError

BETAS = (0.9, 0.95)
EPS = 1e-8


def hidden_matrices(model: torch.nn.Module) -> set[str]:
    """Names of the trained 2-D weights of linear layers, without embeddings and the head."""
    outer = {
        id(module.weight)
        for get in ("get_input_embeddings", "get_output_embeddings")
        if (module := getattr(model, get, lambda: None)()) is not None
    }
    outer |= {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return {
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.ndim == 2 and id(p) not in outer
    }


def _groups(
    named: list[tuple[str, torch.nn.Parameter]], rate: float, decay: float
) -> list[dict[str, Any]]:
    """At most two groups: decayed (matrices) and not decayed (norms, biases)."""
    parts = (
        ([p for _, p in named if p.ndim >= 2], decay),
        ([p for _, p in named if p.ndim < 2], 0.0),
    )
    return [
        {"params": params, "lr": rate, "base_lr": rate, "weight_decay": weight_decay}
        for params, weight_decay in parts
        if params
    ]


def rule_of(training: Training) -> str:
    """The name of what makes the optimizer's state: no state of one rule fits another."""
    if training.optimizer == "muon" and training.muon.rest != "adamw":
        return f"muon with {training.muon.rest}"
    return training.optimizer


def by_rule(training: Training, rule: str) -> Training:
    """`training` with the optimizer of that rule, whatever it names itself: of `rule_of` the
    reverse. Raises msgspec.ValidationError for a rule that is not known."""
    name, _, rest = rule.partition(" with ")
    raw = msgspec.to_builtins(training)
    muon = {**raw["muon"], "rest": rest or "adamw"}
    return msgspec.convert({**raw, "optimizer": name, "muon": muon}, Training)


def _bitsandbytes(
    name: str, groups: list[dict[str, Any]], where: str = "training.optimizer"
) -> torch.optim.Optimizer:
    try:
        bnb = importlib.import_module("bitsandbytes")
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"bitsandbytes does not load here: {error}",
            where=f'{where} = "{name}"',
            mend='use "adamw" or "muon"',
        ) from None
    kind = bnb.optim.PagedAdamW8bit if name.startswith("paged") else bnb.optim.AdamW8bit
    optimizer: torch.optim.Optimizer = kind(groups, betas=BETAS, eps=EPS)
    if name.startswith("paged"):
        use_pages(optimizer)
    return optimizer


def make_optimizer(model: torch.nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer that `training.optimizer` names, over the model's trained parameters."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    rate, decay = training.learning_rate, training.weight_decay
    adamw: dict[str, Any] = {"betas": BETAS, "eps": EPS, "fused": True}
    if training.optimizer == "adamw":
        return torch.optim.AdamW(_groups(named, rate, decay), **adamw)
    if training.optimizer != "muon":
        return _bitsandbytes(training.optimizer, _groups(named, rate, decay))
    muon, hidden = training.muon, hidden_matrices(model)
    matrices = [p for n, p in named if n in hidden]
    group = {
        "params": matrices,
        "lr": muon.learning_rate,
        "base_lr": muon.learning_rate,
        "weight_decay": muon.weight_decay,
        "momentum": muon.momentum,
        "adjust_lr_fn": muon.adjust,
    }
    rest = _groups([(n, p) for n, p in named if n not in hidden], rate, decay)
    groups = [group] if matrices else []
    if muon.rest == "adamw":
        return MuonWithAdamW(torch.optim.AdamW(rest, **adamw) if rest else None, groups)
    eight = _bitsandbytes(muon.rest, rest, "training.muon.rest") if rest else None
    return MuonWithAdamW8bit(eight, groups)


def shares(model: torch.nn.Module, training: Training) -> dict[str, float]:
    """Each rule's share of the trained parameters, for example {"muon": 0.74, "adamw": 0.26}; the
    largest first."""
    counts = {n: p.numel() for n, p in model.named_parameters() if p.requires_grad}
    total = sum(counts.values()) or 1
    if training.optimizer != "muon":
        return {training.optimizer: 1.0}
    muon = sum(counts[n] for n in hidden_matrices(model)) / total
    both = {"muon": muon, training.muon.rest: 1 - muon}
    return dict(sorted(both.items(), key=lambda one: -one[1]))


def apply_settings(optimizer: torch.optim.Optimizer, training: Training) -> None:
    """Give a live optimizer's groups the rates, decay and momentum of `training`.

    Called at the start of every item: its settings may differ from the last one's. The rule
    itself (`training.optimizer`) cannot change this way.
    """
    for group in optimizer.param_groups:
        if "adjust_lr_fn" in group:
            group["base_lr"] = training.muon.learning_rate
            group["weight_decay"] = training.muon.weight_decay
            group["momentum"] = training.muon.momentum
            group["adjust_lr_fn"] = training.muon.adjust
        else:
            group["base_lr"] = training.learning_rate
            matrices = group["params"][0].ndim >= 2
            group["weight_decay"] = training.weight_decay if matrices else 0.0
