"""What a token of a batch costs in memory while training: an estimate from the model's config.

    bytes of a batch ~ batch_size * max_length * bytes_per_token

    bytes_per_token = vocabulary * v + layers * a

v, for the logits (transformers' causal loss upcasts them): in bf16 2 (logits) + 4 (float32 copy)
+ 4 (its gradient) = 10, in fp32 4 + 4 + 4 = 12 (logits, log-softmax, gradient); 0 with Liger's
fused loss or a chunked one, which never hold them all.
a, for what a layer keeps for its backward pass, with s bytes a number (2 or 4): with gradient
checkpointing its input alone, s * hidden; else s * (4 hidden + 3 (heads + 2 kv_heads) * head_dim
+ 4 intermediate): block inputs and normed inputs; q, k, v before and after norm and rotation and
the attention's output; gate, up, activation and product. Attention under sdpa or flash keeps no
square of the length. After Korthikanti et al. 2022 (arXiv 2205.05198), section 4, for SwiGLU.
Weights, gradients and optimizer do not depend on the length and are not in it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.kernels import chunks_loss
from queue_store.config import Model, Training

GPU = Path("/dev/nvidiactl")
"""There where NVIDIA's driver runs: asking torch would cost seconds."""


def bytes_per_token(config: Mapping[str, Any], model: Model, training: Training) -> int | None:
    """Bytes that one more token of a batch takes (see above); None where the config.json of the
    model does not say how large it is."""
    text = config.get("text_config") if "hidden_size" not in config else config
    if not isinstance(text, Mapping):
        return None
    try:
        hidden = int(text["hidden_size"])
        layers = int(text["num_hidden_layers"])
        heads = int(text["num_attention_heads"])
        vocabulary = int(text["vocab_size"])
        inner = int(text["intermediate_size"])
        key_values = int(text.get("num_key_value_heads") or heads)
        head = int(text.get("head_dim") or hidden // heads)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    gpu = GPU.exists()
    half = model.precision == "bf16" or (model.precision == "auto" and gpu)
    size = 2 if half else 4
    fused = training.liger != "off" and gpu and importlib.util.find_spec("liger_kernel")
    spared = fused or chunks_loss(training.chunked_loss, vocabulary)
    logits = 0 if spared else vocabulary * (10 if half else 12)
    if training.gradient_checkpointing:
        layer = hidden
    else:
        layer = 4 * hidden + 3 * (heads + 2 * key_values) * head + 4 * inner
    return logits + layers * layer * size


def positions(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that the model was made for, None where its config does not say."""
    text = config.get("text_config") if "hidden_size" not in config else config
    value = text.get("max_position_embeddings") if isinstance(text, Mapping) else None
    return value if isinstance(value, int) and value > 0 else None
