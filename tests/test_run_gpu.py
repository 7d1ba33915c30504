"""On an NVIDIA card: bf16 training steps of every kind, exact continuation with deterministic
kernels, one gradient at a time, and a card that gets too small."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.training.failures import StepMemory
from engine.training.freeing import free_memory
from engine.training.model import configure_process
from engine.training.optim import by_rule
from engine.training.rounding import Draws, round_into
from queue_store.config import Training
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU"),
]


RULES = ["adamw", "muon", "muon with adamw_8bit", "adamw_8bit", "paged_adamw_8bit"]


def settings_of(rule: str, *, in_backward: bool, **changes: Any) -> Training:
    if in_backward:
        changes = {"effective_batch": 1, "max_grad_norm": 0.0, **changes}
    rate = {"deterministic": True, "learning_rate": 1e-3}
    return by_rule(training(in_backward=in_backward, **rate, **changes), rule)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_bf16_trains_and_goes_on_exactly(
    tmp_path: Path, rule: str, in_backward: bool, rounding: str
) -> None:
    folder = make_model_folder(tmp_path / "model", dropout=0.1, hidden=256)
    prepared = prepare_file(write_rows(tmp_path / "a.jsonl", 24), folder, tmp_path / "home")
    settings = settings_of(rule, in_backward=in_backward, rounding=rounding)
    configure_process(settings)

    def bench() -> Bench:
        return Bench(folder, settings, precision="bf16", device="cuda:0")

    straight, recorder = bench(), Recorder()
    straight.run(prepared, recorder)
    assert straight.loaded.dtype == "bf16"
    assert all(p.dtype is torch.bfloat16 for p in straight.loaded.model.parameters())
    assert all(math.isfinite(m.loss) and m.memory > 0 for m in recorder.steps)
    first, second = bench(), bench()
    stopped = first.run(prepared, Recorder(leave_at=3))
    second.restore(first.save(tmp_path / "state"))
    second.run(prepared, Recorder(), cursor=stopped.cursor)
    assert second.digest() == straight.digest()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("rule", RULES)
def test_in_the_backward_pass_the_weights_are_those_of_the_ordinary_optimizer(
    tmp_path: Path, rule: str, rounding: str
) -> None:
    folder = make_model_folder(tmp_path / "model", hidden=256)
    prepared = prepare_file(write_rows(tmp_path / "a.jsonl", 24), folder, tmp_path / "home")
    digests = []
    for in_backward in (False, True):
        settings = settings_of(
            rule,
            in_backward=in_backward,
            rounding=rounding,
            **{"effective_batch": 1, "max_grad_norm": 0.0},
        )
        configure_process(settings)
        bench = Bench(folder, settings, precision="bf16", device="cuda:0")
        bench.run(prepared, Recorder())
        digests.append(bench.digest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("rule", RULES)
def test_in_slices_and_parts_it_goes_on_exactly_and_learns_as_the_ordinary_way(
    tmp_path: Path, rule: str, rounding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embedding and head in slices, checkpointed layers with sums over the parts of a batch."""
    monkeypatch.setattr("engine.kernels.SLICE", 256 * 256)
    monkeypatch.setattr("engine.kernels.PART_TOKENS", 1)  # each row is one
    folder = make_model_folder(tmp_path / "model", dropout=0.1, hidden=256)
    prepared = prepare_file(write_rows(tmp_path / "a.jsonl", 24), folder, tmp_path / "home")
    losses, digests = [], []
    for in_backward in (False, True):
        settings = settings_of(
            rule,
            in_backward=in_backward,
            rounding=rounding,
            chunked_loss="on",
            gradient_checkpointing=True,
            batch_size=3,
            effective_batch=3,
            max_grad_norm=0.0,
        )
        configure_process(settings)

        def bench(settings: Training = settings) -> Bench:
            return Bench(folder, settings, precision="bf16", device="cuda:0")

        straight, recorder = bench(), Recorder()
        straight.run(prepared, recorder)
        losses.append([m.loss for m in recorder.steps])
        first, second = bench(), bench()
        stopped = first.run(prepared, Recorder(leave_at=2))
        second.restore(first.save(tmp_path / f"state {in_backward}"))
        second.run(prepared, Recorder(), cursor=stopped.cursor)
        digests.append((straight.digest(), second.digest()))
    assert all(one == other for one, other in digests)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_in_the_backward_pass_less_memory_is_taken(tmp_path: Path) -> None:
    """By nearly all gradients but the largest."""
    folder = make_model_folder(tmp_path / "model", hidden=2048)
    prepared = prepare_file(write_rows(tmp_path / "a.jsonl", 12), folder, tmp_path / "home")
    peaks = []
    for in_backward in (False, True):
        changes = {"effective_batch": 1, "max_grad_norm": 0.0, "gradient_checkpointing": True}
        settings = settings_of("adamw_8bit", in_backward=in_backward, **changes)
        bench = Bench(folder, settings, precision="bf16", device="cuda:0")
        bench.run(prepared, Recorder(leave_at=1))  # makes the optimizer's states
        standing = torch.cuda.memory_allocated()
        bench.run(prepared, recorder := Recorder())
        peaks.append(max(metric.memory for metric in recorder.steps) - standing)
        sizes = [p.nbytes for p in bench.loaded.model.parameters()]
        del bench
        free_memory()
    assert peaks[0] - peaks[1] > 0.5 * (sum(sizes) - 2 * max(sizes))


def test_stochastic_rounding_is_unbiased_on_the_card_too() -> None:
    card = torch.device("cuda:0")
    values = torch.full((1 << 20,), 1 + 2**-10, device=card)  # an eighth of the way up
    target = torch.empty_like(values, dtype=torch.bfloat16)
    round_into(target, values, Draws(1).of(3, "w", card))
    assert set(target.unique().tolist()) == {1.0, 1 + 2**-7}
    ups = float((target > 1).float().mean())
    assert abs(ups - 0.125) < 5 * (0.125 * 0.875 / (1 << 20)) ** 0.5
    none = torch.full((1000,), float("nan"), device=card)
    none.view(torch.int32).fill_(0x7FFFFFFF)
    got = torch.empty_like(none, dtype=torch.bfloat16)
    round_into(got, none, Draws(1).of(3, "w", card))
    assert bool(got.isnan().all())


def test_a_card_that_is_too_small_for_the_batch_trains_with_half_of_it(tmp_path: Path) -> None:
    """The process may take what two packs take and half of what four take more."""
    folder = make_model_folder(tmp_path / "model", hidden=1024)
    prepared = prepare_file(
        write_rows(tmp_path / "a.jsonl", 400), folder, tmp_path / "home", max_length=1024
    )
    assert prepared.packs > 8

    def bench(batch_size: int) -> Bench:
        settings = training(batch_size=batch_size, effective_batch=8, deterministic=True)
        configure_process(settings)
        return Bench(folder, settings, precision="bf16", device="cuda:0")

    peaks = {}
    for size in (4, 2):
        free_memory()
        torch.cuda.reset_peak_memory_stats()
        made = bench(size)
        made.run(prepared, Recorder())
        peaks[size] = torch.cuda.max_memory_reserved()
        del made
    assert peaks[4] > 1.2 * peaks[2]
    total = torch.cuda.get_device_properties(0).total_memory
    free_memory()
    torch.cuda.set_per_process_memory_fraction((peaks[2] + peaks[4]) / 2 / total)
    try:
        small, recorder = bench(4), Recorder()
        small.run(prepared, recorder)
        ((cursor, *sizes),) = [(h.cursor, h.before, h.after) for h in recorder.halvings]
        assert sizes == [4, 2]
        got = small.digest()
        # And the second time it fails, by name.
        del small
        free_memory()
        torch.cuda.set_per_process_memory_fraction(0.7 * peaks[2] / total)
        with pytest.raises(StepMemory, match=r"file1:\d+, \d+ tokens: CUDA out of memory"):
            bench(4).run(prepared, Recorder())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    # The end is that of a run that had the room, and took half from the same row on.
    whole = bench(4)
    whole.run(prepared, Recorder(), halved=(cursor, 2))
    assert got == whole.digest()


def test_beside_a_4_bit_base_it_goes_on_exactly_in_less_memory(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "model", dropout=0.1, hidden=512)
    prepared = prepare_file(write_rows(tmp_path / "a.jsonl", 24), folder, tmp_path / "home")
    settings = training(deterministic=True, learning_rate=1e-3, gradient_checkpointing=True)
    configure_process(settings)

    def bench(method: str = "qlora") -> Bench:
        return Bench(folder, settings, method, precision="bf16", device="cuda:0")

    def taken(method: str) -> int:
        before = torch.cuda.memory_allocated()
        made = bench(method)
        assert made.loaded.method == method
        return torch.cuda.memory_allocated() - before

    taken("lora")  # the first one in a process takes cuBLAS's scratch, too, which stays
    assert taken("qlora") < 0.7 * taken("lora")
    straight, recorder = bench(), Recorder()
    straight.run(prepared, recorder)
    assert all(math.isfinite(m.loss) for m in recorder.steps)
    first, second = bench(), bench()
    stopped = first.run(prepared, Recorder(leave_at=3))
    second.restore(first.save(tmp_path / "state"))
    second.run(prepared, Recorder(), cursor=stopped.cursor)
    assert second.digest() == straight.digest()
