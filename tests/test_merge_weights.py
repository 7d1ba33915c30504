"""A merged model's files: the sum that peft makes, bit for bit, in the layout of the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from engine.adapters import write as writing
from engine.adapters.refusal import CannotMerge
from engine.training.tiny import make_tiny_text
from queue_store.errors import VerificationFailed
from snapshots.digest import weights_digest

SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
KINDS = {
    "qwen3": transformers.Qwen3Config,
    "llama": transformers.LlamaConfig,
    "gemma": transformers.GemmaConfig,
    "mistral": transformers.MistralConfig,
}
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base_of(
    folder: Path, kind: str = "llama", *, tied: bool = False, dtype: str = "bfloat16", shard: str
) -> Path:
    """A random model with a tokenizer, in shards of at most that size."""
    folder.mkdir()
    make_tiny_text(folder, 1)
    torch.manual_seed(3)
    config = KINDS[kind](**SMALL, tie_word_embeddings=tied)
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    return folder


def adapter_of(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter with random numbers in both halves, as peft saves it."""
    asked = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": EVERY}
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    wrapped: Any = peft.get_peft_model(model, peft.LoraConfig(**{**asked, **settings}))
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_" in name:
                value.copy_(torch.randn_like(value) * 0.1)
    wrapped.save_pretrained(folder)
    return folder


def merge(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """What the child does, in this process."""
    out.mkdir()
    words = {"base": str(base), "adapter": str(adapter), "out": str(out)}
    words |= {"base_digest": weights_digest(base), "adapter_digest": weights_digest(adapter)}
    return writing.write(words)


def by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    merged: Any = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return dict(merged.state_dict())


def assert_same(base: Path, adapter: Path, out: Path) -> None:
    """The files load whole, and every tensor is peft's, bit for bit."""
    models: Any = transformers.AutoModelForCausalLM
    model, told = models.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours, theirs = model.state_dict(), by_peft(base, adapter)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_is_that_of_peft_bit_for_bit(kind: str, tied: bool, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", kind, tied=tied, shard="20KB")
    assert len(list(base.glob("model-*.safetensors"))) > 2
    adapter = adapter_of(base, tmp_path / "adapter")
    told = merge(base, adapter, tmp_path / "out")
    assert_same(base, adapter, tmp_path / "out")
    assert told["weights"] == weights_digest(tmp_path / "out") != weights_digest(base)
    names = {p.name for p in base.iterdir() if "model" in p.name and "tokenizer" not in p.name}
    assert names <= {p.name for p in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"lora_dropout": 0.3},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.*v_proj": 3}},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["embed_tokens", "v_proj"]},
        {"layers_to_transform": [1]},
        {"fan_in_fan_out": True},  # which peft puts right for a Linear, and says so
        {"target_modules": "all-linear"},
    ],
    ids=lambda settings: next(iter(settings)) + str(len(str(settings))),
)
def test_what_an_adapter_can_ask_for_is_summed_as_peft_does(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    base = base_of(tmp_path / "base", dtype="float32", shard="1GB")
    adapter = adapter_of(base, tmp_path / "adapter", **settings)
    merge(base, adapter, tmp_path / "out")
    assert_same(base, adapter, tmp_path / "out")


def test_half_precision_is_summed_as_peft_does(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", dtype="float16", shard="1GB")
    adapter = adapter_of(base, tmp_path / "adapter", target_modules=[*EVERY, "embed_tokens"])
    merge(base, adapter, tmp_path / "out")
    assert_same(base, adapter, tmp_path / "out")


def test_an_embedding_of_the_adapters_own_is_refused(tmp_path: Path) -> None:
    """peft repeats the base's embedding in the adapter's file; it counts when it is another."""
    base = base_of(tmp_path / "base", shard="1GB")
    adapter = adapter_of(base, tmp_path / "adapter", target_modules=["embed_tokens"])
    rewrite(adapter, lambda tensors: tensors[next(n for n in tensors if "base" in n[10:])].zero_())
    with pytest.raises(CannotMerge, match="of its own"):
        merge(base, adapter, tmp_path / "out")


def test_a_transposed_weight_is_summed_as_peft_does(tmp_path: Path) -> None:
    """GPT-2's layers have their weights the other way round, some of them square."""
    torch.manual_seed(3)
    config = transformers.GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    adapter = adapter_of(
        tmp_path / "base", tmp_path / "adapter", target_modules=["c_attn", "c_proj"]
    )
    merge(tmp_path / "base", adapter, tmp_path / "out")
    assert_same(tmp_path / "base", adapter, tmp_path / "out")


def test_an_adapter_in_another_dtype_is_loaded_as_peft_loads_it(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", shard="1GB")
    adapter = adapter_of(base, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    save_file({n: t.to(torch.bfloat16) for n, t in load_file(file).items()}, file)
    merge(base, adapter, tmp_path / "out")
    assert_same(base, adapter, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"modules_to_save": ["lm_head"]}, "whole layers"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True, "target_modules": ["q_proj"]}, "biases of its own|bias"),
        ({"bias": "lora_only"}, "biases of the base"),
        ({"trainable_token_indices": [1, 2]}, "single tokens"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_no_sum_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", shard="1GB")
    try:
        adapter = adapter_of(base, tmp_path / "adapter", **settings)
    except ValueError:
        pytest.skip("peft makes no such adapter for this model")
    with pytest.raises(CannotMerge, match=said):
        merge(base, adapter, tmp_path / "out")


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_one_half_of_a_tied_embedding_is_refused(target: str, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", tied=True, shard="1GB")
    adapter = adapter_of(base, tmp_path / "adapter", target_modules=["q_proj", target])
    with pytest.raises(CannotMerge, match="tied"):
        merge(base, adapter, tmp_path / "out")


def edit(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(adapter: Path, change: Any) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[max(tensors)]


def stray(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.lm_head.weight"] = torch.zeros(3)


def infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors[max(tensors)][0, 0] = float("inf")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda a: edit(a, init_lora_weights="pissa"), "changed base"),
        (lambda a: edit(a, r=8), "its settings say"),
        (lambda a: edit(a, target_modules=["nobody_proj"]), "nobody_proj"),
        (lambda a: edit(a, target_modules=EVERY[:3]), "nothing is known"),
        (lambda a: edit(a, peft_type="IA3", feedforward_modules=[]), "IA3"),
        (lambda a: rewrite(a, drop), "has no tensor"),
        (lambda a: rewrite(a, stray), "nothing is known"),
        (lambda a: rewrite(a, infinite), "NaN or infinite"),
    ],
)
def test_an_adapter_that_is_not_what_it_says_is_refused(
    damage: Any, said: str, tmp_path: Path
) -> None:
    base = base_of(tmp_path / "base", shard="1GB")
    adapter = adapter_of(base, tmp_path / "adapter")
    damage(adapter)
    with pytest.raises(CannotMerge, match=said):
        merge(base, adapter, tmp_path / "out")


def test_a_quantized_base_is_refused(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", shard="1GB")
    adapter = adapter_of(base, tmp_path / "adapter")
    path = base / "config.json"
    quantized = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantized}))
    with pytest.raises(CannotMerge, match="quantized"):
        merge(base, adapter, tmp_path / "out")


def test_a_base_that_changes_while_it_is_read_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest was right before; what counts are the bytes that were added up."""
    base = base_of(tmp_path / "base", shard="20KB")
    adapter = adapter_of(base, tmp_path / "adapter")
    original = writing.targets

    def late(*words: Any) -> Any:
        path = max(base.glob("model-*.safetensors"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return original(*words)

    monkeypatch.setattr(writing, "targets", late)
    with pytest.raises(VerificationFailed, match="changed while it was read"):
        merge(base, adapter, tmp_path / "out")
