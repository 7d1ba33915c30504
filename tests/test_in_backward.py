"""The optimizer in the backward pass: the same weights, one gradient at a time, exact resume."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.training.controls import NonFinite
from engine.training.failures import StepMemory
from engine.training.optim import by_rule
from engine.training.stepping import InBackward, stepping
from queue_store import config
from queue_store.errors import ConfigError
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("in_backward")
    tied = make_model_folder(root / "tied", dropout=0.2)
    untied = make_model_folder(root / "untied")
    raw = json.loads((untied / "config.json").read_text()) | {"tie_word_embeddings": False}
    (untied / "model.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**raw))
    model.save_pretrained(untied)
    file = prepare_file(write_rows(root / "a.jsonl", 14), tied, root / "home")
    return {"tied": tied, "untied": untied, "file": file}


def settings(optimizer: str, *, in_backward: bool = True, **changes: Any) -> config.Training:
    sizes = {"batch_size": 2, "effective_batch": 2, "max_grad_norm": 0.0}
    return by_rule(training(in_backward=in_backward, **{**sizes, **changes}), optimizer)


RULES = ["adamw", "adamw_8bit", "paged_adamw_8bit", "muon", "muon with adamw_8bit"]
paged = pytest.mark.filterwarnings("ignore:Paged optimizers")


WAYS = [
    (model, method, rule)
    for model, method in (("tied", "full"), ("tied", "lora"))
    for rule in RULES
]
WAYS += [("untied", "full", "adamw"), ("untied", "full", "muon")]


@pytest.mark.parametrize(("model", "method", "rule"), WAYS)
@paged
def test_weights_states_and_norms_are_those_of_the_ordinary_optimizer_also_after_a_kill(
    place: dict[str, Any], tmp_path: Path, model: str, method: str, rule: str
) -> None:
    """Undisturbed in both ways, and stopped in one and continued in the other, from its files."""
    digests, told, saved = [], [], {}
    ways = [
        settings(rule, in_backward=way, gradient_checkpointing=model == "untied")
        for way in (False, True)
    ]
    for way in ways:
        bench, recorder = Bench(place[model], way, method), Recorder()

        def save(at: Any, cursor: int, bench: Bench = bench, way: Any = way) -> None:
            if at.global_step == 2:
                saved[way.in_backward] = bench.save(tmp_path / str(way.in_backward)), cursor

        recorder.on_step = save
        bench.run(place["file"], recorder)
        digests.append(bench.digest())
        told.append([(m.loss, m.grad_norm) for m in recorder.steps])
        assert all(p.grad is None for p in bench.loaded.model.parameters())
    assert told[0] == told[1]
    for way in ways:
        folder, cursor = saved[not way.in_backward]
        bench = Bench(place[model], way, method)
        bench.restore(folder)
        bench.run(place["file"], Recorder(), cursor=cursor)
        digests.append(bench.digest())
    assert len(set(digests)) == 1


class Live:
    """Counts the bytes of gradients that are alive, from each parameter's own on."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.now = self.peak = 0
        self.counts: dict[str, int] = {}
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.register_hook(lambda grad, name=name: self.arrives(name, grad))

    def arrives(self, name: str, grad: torch.Tensor) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        storage, size = grad.untyped_storage(), grad.nbytes
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.gone, size)

    def gone(self, size: int) -> None:
        self.now -= size


@pytest.mark.parametrize("model", ["tied", "untied"])
def test_gradients_never_stand_together_and_a_tied_weight_is_stepped_once(
    place: dict[str, Any], model: str
) -> None:
    peaks = {}
    for in_backward in (False, True):
        wanted = settings("adamw", in_backward=in_backward, gradient_checkpointing=True)
        bench = Bench(place[model], wanted)
        live = Live(bench.loaded.model)
        recorder = Recorder()
        bench.run(place["file"], recorder)
        steps = len(recorder.steps)
        assert set(live.counts.values()) == {steps}
        assert {float(s["step"]) for s in bench.optimizer.state.values()} == {float(steps)}
        peaks[in_backward] = live.peak
    sizes = [p.nbytes for p in bench.loaded.model.parameters()]
    assert peaks[False] >= sum(sizes)
    assert peaks[True] == max(sizes) < 0.7 * sum(sizes)


def test_a_loss_that_is_not_a_number_raises_before_anything_is_saved(
    place: dict[str, Any],
) -> None:
    bench = Bench(place["tied"], settings("adamw", batch_size=1, effective_batch=1))

    def poison(at: Any, cursor: int) -> None:
        if at.global_step == 2:
            with torch.no_grad():
                next(iter(bench.loaded.model.parameters())).fill_(float("nan"))

    recorder = Recorder(on_step=poison)
    with pytest.raises(NonFinite) as caught:
        bench.run(place["file"], recorder)
    assert caught.value.step == 3 and [m.step for m in recorder.steps] == [1, 2, 3]


def test_out_of_memory_in_the_backward_pass_is_not_tried_again(place: dict[str, Any]) -> None:
    """Some of the parameters have been stepped by then."""
    bench = Bench(place["tied"], settings("adamw", batch_size=2, effective_batch=2))

    def full(grad: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    next(bench.loaded.model.parameters()).register_hook(full)
    recorder = Recorder()
    with pytest.raises(StepMemory):
        bench.run(place["file"], recorder)
    assert not recorder.steps and not recorder.halvings


def test_no_hook_stays_behind(place: dict[str, Any]) -> None:
    bench = Bench(place["tied"], settings("adamw"))
    loaded = bench.loaded
    args = (loaded.model, bench.optimizer, bench.schedule, bench.settings, loaded.loss)
    with stepping(*args) as steps:
        assert isinstance(steps, InBackward) and steps.param_groups is bench.optimizer.param_groups
    before = bench.digest()
    ids = torch.tensor([[1, 2, 3, 4]])
    bench.loaded.model(input_ids=ids, labels=ids).loss.backward()
    assert bench.digest() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"effective_batch": 4}, ["in_backward", "set batch_size 1 and effective_batch 4"]),
        ({"effective_batch": 1}, ["in_backward", "set max_grad_norm = 0"]),
    ],
)
def test_what_excludes_it_is_refused_with_the_reason_and_the_alternative(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    own = {"training": {"in_backward": True, "batch_size": 1, **changes}}
    with pytest.raises(ConfigError) as caught:
        config.check(own, tmp_path / "config.toml")
    told = str(caught.value)
    assert "\n" not in told and all(word in told for word in words), told
