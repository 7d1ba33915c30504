"""The loss in chunks of tokens is the model's own loss, and holds no logits of a whole batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.kernels import LARGE_VOCABULARY, chunk_tokens, chunks_loss
from engine.prepare.collate import IGNORED
from engine.training import loss_path
from engine.training.chunked_loss import HeadLoss
from engine.training.loss_path import LossPath
from engine.training.model import add_lora, load_model
from engine.training.sampler import validation_loss
from queue_store import config
from queue_store.errors import ConfigError
from tests.model_zoo import make_folder, make_model
from tests.training_kit import Bench, Recorder, prepare_file, training, write_rows

TANH = (lambda x: x / 3.0, torch.tanh, lambda x: x * 3.0)


@pytest.mark.parametrize("tokens", [1, 3, 100])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("steps", [(), TANH])
def test_the_gradients_of_the_head_are_those_of_its_loss(
    tokens: int, bias: bool, steps: Any
) -> None:
    torch.manual_seed(1)
    hidden, weight, offset = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((7, 5), (11, 5), (11,))
    )
    labels = torch.tensor([IGNORED, 3, 10, IGNORED, 0, 7, 7])

    logits = hidden @ weight.t() + (offset if bias else 0)
    for step in steps:
        logits = step(logits)
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") * 0.37
    given = (hidden, weight, offset) if bias else (hidden, weight)
    wanted = torch.autograd.grad(plain, given)
    asked = (hidden, weight, offset if bias else None)
    loss = HeadLoss.apply(*asked, labels, steps, tokens, True) * 0.37
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    for found, one in zip(torch.autograd.grad(loss, given), wanted, strict=True):
        assert torch.allclose(found, one, rtol=1e-10, atol=1e-12)
    # And by differences: moved a little, the loss moves as the gradient says.
    moved = [one + 1e-6 * slope for one, slope in zip(given, wanted, strict=True)]
    again = HeadLoss.apply(*moved, *asked[len(moved) :], labels, steps, tokens, False) * 0.37
    rise = 1e-6 * sum(float((slope**2).sum()) for slope in wanted)
    assert (again - loss).item() == pytest.approx(rise, rel=1e-4)


def test_a_chunked_loss_has_one_backward() -> None:
    hidden = torch.randn(4, 3, requires_grad=True)
    loss = HeadLoss.apply(hidden, torch.randn(5, 3), None, torch.arange(4), (), 2, True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward"):
        loss.backward()


def batch(vocabulary: int, tokens: int = 40) -> dict[str, torch.Tensor]:
    """Two packed sequences of two rows, of which some tokens have no label."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(vocabulary, (2, tokens), generator=generator)
    positions = torch.arange(tokens).repeat(2, 1)
    positions[:, tokens // 3 :] -= tokens // 3
    labels = ids.clone()
    labels[:, : tokens // 4] = IGNORED
    labels[positions == 0] = IGNORED
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def both_ways(model: Any, **named: Any) -> list[tuple[float, dict[str, torch.Tensor]]]:
    """Loss and all gradients of the plain and of the chunked way."""
    path = LossPath(model)
    found = []
    for wanted in ("off", "on"):
        path.use(wanted)
        assert path.chunked == (wanted == "on")
        model.zero_grad()
        out = model(**batch(SMALL), use_cache=False, **named)
        assert ("logits" in out) == (wanted == "off")
        out.loss.backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((float(out.loss), grads))
    return found


def apart(plain: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest relative difference of a parameter's gradient; what is a thousandth of the whole
    (a key's bias, whose gradient is zero but for rounding) is measured by that."""
    assert plain.keys() == other.keys()
    least = 1e-3 * float(torch.stack([g.norm() for g in plain.values()]).norm())
    return max(float((other[n] - g).norm()) / max(least, float(g.norm())) for n, g in plain.items())


SMALL = 1024
FP32 = 1e-5
"""How far sums in another order may lie apart in fp32, whatever the processor."""
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {}),
    ("qwen3", {"tie_word_embeddings": False}),
    ("gemma2", {"final_logit_softcapping": 2.0}),
    ("granite", {"logits_scaling": 4.0}),
    ("cohere", {"logit_scale": 0.25}),
    ("phi", {}),  # its head has a bias
]


@pytest.mark.parametrize(("kind", "changes"), MODELS)
@pytest.mark.parametrize("items", [None, 17, torch.tensor(17)])
def test_loss_and_gradients_of_a_model_agree_with_the_plain_way(
    monkeypatch: pytest.MonkeyPatch, kind: str, changes: dict[str, Any], items: Any
) -> None:
    monkeypatch.setattr(loss_path, "chunk_tokens", lambda *_: 7)
    model = make_model(kind, **changes).train()
    named = {} if items is None else {"num_items_in_batch": items}
    (plain, wanted), (chunked, found) = both_ways(model, **named)
    assert chunked == pytest.approx(plain, rel=1e-5)
    assert apart(wanted, found) < FP32


def test_a_wrong_loss_is_found_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    own = loss_path.Logits.loss
    monkeypatch.setattr(loss_path.Logits, "loss", lambda *given: own(*given) * 1.001)
    with pytest.raises(ConfigError, match="the plain way"):
        LossPath(make_model("qwen3")).use("on")


def test_a_frozen_head_and_adapters_get_the_same_gradients() -> None:
    model = add_lora(
        make_model("llama"), config.Lora(r=4, alpha=4, dropout=0.0, targets=["q_proj"]), 1
    )
    (plain, wanted), (chunked, found) = both_ways(model.train())
    assert chunked == pytest.approx(plain, rel=1e-5)
    assert wanted and all("lora" in name for name in wanted)
    assert apart(wanted, found) < FP32


def test_bf16_rounds_no_more_than_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_path, "chunk_tokens", lambda *_: 4)
    exact = both_ways(make_model("qwen3").train())[0]
    plain, chunked = both_ways(make_model("qwen3").to(torch.bfloat16).train())
    assert chunked[0] == pytest.approx(exact[0], rel=5e-3)
    error = [
        apart(exact[1], {n: g.float() for n, g in found.items()}) for _, found in (plain, chunked)
    ]
    assert error[1] < 1.2 * error[0], "summed up in float32 over the chunks"


class Watch(TorchDispatchMode):
    """The largest tensor that an operation makes, in numbers."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, one.untyped_storage().nbytes() // one.itemsize)
        return out


@pytest.mark.parametrize("learning", [True, False])
def test_no_tensor_of_tokens_times_vocabulary_is_made(
    monkeypatch: pytest.MonkeyPatch, learning: bool
) -> None:
    monkeypatch.setattr(loss_path, "chunk_tokens", lambda *_: 16)
    vocabulary, tokens = 5000, 400
    model = make_model("qwen3", vocab_size=vocabulary).train(learning)
    path = LossPath(model)
    largest = {}
    for wanted in ("off", "on"):
        path.use(wanted)
        with Watch() as watch, torch.set_grad_enabled(learning):
            loss = model(**batch(vocabulary, tokens // 2), use_cache=False).loss
            if learning:
                loss.backward()
        largest[wanted] = watch.largest
    assert largest["off"] >= tokens * vocabulary
    assert largest["on"] <= vocabulary * 32, "the head's own gradient is the largest"


def test_by_itself_it_is_taken_for_a_large_vocabulary_alone() -> None:
    assert not chunks_loss("auto", LARGE_VOCABULARY - 1) and chunks_loss("auto", LARGE_VOCABULARY)
    assert chunks_loss("on", 10) and not chunks_loss("off", 10**6)
    small, large = make_model("qwen3"), make_model("qwen3", vocab_size=LARGE_VOCABULARY)
    for model, chunked in ((small, False), (large, True)):
        path = LossPath(model)
        path.use("auto")
        assert path.chunked == chunked
        assert ("forward" in vars(model)) == chunked, "nothing is touched without need"
    assert 128 < chunk_tokens(150_000, "cpu") < chunk_tokens(150_000, "cuda") < 512


def test_where_it_cannot_be_it_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainctl")
    lora = config.Lora(r=4, alpha=4, dropout=0.0, targets=["q_proj", "lm_head"])
    adapted = add_lora(make_model("llama", vocab_size=LARGE_VOCABULARY), lora, 1)
    own_loss = make_model("qwen3")
    own_loss.loss_function = lambda logits, labels, vocab_size, **_: logits.sum()
    for model, why in (
        (adapted, "an adapter stands on its head"),
        (own_loss, "a loss of its own"),
    ):
        path = LossPath(model)
        with pytest.raises(ConfigError, match=why) as caught:
            path.use("on")
        assert "\n" not in str(caught.value) and "chunked_loss" in str(caught.value)
        assert not path.chunked
    path = LossPath(adapted)
    path.use("auto")
    assert not path.chunked and "an adapter stands on its head" in caplog.text


def test_a_forward_that_needs_the_logits_themselves_keeps_the_plain_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.models.qwen3 import modeling_qwen3

    own = modeling_qwen3.Qwen3ForCausalLM.forward

    def forward(self: Any, *args: Any, labels: Any = None, **named: Any) -> Any:
        out = own(self, *args, labels=labels, **named)
        out.loss = out.loss + out.logits.exp().mean()
        return out

    monkeypatch.setattr(modeling_qwen3.Qwen3ForCausalLM, "forward", forward)
    model = make_model("qwen3").train()
    path = LossPath(model)
    with pytest.raises(ConfigError, match="needs the logits themselves"):
        path.use("on")
    assert "logits" in model(**batch(SMALL), use_cache=False)
    assert model.training


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Any]:
    """A process group of one, and its mesh."""
    where = f"file://{tmp_path / 'group'}"
    torch.distributed.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("way", ["ddp", "fsdp", "fsdp, the head by itself"])
def test_in_several_processes_it_is_the_same_and_a_head_split_by_itself_stays_plain(
    alone: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(loss_path, "chunk_tokens", lambda *_: 7)
    head_alone = way.endswith("itself")
    found = []
    for wanted in ("off", "on"):
        model = make_model("llama").train()
        path = LossPath(model)
        path.use(wanted)
        called: Any = model
        if way == "ddp":
            called = DistributedDataParallel(model)
        else:
            for part in [*model.model.layers, *[model.lm_head] * head_alone, model]:
                fully_shard(part, mesh=alone)
        out = called(**batch(SMALL), use_cache=False)
        out.loss.backward()
        assert ("logits" in out) == (wanted == "off" or head_alone)
        grads = {n: p.grad for n, p in model.named_parameters()}
        whole = {n: g if way == "ddp" else g.full_tensor() for n, g in grads.items()}
        found.append((out.loss.item(), whole))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert apart(found[0][1], found[1][1]) < FP32


def test_generation_is_not_touched() -> None:
    model = make_model("qwen3").eval()
    asked = {"input_ids": torch.arange(3, 9)[None], "max_new_tokens": 5, "do_sample": False}
    before = model.generate(**asked)
    path = LossPath(model)
    path.use("on")
    assert torch.equal(model.generate(**asked), before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("chunked")
    folder = make_folder(root / "model", "qwen3", attention_dropout=0.1)
    prepared = prepare_file(write_rows(root / "rows.jsonl", 14), folder, root / "home")
    return {"folder": folder, "prepared": prepared}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_stopped_and_restored_the_end_is_bit_identical(
    place: dict[str, Any], tmp_path: Path, method: str
) -> None:
    settings = training(chunked_loss="on", batch_size=2, effective_batch=4)
    straight, recorder = Bench(place["folder"], settings, method), Recorder()
    straight.run(place["prepared"], recorder, epochs=2)
    assert "loss in chunks" in straight.loaded.kernels
    first = Bench(place["folder"], settings, method)
    stopped = first.run(place["prepared"], Recorder(leave_at=2), epochs=2)
    state = first.save(tmp_path / "state")
    second = Bench(place["folder"], settings, method)
    second.restore(state)
    second.run(place["prepared"], Recorder(), cursor=stopped.cursor, epochs=2)
    assert second.digest() == straight.digest()
    plain, other = Bench(place["folder"], training(batch_size=2, effective_batch=4)), Recorder()
    plain.run(place["prepared"], other, epochs=2)
    assert "loss plain" in plain.loaded.kernels
    if method == "full":
        assert [m.loss for m in recorder.steps] == pytest.approx(
            [m.loss for m in other.steps], rel=1e-4
        )


def test_an_item_takes_the_way_that_it_was_frozen_with(place: dict[str, Any]) -> None:
    bench = Bench(place["folder"], training(chunked_loss="on"))
    bench.settings = msgspec.structs.replace(bench.settings, chunked_loss="off")
    bench.run(place["prepared"], Recorder())
    assert not bench.loaded.loss.chunked


def test_the_validation_loss_is_the_same(place: dict[str, Any]) -> None:
    model = msgspec.structs.replace(config.default().model, precision="fp32")
    losses = []
    for wanted in ("off", "on"):
        loaded = load_model(place["folder"], model, training(chunked_loss=wanted), device="cpu")
        losses.append(validation_loss(loaded.model, place["prepared"], batch_size=2))
    assert losses[0] is not None and losses[1] is not None
    assert losses[1] == (pytest.approx(losses[0][0], rel=1e-5), losses[0][1])
