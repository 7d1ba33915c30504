"""Tiny random models of several architectures, as folders, with the tokenizer of builtin:tiny."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.training.tiny import make_tiny_text

SIZES: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": False},
    "llama": {"tie_word_embeddings": False},
    "mistral": {"tie_word_embeddings": False, "sliding_window": 24},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 16, "sliding_window": 24},
    "gemma3_text": {"query_pre_attn_scalar": 16, "sliding_window": 24},
    "phi3": {"tie_word_embeddings": False},
}
"""Model types and what their configurations have beside SIZES."""


def make_model(kind: str, seed: int = 7, **changes: Any) -> Any:
    """A model of the type `kind`, in float32; the same weights every time."""
    known = ARCHITECTURES.get(kind, {})
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **known, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                # Far from what a fresh model has: norms of one and zeros would hide mistakes.
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def make_folder(folder: Path, kind: str, *, shards: str = "50GB", **changes: Any) -> Path:
    """`make_model` as a Hugging Face folder with tokenizer and chat template."""
    text = folder.with_name(f"{folder.name}-text")
    text.mkdir(parents=True)
    make_tiny_text(text, 1)
    ids = json.loads((text / "config.json").read_text())
    special = {key: ids.get(key) for key in ("eos_token_id", "pad_token_id")}
    model = make_model(kind, **{**special, **changes})
    model.save_pretrained(folder, max_shard_size=shards)
    for path in text.iterdir():
        if path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
    return folder
