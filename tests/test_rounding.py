"""Stochastic rounding: unbiased, always a neighbour, nothing to save, small updates arrive."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch.optim._muon import muon

from engine.training.able import check_able
from engine.training.optim import hidden_matrices
from engine.training.rounding import CHUNK, Draws, round_into
from engine.training.stepping import check_rounding, rounds_stochastically, stepping
from queue_store import config as configuration
from queue_store import journal
from queue_store.errors import ConfigError
from tests import engine_kit
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

CPU = torch.device("cpu")


def rounded(values: torch.Tensor, step: int = 0, name: str = "w") -> torch.Tensor:
    target = torch.empty(values.shape, dtype=torch.bfloat16)
    round_into(target, values.clone(), Draws(3).of(step, name, CPU))
    return target


def number(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


@pytest.mark.parametrize(
    "bits",
    [
        *(0x3F800001, 0x3F80FFFF, 0x3F808000, 0xBF812345, 0x42F7ABCD, 0xC2F7ABCD, 0x3FFFC000),
        *(0x00000001, 0x00012345, 0x80012345, 0x007FFFFF, 0x00FF8001),  # denormal, and next to it
    ],
)
def test_each_result_is_a_neighbour_and_the_mean_is_the_number(bits: int) -> None:
    count = 1 << 16
    values = torch.full((count,), number(bits))
    got = rounded(values).float().double()
    below, above = number(bits & 0xFFFF0000), number((bits & 0xFFFF0000) + 0x10000)
    assert set(got.tolist()) <= {below, above}
    share = (bits & 0xFFFF) / 65536
    ups = int((got == above).sum())
    # Five standard deviations of a binomial, and one draw.
    assert abs(ups - share * count) <= 5 * (count * share * (1 - share)) ** 0.5 + 1


def test_what_bf16_has_stays_and_so_do_infinities_zeros_and_nans() -> None:
    exact = torch.randn(5000).bfloat16().float()
    assert torch.equal(rounded(exact).float(), exact)
    odd = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), 1e-40, -2.0])
    odd[4] = odd[4].bfloat16().float()  # a denormal that bf16 has
    got = rounded(odd).float()
    assert torch.equal(got, odd) and torch.equal(got.signbit(), odd.signbit())
    patterns = [0x7FC00000, 0x7FFFFFFF, 0x7F800001, -1, -0x7FFFFF]  # CUDA's own NaN is the second
    nans = torch.tensor(patterns, dtype=torch.int32).view(torch.float32).repeat(1000)
    assert bool(nans.isnan().all()) and bool(rounded(nans).isnan().all())


def test_the_bits_are_a_function_of_seed_step_and_parameter() -> None:
    values = torch.randn(1000)
    first = rounded(values, 5, "a")
    torch.rand(7)
    assert torch.equal(rounded(values, 5, "a"), first)
    assert not torch.equal(rounded(values, 6, "a"), first)
    assert not torch.equal(rounded(values, 5, "b"), first)
    state = torch.get_rng_state()
    rounded(values)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_update_that_nearest_loses_arrives_on_average() -> None:
    lost, arrived = (torch.ones(20_000, dtype=torch.bfloat16) for _ in range(2))
    for step in range(100):
        lost.add_(-1e-4)  # a fortieth of what bf16 resolves below one
        round_into(arrived, arrived.float() - 1e-4, Draws(1).of(step, "w", CPU))
    assert torch.equal(lost, torch.ones_like(lost))
    assert float(arrived.float().mean()) == pytest.approx(0.99, abs=2e-4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("rounding")
    model = make_model_folder(root / "model")
    wide = make_model_folder(root / "wide", hidden=128)
    file = prepare_file(write_rows(root / "a.jsonl", 14), model, root / "home")
    return {"model": model, "wide": wide, "file": file}


def bench(place: dict[str, Any], precision: str = "bf16", **changes: Any) -> Bench:
    return Bench(place["model"], training(**changes), precision=precision)


RULES: list[dict[str, Any]] = [
    {"optimizer": "adamw"},
    {"optimizer": "adamw_8bit"},
    {"optimizer": "paged_adamw_8bit"},
    {"optimizer": "muon"},
    {"optimizer": "muon", "rest": "adamw_8bit"},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(rule.values()))
@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_every_optimizer_steps_as_in_float32_but_for_the_rounding(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any]
) -> None:
    """From the same weights and gradients each weight lands on one of the two neighbours of where
    float32 lands, in chunks as in one piece, and the differences have no mean. (Muon's matrices
    where its own rule lands from weights in float32 and the same gradients in bf16, on whose last
    bits depends what it makes of them.)"""
    monkeypatch.setattr("engine.training.rules.CHUNK", 512)
    settings = training(weight_decay=0.1, **_muon(rule))
    low, high = (Bench(place["wide"], settings, precision=kind) for kind in ("bf16", "fp32"))
    generator = torch.Generator().manual_seed(1)
    hidden = hidden_matrices(low.loaded.model) if rule["optimizer"] == "muon" else set()
    pairs = list(
        zip(low.loaded.model.named_parameters(), high.loaded.model.parameters(), strict=True)
    )
    for one in (low, high):
        one.schedule.set(3)
    model = low.loaded.model
    live = (model, low.optimizer, low.schedule, settings, low.loaded.loss)
    with stepping(*live) as steps, torch.no_grad():
        for (name, p), q in pairs:
            q.copy_(p)
            p.grad = torch.randn(p.shape, generator=generator).bfloat16()
            if name in hidden:
                group = low.optimizer.param_groups[-1]
                rest = {k: v for k, v in group.items() if k not in ("params", "base_lr")}
                muon([q], [p.grad], [torch.zeros_like(p.grad)], has_complex=False, **rest)
            else:
                q.grad = p.grad.float()
        for one in (steps, high.optimizer):
            one.step()
    errors = []
    for (name, p), q in pairs:
        drawn, exact = p.detach(), q.detach()
        up, down = (
            torch.nextafter(drawn, torch.full_like(drawn, side * float("inf"))).float()
            for side in (1, -1)
        )
        assert bool(((exact <= up + 1e-7) & (exact >= down - 1e-7)).all()), name
        errors.append(((drawn.float() - exact) / (up - down)).flatten())
    error = torch.cat(errors)
    assert abs(float(error.mean())) < 0.01 and float(error.abs().max()) > 0.2
    assert CHUNK % 256 == 0


def _muon(rule: dict[str, Any], **changes: Any) -> dict[str, Any]:
    muon = msgspec.structs.replace(training().muon, rest=rule.get("rest", "adamw"))
    return {"optimizer": rule["optimizer"], "muon": muon, **changes}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(rule.values()))
@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_stopped_and_restored_bf16_weights_go_on_bit_identically(
    place: dict[str, Any], tmp_path: Path, rule: dict[str, Any]
) -> None:
    """Stopped in one way of stepping and continued in the other: the bits drawn are the same."""

    def made(in_backward: bool, **more: Any) -> Bench:
        changes = _muon(rule, batch_size=2, effective_batch=2, max_grad_norm=0.0, **more)
        return bench(place, in_backward=in_backward, **changes)

    straight = made(False)
    straight.run(place["file"], Recorder())
    for in_backward in (False, True):
        first = made(in_backward)
        stopped = first.run(place["file"], Recorder(leave_at=2))
        saved = first.save(tmp_path / "state")
        second = made(not in_backward)
        second.restore(saved)
        second.run(place["file"], Recorder(), cursor=stopped.cursor)
        assert second.digest() == straight.digest()
    drawn, nearest = made(True), made(True, rounding="nearest")
    for one in (drawn, nearest):
        one.run(place["file"], Recorder(leave_at=1))
    assert drawn.digest() != nearest.digest(), "it did round"
    kept = straight.optimizer.state.values()
    floats = {v.dtype for s in kept for k, v in s.items() if k in ("exp_avg", "momentum_buffer")}
    assert floats <= {torch.bfloat16}, "states stay in the weights' dtype"


@pytest.fixture(scope="module")
def wanted(place: dict[str, Any]) -> list[float]:
    return learned(place, "fp32", RULES[0])


def learned(place: dict[str, Any], precision: str, rule: dict[str, Any]) -> list[float]:
    """The losses of eight epochs."""
    changes = _muon(rule, learning_rate=5e-3, warmup_steps=0, batch_size=4, effective_batch=4)
    made, recorder = bench(place, precision, **changes), Recorder()
    made.run(place["file"], recorder, epochs=8)
    return [m.loss for m in recorder.steps]


@pytest.mark.parametrize(
    ("precision", "rule"),
    [*(("bf16", rule) for rule in RULES), ("fp32", RULES[1]), ("fp32", RULES[4])],
    ids=lambda one: one if isinstance(one, str) else "-".join(one.values()),
)
@pytest.mark.filterwarnings("ignore:Paged optimizers")
def test_each_optimizer_learns_as_adamw_in_float32_does(
    place: dict[str, Any], wanted: list[float], precision: str, rule: dict[str, Any]
) -> None:
    assert wanted[-1] < wanted[0] / 2
    losses = learned(place, precision, rule)
    assert losses == pytest.approx(wanted, rel=0.02)


def test_it_is_where_bf16_weights_train_and_nowhere_else(place: dict[str, Any]) -> None:
    for precision, rounding, another in (
        ("bf16", "auto", True),
        ("bf16", "nearest", False),
        ("fp32", "auto", False),
    ):
        made = bench(place, precision, rounding=rounding)
        live = (made.loaded.model, made.optimizer, made.schedule, made.settings)
        with stepping(*live, made.loaded.loss) as steps:
            assert (steps is not made.optimizer) == another
    settings = training(rounding="stochastic")
    check_rounding("bf16", "full", settings)
    for dtype, method in (("fp32", "full"), ("bf16", "lora")):
        check_rounding(dtype, method, training())
        with pytest.raises(ConfigError, match="no weight that trains is in bf16") as caught:
            check_rounding(dtype, method, settings)
        assert "rounding" in str(caught.value) and "\n" not in str(caught.value)
    lora = Bench(place["model"], training(), "lora", "bf16").loaded.model
    assert not rounds_stochastically(lora, training()), "adapters are in float32"


def test_what_cannot_be_done_here_is_refused_at_the_start_and_as_an_edit_changes_nothing(
    tmp_path: Path,
) -> None:
    """Else each item of the queue would fail for it."""
    home = engine_kit.make_home(tmp_path)
    right = home.config.read_text()
    wrong = right.replace("[training]\n", '[training]\nrounding = "stochastic"\n')
    engine_kit.add(home, "a.jsonl", 8)
    with engine_kit.Running(home) as running:
        running.wait_trained()
        home.config.write_text(wrong)
        engine_kit.add(home, "b.jsonl", 8)
        running.wait_trained()
    with engine_kit.opened(home) as state:
        told = [event.text for event in journal.latest(state, 100) if event.kind == "warning"]
    assert set(engine_kit.states(home).values()) == {"done"}
    word = "no weight that trains is in bf16"
    assert any(word in text and "settings of before" in text for text in told)
    with pytest.raises(ConfigError, match=word):
        check_able(configuration.load(home.config))
    with pytest.raises(AssertionError, match=word), engine_kit.Running(home) as running:
        running.wait_trained()


def test_small_rates_learn_as_in_float32_where_nearest_stands_still(place: dict[str, Any]) -> None:
    """A rate at which nearly every update is below what bf16 resolves."""
    losses = {}
    for precision, rounding in (("fp32", "auto"), ("bf16", "stochastic"), ("bf16", "nearest")):
        made = bench(
            place,
            precision,
            rounding=rounding,
            learning_rate=2e-5,
            warmup_steps=0,
            batch_size=4,
            effective_batch=4,
        )
        recorder = Recorder()
        made.run(place["file"], recorder, epochs=8)
        losses[precision, rounding] = [m.loss for m in recorder.steps]
    start = losses["fp32", "auto"][0]
    exact, drawn, lost = (start - sum(one[-4:]) / 4 for one in losses.values())
    assert exact > 0.01
    assert drawn == pytest.approx(exact, rel=0.15)
    assert lost < 0.8 * exact
