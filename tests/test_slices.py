"""Embedding and head stepped in slices: the ordinary step, none of their gradients whole."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.kernels import slice_rows
from engine.training import loss_path
from engine.training.liger import apply_liger, put_back
from engine.training.loss_path import LossPath
from engine.training.model import checkpoint_activations
from engine.training.optim import by_rule, make_optimizer
from engine.training.rounding import Draws
from engine.training.rules import Rules
from engine.training.schedule import GlobalSchedule
from engine.training.stepping import InBackward, stepping
from queue_store import config
from tests import liger_stand_in
from tests.model_zoo import ARCHITECTURES, make_model
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

RULES = ["adamw", "adamw_8bit", "paged_adamw_8bit", "muon", "muon with adamw_8bit"]
paged = pytest.mark.filterwarnings("ignore:Paged optimizers")
IDS = torch.randint(1, 1000, (3, 40), generator=torch.Generator().manual_seed(3))
LABELS = torch.where(torch.arange(40) % 5 == 0, -100, IDS)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several slices and chunks of a vocabulary of 1,024 and of 120 tokens."""
    monkeypatch.setattr("engine.kernels.SLICE", 256 * 32)
    monkeypatch.setattr(loss_path, "chunk_tokens", lambda *_: 30)


def settings(rule: str = "adamw", **changes: Any) -> config.Training:
    base = {"in_backward": True, "chunked_loss": "on", "max_grad_norm": 0.0}
    sizes = {"batch_size": 2, "effective_batch": 2}
    return by_rule(training(**{**base, **sizes, **changes}), rule)


@contextmanager
def stepped(model: Any, wanted: config.Training) -> Iterator[torch.optim.Optimizer]:
    """What steps a model by its settings, on a state of its own."""
    model.train().config.use_cache = False
    optimizer = make_optimizer(model, wanted)
    path = LossPath(model)
    path.use(wanted.chunked_loss)
    with stepping(model, optimizer, GlobalSchedule(optimizer, wanted), wanted, path) as steps:
        yield steps


def test_a_slice_has_no_more_logits_than_a_chunk_and_whole_blocks_of_8_bit_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.kernels.SLICE", 1 << 23)
    assert slice_rows(4096, 6144, "cuda") == 2048
    assert slice_rows(1024, 6144, "cuda") == 8192
    assert slice_rows(1024, 32 * 1024, "cuda") == 2048
    assert slice_rows(896, 0, "cpu") % 256 == 0
    assert slice_rows(10**6, 10**7, "cpu") == 256


class Counting(TorchDispatchMode):
    """The most numbers of a tensor that an operation made; views of what it was given are none."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        leaves = torch.utils._pytree.tree_leaves
        given = {
            one.untyped_storage().data_ptr()
            for one in leaves((args, kwargs))
            if isinstance(one, torch.Tensor)
        }
        for one in leaves(out):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in given:
                self.most = max(self.most, one.numel())
        return out


def steps_of(
    model: Any, wanted: config.Training, count: int = 3, last: Any = None
) -> tuple[list[float], Any]:
    """(loss and norm of each step, what stepped) of `count` steps on IDS; the `last` one within
    that context."""
    told = []
    with stepped(model, wanted) as steps:
        for number in range(count):
            with last if last is not None and number == count - 1 else nullcontext():
                loss = model(input_ids=IDS, labels=LABELS).loss
                loss.backward()
            if isinstance(steps, InBackward):
                norm = steps.take_norm()
            else:
                grads = [p.grad for p in model.parameters() if p.grad is not None]
                norm = torch.nn.utils.get_total_norm(grads)
            steps.step()
            steps.zero_grad()
            told += [float(loss.detach()), float(norm)]
    return told, steps


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", [*sorted(ARCHITECTURES), "phi"])  # phi's head has a bias
def test_steps_and_states_are_those_of_the_ordinary_way(kind: str, tied: bool) -> None:
    """In float64, where rounding hides little (norms are computed in float32), also of heads whose
    logits are scaled or capped. The first moments of the first step are the gradients."""
    found: list[list[Any]] = []
    for wanted in (settings(in_backward=False, chunked_loss="off"), settings()):
        model = make_model(kind, tie_word_embeddings=tied).double()
        _, optimizer = steps_of(model, wanted, 1)
        gradients = [optimizer.state[p]["exp_avg"] for p in model.parameters()]
        found.append(gradients)
        model = make_model(kind, tie_word_embeddings=tied).double()
        told, optimizer = steps_of(model, wanted)
        assert {float(state["step"]) for state in optimizer.state.values()} == {3.0}
        found.append(told)
    gradients, told, sliced, told_sliced = found
    assert told_sliced == pytest.approx(told, rel=1e-6)
    for one, other in zip(gradients, sliced, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6 * float(one.abs().max()))


@pytest.mark.parametrize("tied", [True, False])
def test_no_gradient_of_embedding_or_head_is_made_whole(tied: bool) -> None:
    """The largest tensor that is made is a chunk's logits: there are fewer tokens than rows."""
    most = {}
    for way in ("on", "off"):
        model = make_model("qwen3", tie_word_embeddings=tied, vocab_size=8192)
        counting = Counting()
        steps_of(model, settings(chunked_loss=way), 2, counting)
        most[way] = counting.most
    logits, weight = 30 * 8192, 8192 * 32
    assert logits < weight < most["off"]
    assert most["on"] == logits


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("rule", ["adamw", "adamw_8bit", "paged_adamw_8bit"])
@paged
def test_a_step_in_parts_is_the_whole_step_bit_for_bit(
    rule: str, stochastic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same gradient; parts that begin at multiples of the numbers rounded at once have
    the same bits drawn."""
    monkeypatch.setattr("engine.training.rules.CHUNK", 1024)
    found = []
    for parted in (False, True):
        torch.manual_seed(5)
        dtype = torch.bfloat16 if stochastic else torch.float32
        head = torch.nn.Linear(32, 700, bias=False, dtype=dtype)
        weight = head.weight
        assert isinstance(weight, torch.nn.Parameter)
        optimizer = make_optimizer(head, settings(rule, weight_decay=0.1))
        rules, draws = Rules(optimizer), Draws(1)
        for step in range(3):
            gradient = torch.randn(700, 32).to(dtype)
            generator = draws.of(step, "head", weight.device) if stochastic else None
            if parted:
                flat = gradient.view(-1)
                starts = (0, 256 * 32, 512 * 32, 700 * 32)
                places = [slice(*ends) for ends in pairwise(starts)]
                rules.step_parts(weight, ((one, flat[one]) for one in places), generator)
            else:
                weight.grad = gradient
                rules.step(weight, generator)
        state = optimizer.state[weight]
        found.append((weight, *(torch.as_tensor(state[key]) for key in sorted(state))))
    for whole, one in zip(*found, strict=True):
        assert torch.equal(whole, one)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("slices")
    folder = make_model_folder(root / "model", dropout=0.2)
    return {
        "folder": folder,
        "file": prepare_file(write_rows(root / "a.jsonl", 14), folder, root / "home"),
    }


@pytest.mark.parametrize(
    ("rule", "precision"), [*((rule, "fp32") for rule in RULES), ("adamw_8bit", "bf16")]
)
@paged
def test_stopped_and_continued_the_weights_are_bit_identical(
    place: dict[str, Any], tmp_path: Path, rule: str, precision: str
) -> None:
    """Also where the way before the stop was another: the state is the same in both."""
    wanted, saved = settings(rule, gradient_checkpointing=True), {}
    digests, losses = [], []
    for way in (wanted, msgspec.structs.replace(wanted, in_backward=False)):
        bench, recorder = Bench(place["folder"], way, precision=precision), Recorder()

        def save(at: Any, cursor: int, bench: Bench = bench, way: Any = way) -> None:
            if at.global_step == 2:
                saved[way.in_backward] = bench.save(tmp_path / str(way.in_backward)), cursor

        recorder.on_step = save
        bench.run(place["file"], recorder)
        digests.append(bench.digest())
        losses.append([m.loss for m in recorder.steps])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    folder, cursor = saved[True]
    again = Bench(place["folder"], wanted, precision=precision)
    again.restore(folder)
    again.run(place["file"], Recorder(), cursor=cursor)
    assert again.digest() == digests[0]
    folder, cursor = saved[False]
    other, recorder = Bench(place["folder"], wanted, precision=precision), Recorder()
    other.restore(folder)
    other.run(place["file"], recorder, cursor=cursor)
    assert [m.loss for m in recorder.steps] == pytest.approx(losses[1][2:], rel=0.02)


def test_with_ligers_loss_the_head_is_stepped_in_slices_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Liger's makes the head's gradient whole; its other kernels stay."""
    liger_stand_in.install(tmp_path, monkeypatch)
    try:
        told, weights, most = [], [], []
        for patched in (False, True):
            model, counting = make_model("qwen3", vocab_size=8192), Counting()
            if patched:
                apply_liger(model, own_head=False, wanted="on")
            told.append(steps_of(model, settings(), 3, counting)[0])
            weights.append([p.detach() for p in model.parameters()])
            most.append(counting.most)
        assert told[1] == pytest.approx(told[0], rel=1e-5)
        for one, other in zip(*weights, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
        assert most[0] == most[1] == 30 * 8192
    finally:
        put_back()


def test_a_batch_without_a_label_moves_nothing() -> None:
    model, other = make_model("qwen3"), make_model("qwen3")
    with stepped(model, settings(weight_decay=0.0)) as steps:
        none = torch.full_like(IDS, -100)
        model(input_ids=IDS, labels=none, num_items_in_batch=torch.tensor(1)).loss.backward()
        assert isinstance(steps, InBackward) and float(steps.take_norm()) == 0.0
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("tied", [True, False])
def test_a_weight_that_is_used_in_a_way_of_its_own_ends_the_step_and_is_told(tied: bool) -> None:
    """Stepped twice it would train wrongly without a word."""
    model = make_model("qwen3", tie_word_embeddings=tied)
    with stepped(model, settings()):
        loss = model(input_ids=IDS, labels=LABELS).loss
        loss = loss + model.get_output_embeddings().weight.square().sum()
        with pytest.raises(RuntimeError, match=r"weight has two gradients in one step"):
            loss.backward()


@pytest.mark.parametrize("tied", [True, False])
def test_a_backward_pass_that_breaks_off_leaves_nothing_for_the_next_run(tied: bool) -> None:
    """And afterwards embedding and head are as they were: an ordinary backward pass steps none."""
    model = make_model("qwen3", tie_word_embeddings=tied)
    with pytest.raises(RuntimeError, match="full"), stepped(model, settings()):
        norm = model.model.norm.weight
        hook = norm.register_hook(lambda gradient: (_ for _ in ()).throw(RuntimeError("full")))
        model(input_ids=IDS, labels=LABELS).loss.backward()
    hook.remove()
    before = [p.detach().clone() for p in model.parameters()]
    model(input_ids=IDS, labels=LABELS).loss.backward()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is not None for p in model.parameters())


def test_nothing_of_a_run_is_alive_after_it() -> None:
    """A model that is given back (parked, rolled back) must leave the memory, and its states."""
    alive: list[weakref.ref[Any]] = []

    def run() -> None:
        model = make_model("qwen3").train()
        checkpoint_activations(model)
        _, optimizer = steps_of(model, settings(), 2)
        states = optimizer.state[model.get_input_embeddings().weight]
        alive.extend(weakref.ref(one) for one in (model, optimizer, states["exp_avg"]))

    run()
    gc.collect()
    assert [one() for one in alive] == [None] * 3
