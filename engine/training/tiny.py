"""`builtin:tiny`: a complete Hugging Face model folder made on the spot from a seed.

Qwen3 architecture, 0.8 million parameters, fp32: small enough to learn SYLLO puzzles in front of
one's eyes on two CPU cores. The bytes are a function of the seed alone; no torch is needed, as
the weights are drawn with `random.Random.random`, whose sequence is promised over versions.
"""

from __future__ import annotations

import json
import math
import random
import sys
from array import array
from pathlib import Path

from blake3 import blake3

from engine.training.tiny_tokenizer import (
    END_OF_TEXT,
    SPECIAL,
    TURN_END,
    VOCABULARY,
    tokenizer_files,
)

HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD, INTERMEDIATE = 128, 4, 4, 4, 32, 256
POSITIONS = 4096
INITIAL_STD = 0.02


def _config() -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": SPECIAL.index(TURN_END),
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": INITIAL_STD,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "pad_token_id": SPECIAL.index(END_OF_TEXT),
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": True,
        "dtype": "float32",
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }


def _shapes() -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of Qwen3ForCausalLM; a matrix is [out, in], a norm is [width]."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}input_layernorm.weight": (HIDDEN,),
            f"{at}self_attn.q_proj.weight": (HEADS * HEAD, HIDDEN),
            f"{at}self_attn.k_proj.weight": (KEY_VALUE_HEADS * HEAD, HIDDEN),
            f"{at}self_attn.v_proj.weight": (KEY_VALUE_HEADS * HEAD, HIDDEN),
            f"{at}self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD),
            f"{at}self_attn.q_norm.weight": (HEAD,),
            f"{at}self_attn.k_norm.weight": (HEAD,),
            f"{at}post_attention_layernorm.weight": (HIDDEN,),
            f"{at}mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{at}mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
            f"{at}mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        }
    return shapes | {"model.norm.weight": (HIDDEN,)}


def _weights(seed: int) -> bytes:
    """The safetensors file: norms one, everything else uniform with a deviation of INITIAL_STD.

    Layout of the format: header length (8 bytes, little endian), JSON header padded with spaces
    to a multiple of 8 bytes, then the tensors in the order of the header.
    """
    reach = INITIAL_STD * math.sqrt(3)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, shape in _shapes().items():
        size = math.prod(shape)
        if len(shape) == 1:
            values = array("f", [1.0]) * size
        else:
            key = blake3(f"builtin:tiny\n{seed}\n{name}".encode()).digest(16)
            draw = random.Random(int.from_bytes(key, "big")).random
            values = array("f", ((2 * draw() - 1) * reach for _ in range(size)))
        if sys.byteorder == "big":
            values.byteswap()
        end = len(body) + 4 * size
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), end]}
        body += values.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(body)


def make_tiny_text(folder: Path, seed: int) -> None:
    """Write what makes tokens of rows into the existing `folder`, without the weights: config,
    tokenizer, chat template."""
    generation = {
        "do_sample": False,
        "eos_token_id": [SPECIAL.index(TURN_END), SPECIAL.index(END_OF_TEXT)],
        "pad_token_id": SPECIAL.index(END_OF_TEXT),
    }
    texts = {
        "config.json": json.dumps(_config(), indent=2) + "\n",
        "generation_config.json": json.dumps(generation, indent=2) + "\n",
        **tokenizer_files(seed, POSITIONS),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def make_tiny(folder: Path, seed: int) -> None:
    """Write the model into the existing `folder`: config, weights, tokenizer, chat template.

    Loads with AutoModelForCausalLM and AutoTokenizer. The folder is a cache that can be made
    again: the caller writes it beside and renames it, if it must be all or nothing.
    """
    make_tiny_text(folder, seed)
    (folder / "model.safetensors").write_bytes(_weights(seed))
