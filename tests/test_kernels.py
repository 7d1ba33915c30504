"""Kernels are proven before they are used: Liger's patch, offloaded activations, flash."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.modeling_flash_attention_utils as flash
from transformers.models.qwen3 import modeling_qwen3

from engine.prepare.collate import collate
from engine.training import model as model_module
from engine.training.attention import attention_of, choose_attention, isolate_rows
from engine.training.liger import apply_liger, put_back, replaced
from engine.training.model import checkpoint_activations, load_model
from queue_store import config
from queue_store.errors import ConfigError
from tests import liger_stand_in
from tests.model_zoo import make_folder, make_model
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


@pytest.fixture
def liger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield liger_stand_in.install(tmp_path, monkeypatch)
    put_back()


def step(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a batch."""
    model.train().zero_grad()
    ids = torch.arange(40)[None] % 90
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}


def test_what_liger_replaced_is_told_and_its_loss_is_proven(liger: Any) -> None:
    model = make_model("qwen3")
    assert all(some == 0 for some, _ in replaced(model).values())
    plain, wanted = step(model)
    classes = modeling_qwen3.Qwen3RMSNorm, modeling_qwen3.Qwen3MLP
    rotary = modeling_qwen3.apply_rotary_pos_emb
    found = apply_liger(model, own_head=False, wanted="on")
    # The norms of q and k are made new by the class alone, so an instance keeps its own.
    assert found == {"norm": (5, 9), "mlp": (2, 2), "rotary": (1, 1), "loss": (1, 1)}
    assert (modeling_qwen3.Qwen3RMSNorm, modeling_qwen3.Qwen3MLP) == classes
    assert modeling_qwen3.apply_rotary_pos_emb is liger.liger_rotary_pos_emb
    loss, grads = step(model)
    assert loss == pytest.approx(plain, rel=1e-5)
    assert all((grads[n] - g).norm() <= 1e-5 * g.norm() for n, g in wanted.items())
    # A second load of the same model gets the same kernels as the first.
    put_back()
    assert modeling_qwen3.apply_rotary_pos_emb is rotary
    assert apply_liger(make_model("qwen3"), own_head=False, wanted="on") == found


def test_with_an_adapter_on_the_head_the_fused_loss_stays_out(liger: Any) -> None:
    found = apply_liger(make_model("qwen3"), own_head=True, wanted="on")
    assert found["loss"] == (0, 1) and found["mlp"] == (2, 2)


def test_an_architecture_that_liger_does_not_know_is_refused_or_left(liger: Any) -> None:
    with pytest.raises(ConfigError, match="no kernels for llama: nothing was replaced") as caught:
        apply_liger(make_model("llama"), own_head=False, wanted="on")
    assert "\n" not in str(caught.value) and "training.liger" in str(caught.value)
    assert apply_liger(make_model("llama"), own_head=False, wanted="auto") == {}


@pytest.mark.parametrize("wanted", ["on", "auto"])
def test_kernels_that_compute_something_else_are_refused(liger: Any, wanted: str) -> None:
    liger.FAULT = -3.0
    with pytest.raises(ConfigError, match=r"with Liger's kernels and .* without"):
        apply_liger(make_model("qwen3"), own_head=False, wanted=wanted)


def test_kernels_that_do_not_run_are_refused(liger: Any) -> None:
    liger.FAULT = None
    with pytest.raises(ConfigError, match=r"does not run with Liger's kernels: .*NoneType"):
        apply_liger(make_model("qwen3"), own_head=False, wanted="auto")


def test_a_loaded_model_says_which_kernels_it_has(
    tmp_path: Path, liger: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trainctl")
    monkeypatch.setattr(model_module, "wants_liger", lambda wanted, device: wanted != "off")
    folder = make_folder(tmp_path / "model", "qwen3")
    settings = training(liger="on", chunked_loss="on")
    loaded = load_model(folder, config.default().model, settings, device="cpu")
    told = (
        "attention sdpa, loss Liger's (in chunks with in_backward), Liger's: norm 5 of 9,"
        " mlp 2 of 2, rotary 1 of 1, loss 1"
    )
    assert loaded.kernels.startswith(told) and told in caplog.text
    # In evaluation Liger's forward makes logits: there the chunks stand in.
    ids = torch.arange(30)[None]
    with torch.no_grad():
        out = loaded.model.eval()(input_ids=ids, labels=ids, use_cache=False)
    assert "logits" not in out
    plain = load_model(folder, config.default().model, training(liger="off"), device="cpu")
    assert plain.kernels == "attention sdpa, loss plain"
    assert not any(some for some, _ in replaced(plain.model).values()), "nothing is left behind"


@contextmanager
def offload_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """transformers' offload with copies that need no card; the shapes that were taken away."""
    taken: list[torch.Size] = []

    class Host(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self, **_: Any) -> None:
            def pack(tensor: torch.Tensor) -> torch.Tensor:
                taken.append(tensor.shape)
                return tensor.clone()

            super().__init__(pack, lambda kept: kept.clone())

    with monkeypatch.context() as patch:
        patch.setattr(transformers_modeling(), "save_on_cpu", Host)
        yield taken


def transformers_modeling() -> Any:
    import transformers.modeling_utils

    return transformers.modeling_utils


def test_offloaded_activations_are_the_layers_inputs_and_change_no_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for offload in (False, True):
        model = make_model("qwen3")
        with offload_on_a_cpu(monkeypatch) as taken:
            checkpoint_activations(model, offload=offload)
            found.append(step(model))
        layers = [shape for shape in taken if len(shape) == 3]
        assert layers == [torch.Size((1, 40, 32))] * (2 * offload), "one a layer"
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[1][1][n], g) for n, g in found[0][1].items())


def test_offload_without_a_card_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", "qwen3")
    settings = training(gradient_checkpointing=True, activation_offload=True)
    with pytest.raises(ConfigError, match="there is no GPU to take them from"):
        load_model(folder, config.default().model, settings, device="cpu")


def test_offload_needs_checkpointing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[training]\nactivation_offload = true\n")
    with pytest.raises(ConfigError, match="needs gradient_checkpointing = true"):
        config.load(path)


@pytest.mark.gpu
@GPU
def test_offload_on_a_card_changes_no_bit(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "model", dropout=0.1, hidden=256)
    prepared = prepare_file(write_rows(tmp_path / "a.jsonl", 24), folder, tmp_path / "home")
    digests = set()
    for offload in (False, True):
        settings = training(
            gradient_checkpointing=True, activation_offload=offload, deterministic=True
        )
        model_module.configure_process(settings)
        bench = Bench(folder, settings, precision="bf16", device="cuda:0")
        bench.run(prepared, Recorder())
        digests.add(bench.digest())
    assert len(digests) == 1


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral", "gemma2", "gemma3_text"])
def test_ligers_loss_and_gradients_are_the_plain_ones_on_a_card(kind: str) -> None:
    if importlib.util.find_spec("liger_kernel") is None:
        pytest.skip("liger-kernel is not installed")
    found = []
    for wanted in (False, True):
        model = make_model(kind, hidden_size=128, head_dim=64, intermediate_size=256)
        model = model.to("cuda:0").train()
        if wanted:
            counts = apply_liger(model, own_head=False, wanted="on")
            assert counts["mlp"] == (2, 2) and counts["loss"] == (1, 1), counts
        ids = torch.arange(200, device="cuda:0")[None] % 90
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        found.append((float(loss), {n: p.grad for n, p in model.named_parameters()}))
    put_back()
    (plain, wanted_grads), (fused, grads) = found
    assert fused == pytest.approx(plain, rel=1e-4)
    assert all((grads[n] - g).norm() <= 1e-3 * g.norm() for n, g in wanted_grads.items())


def varlen(q: Any, k: Any, v: Any, cu_seqlens_q: Any, causal: bool = False, **named: Any) -> Any:
    """flash_attn_varlen_func in plain torch: [tokens, heads, width], rows by their borders."""
    out = torch.empty_like(q)
    for begin, end in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
        out[begin:end] = dense(*(x[None, begin:end] for x in (q, k, v)), causal=causal)[0]
    return out


def dense(q: Any, k: Any, v: Any, causal: bool = False, **named: Any) -> Any:
    """flash_attn_func in plain torch: [batch, tokens, heads, width]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    found = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, enable_gqa=True
    )
    return found.transpose(1, 2)


@pytest.mark.parametrize("hooked", [True, False])
def test_packed_rows_stay_apart_under_flash_attention_in_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hooked: bool
) -> None:
    """transformers' own flash path with kernels in plain torch in the place of the card's."""
    monkeypatch.setattr(
        flash,
        "lazy_import_flash_attention",
        lambda *_: ((dense, varlen, None, None, None), (lambda **named: {"causal": True}, None)),
    )
    folder = make_folder(tmp_path / "model", "qwen3")
    packs = prepare_file(write_rows(tmp_path / "rows.jsonl", 14), folder, tmp_path / "home")
    batch = collate([packs.sequence(pack) for pack in range(2)])
    model = make_model("qwen3")
    wanted = model(**batch, use_cache=False).loss
    model.config._attn_implementation = "flash_attention_2"
    if hooked:
        isolate_rows(model)
    found = model(**batch, use_cache=False).loss
    assert (found.item() == pytest.approx(wanted.item(), rel=1e-5)) == hooked


def test_flash_is_taken_by_itself_only_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    read = make_model("qwen3").config
    bf16, gpu = torch.bfloat16, "cuda:0"
    monkeypatch.setattr("engine.training.attention.flash_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    assert choose_attention("auto", gpu, bf16, read) == "flash_attention_2"
    assert choose_attention("sdpa", gpu, bf16, read) == "sdpa"
    assert choose_attention("auto", "cpu", bf16, read) is None
    assert choose_attention("auto", gpu, torch.float32, read) is None
    with pytest.raises(ConfigError, match="needs weights in bf16"):
        choose_attention("flash_attention_2", gpu, torch.float32, read)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ConfigError, match="Ampere"):
        choose_attention("flash_attention_2", gpu, bf16, read)
    assert choose_attention("auto", gpu, bf16, read) is None


def test_what_is_continued_keeps_its_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = make_model("qwen3").config
    monkeypatch.setattr("engine.training.attention.flash_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))

    def chosen(wanted: str, before: str) -> str | None:
        return choose_attention(wanted, "cuda:0", torch.bfloat16, read, before)

    assert chosen("auto", "sdpa") == "sdpa" and chosen("auto", "") == "flash_attention_2"
    assert chosen("flash_attention_2", "sdpa") == "flash_attention_2"
    assert chosen("auto", "flash_attention_2") == "flash_attention_2"
    folder = make_folder(tmp_path / "model", "gemma2")
    state = Bench(folder, training()).save(tmp_path / "state")
    assert attention_of(state) == "eager", "sdpa has no softcapping"
    info = json.loads((state / "training_state.json").read_text())
    del info["attention"]
    (state / "training_state.json").write_text(json.dumps(info))
    assert attention_of(state) == "sdpa" and attention_of(folder) == attention_of(None) == ""
