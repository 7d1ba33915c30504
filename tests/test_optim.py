"""The optimizers by name: which rule moves which parameter, and Muon with AdamW as one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.training.muon import MuonWithAdamW
from engine.training.optim import apply_settings, hidden_matrices, make_optimizer, shares
from tests.training_kit import make_model_folder, training


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("optim") / "model")


def load(folder: Path) -> Any:
    torch.set_num_threads(1)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def names_of(model: Any, group: dict[str, Any]) -> set[str]:
    ids = {id(p) for p in group["params"]}
    return {n for n, p in model.named_parameters() if id(p) in ids}


def some_gradients(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_8bit", "muon"])
def test_every_parameter_is_moved_once_and_norms_are_not_decayed(folder: Path, name: str) -> None:
    model = load(folder)
    optimizer = make_optimizer(model, training(optimizer=name, weight_decay=0.1))
    members = [n for g in optimizer.param_groups for n in sorted(names_of(model, g))]
    assert sorted(members) == sorted(n for n, _ in model.named_parameters())
    for group in optimizer.param_groups:
        norms = {n for n in names_of(model, group) if "norm" in n}
        assert not norms or (norms == names_of(model, group) and group["weight_decay"] == 0)
        assert group["lr"] == group["base_lr"]
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    some_gradients(model, 1)
    optimizer.step()
    assert all(not torch.equal(before[n], p) for n, p in model.named_parameters())


def test_muon_moves_the_hidden_matrices_and_adamw_all_the_rest(folder: Path) -> None:
    model = load(folder)
    settings = training(optimizer="muon", learning_rate=1e-3)
    hidden = hidden_matrices(model)
    assert len(hidden) == 7 * 2 and all(".layers." in n and "norm" not in n for n in hidden)
    optimizer = make_optimizer(model, settings)
    muon = [g for g in optimizer.param_groups if "adjust_lr_fn" in g]
    assert len(muon) == 1 and names_of(model, muon[0]) == hidden
    assert muon[0]["base_lr"] == settings.muon.learning_rate
    split = shares(model, settings)
    expected = sum(p.numel() for n, p in model.named_parameters() if n in hidden)
    total = sum(p.numel() for p in model.parameters())
    assert split == {"muon": expected / total, "adamw": 1 - expected / total}
    # The same step as the two rules of torch on their own.
    twin = copy.deepcopy(model)
    some_gradients(model, 2)
    some_gradients(twin, 2)
    optimizer.step()
    named = dict(twin.named_parameters())
    torch.optim.Muon(
        [named[n] for n in sorted(hidden)],
        lr=settings.muon.learning_rate,
        weight_decay=settings.muon.weight_decay,
        momentum=settings.muon.momentum,
        adjust_lr_fn=settings.muon.adjust,
    ).step()
    for name, p in model.named_parameters():
        assert torch.equal(p, named[name]) == (name in hidden)


def test_muon_with_adamw_goes_on_exactly_through_its_state_dict(folder: Path) -> None:
    model, settings = load(folder), training(optimizer="muon")
    optimizer = make_optimizer(model, settings)
    for seed in range(3):
        some_gradients(model, seed)
        optimizer.step()
    twin = copy.deepcopy(model)
    other = make_optimizer(twin, settings)
    assert isinstance(other, MuonWithAdamW)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in (*optimizer.param_groups, *other.param_groups):
        group["lr"] = 0.01  # the groups that a schedule writes to are those that step() reads
    for seed in range(3, 6):
        for m, o in ((model, optimizer), (twin, other)):
            some_gradients(m, seed)
            o.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_settings_of_the_next_item_reach_a_live_optimizer(folder: Path) -> None:
    model = load(folder)
    for name in ("adamw", "muon"):
        optimizer = make_optimizer(model, training(optimizer=name))
        wanted = training(optimizer=name, learning_rate=1e-5, weight_decay=0.3)
        apply_settings(optimizer, wanted)
        fresh = make_optimizer(model, wanted)
        for old, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
            assert {k: v for k, v in old.items() if k not in ("params", "lr")} == {
                k: v for k, v in new.items() if k not in ("params", "lr")
            }
