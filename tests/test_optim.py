"""The optimizers by name: which rule moves which parameter, and Muon with AdamW as one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import transformers

from engine.reading.status import optimizer_words
from engine.training.live import Live
from engine.training.muon import MuonWithAdamW
from engine.training.optim import (
    apply_settings,
    by_rule,
    hidden_matrices,
    make_optimizer,
    rule_of,
    shares,
)
from queue_store.config import Training
from tests.training_kit import Bench, make_model_folder, training


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("optim") / "model")


def load(folder: Path) -> Any:
    torch.set_num_threads(1)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def muon_with(rest: str, **changes: Any) -> Training:
    muon = msgspec.structs.replace(training().muon, rest=rest, **changes)
    return training(optimizer="muon", muon=muon)


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
    eighth = training(
        optimizer="muon", muon=msgspec.structs.replace(settings.muon, rest="adamw_8bit")
    )
    assert shares(model, eighth) == {"muon": split["muon"], "adamw_8bit": split["adamw"]}
    assert list(split) == sorted(split, key=split.__getitem__, reverse=True)
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


def test_what_makes_a_state_has_one_name_and_comes_back_from_it() -> None:
    plain = training(optimizer="muon")
    eighth = muon_with("adamw_8bit", momentum=0.9)
    assert [rule_of(one) for one in (training(), plain, eighth)] == [
        *("adamw", "muon", "muon with adamw_8bit")
    ]
    for one in (training(optimizer="paged_adamw_8bit"), plain, eighth):
        assert rule_of(by_rule(eighth, rule_of(one))) == rule_of(one)
    assert by_rule(plain, "muon with adamw_8bit").muon.momentum == plain.muon.momentum
    with pytest.raises(msgspec.ValidationError):
        by_rule(plain, "galore")


def test_another_rule_for_the_rest_is_another_optimizer_with_a_fresh_state(folder: Path) -> None:
    bench = Bench(folder, training(optimizer="muon"))
    live = Live(bench.loaded, bench.optimizer, bench.schedule, "muon")
    assert not live.use_optimizer(training(optimizer="muon", in_backward=False, rounding="nearest"))
    assert live.optimizer is bench.optimizer
    wanted = training(
        optimizer="muon", muon=msgspec.structs.replace(training().muon, rest="adamw_8bit")
    )
    assert live.use_optimizer(wanted) and live.optimizer_name == "muon with adamw_8bit"
    assert not live.optimizer.state and live.schedule.optimizer is live.optimizer
    assert set(live.told["optimizer"]) == {"muon", "adamw_8bit"}
    assert optimizer_words({"muon": 0.739, "adamw": 0.261}) == "muon (73.9 %) and adamw (26.1 %)"
    assert optimizer_words({"adamw": 1.0}) == "adamw"


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
