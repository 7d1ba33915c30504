"""The shapes of models, as configs in code: weights are random and made on the spot, nothing is
fetched. Numbers of Qwen3's published config.json; the text files are those of builtin:tiny, whose
tokens are a small part of the vocabulary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.training.tiny import make_tiny_text

SEED = 1
SHARD = "4GB"


@dataclass(frozen=True)
class Shape:
    """A Qwen3 of these sizes; packs of `length` tokens."""

    name: str
    hidden: int
    layers: int
    heads: int
    intermediate: int
    tied: bool
    vocabulary: int = 151_936
    key_value_heads: int = 8
    head: int = 128
    length: int = 2048

    def config(self) -> dict[str, Any]:
        """As in config.json."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 40_960,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000,
            "hidden_act": "silu",
            "use_cache": False,
        }

    @property
    def parameters(self) -> int:
        """Numbers of the weights."""
        return self._matrices() + (1 if self.tied else 2) * self.vocabulary * self.hidden

    def _matrices(self) -> int:
        attention = 2 * self.hidden * self.head * (self.heads + self.key_value_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def operations(self, *, weights: bool) -> float:
        """Floating-point operations a token that training cannot do without: two a number of the
        matrices and the head, forward and twice backward (once where the weights stand still),
        and attention over half of the pack. What is computed again for checkpoints is not work."""
        passes = 3 if weights else 2
        matrices = self._matrices() + self.vocabulary * self.hidden
        attention = 2 * self.layers * self.heads * self.head * self.length
        return float(passes * 2 * matrices + 3 * attention)


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("qwen3-0.6b", 1024, 28, 16, 3072, True),
        Shape("qwen3-1.7b", 2048, 28, 16, 6144, True),
        Shape("qwen3-4b", 2560, 36, 32, 9728, True),
        Shape("qwen3-8b", 4096, 36, 32, 12288, False),
        Shape("tiny", 64, 2, 2, 128, True, 1024, 1, 32, 192),
    )
}
REAL = tuple(name for name in SHAPES if name != "tiny")


def make_model(shape: Shape, folder: Path, device: str, dtype: torch.dtype) -> Path:
    """A Hugging Face folder with random weights of the shape, drawn on the device."""
    folder.mkdir(parents=True)
    make_tiny_text(folder, SEED)
    (folder / "config.json").write_text(json.dumps(shape.config(), indent=2))
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    model.save_pretrained(folder, max_shard_size=SHARD)
    return folder
