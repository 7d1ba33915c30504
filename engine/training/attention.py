"""How attention is computed: flash where it is installed and right, else torch's own (sdpa).

Flash attention takes no mask. transformers tells it of packed rows by restarting `position_ids`,
but only in a batch of one sequence (modeling_flash_attention_utils._is_packed_sequence); in a
batch of two, rows would see each other and nobody would say so. So under flash a batch with
labels is laid out as one sequence before the model sees it, and the borders of its rows go along,
which also spares a look at the positions in every layer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.kernels import FLASH, flash_installed
from queue_store.errors import ConfigError

STATE = "training_state.json"
OLDEST = (8, 0)
"""The compute capability from which on flash-attn 2 has kernels (Ampere)."""


def attention_of(state: Path | None) -> str:
    """What computed the attention of a saved state, "" where no state is continued. A state of a
    release that noted nothing had sdpa, where it was not asked for another."""
    try:
        info = json.loads((state / STATE).read_bytes()) if state is not None else None
    except (OSError, ValueError):
        return ""  # imported weights, or one that cannot be continued, as who reads it will say
    return str(info.get("attention", "sdpa")) if isinstance(info, dict) else ""


def choose_attention(
    wanted: str, device: str, dtype: torch.dtype, config: Any, before: str = ""
) -> str | None:
    """The name for transformers of what `model.attention` asks for; None lets it choose between
    sdpa and eager by what the architecture can. By itself it stays as it was `before`, so that a
    package installed meanwhile changes no bit of what is continued. Raises ConfigError."""
    if wanted not in ("auto", FLASH):
        return wanted
    if wanted == "auto" and before in ("sdpa", "eager"):
        return before
    missing = _flash_missing(device, dtype, config)
    if not missing:
        return FLASH
    if wanted == "auto":
        return None
    raise ConfigError(
        f"flash_attention_2 cannot run: {missing}", where="model.attention", mend='use "auto"'
    )


def _flash_missing(device: str, dtype: torch.dtype, config: Any) -> str:
    """Why there is no flash attention for this model here, "" where there is."""
    if device == "cpu":
        return "it needs a GPU"
    if not flash_installed():
        return "it needs the package flash-attn"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return "it needs a GPU of the Ampere generation or newer"
    if dtype is torch.float32:
        return "it needs weights in bf16"
    kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if not getattr(kind, "_supports_flash_attn", False):
        return f"{config.model_type} does not support it"
    return ""


def isolate_rows(model: Any) -> None:
    """Lay batches of packed rows out as flash attention needs them, where the model uses it."""
    if model.config._attn_implementation == FLASH:
        model.register_forward_pre_hook(_one_sequence, with_kwargs=True)


def _one_sequence(module: Any, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """`input_ids`, `labels`, `position_ids` [B, L] as [1, B * L]; every row begins at position 0
    with no label (engine.prepare.collate), so no loss crosses a border."""
    positions = named.get("position_ids")
    if named.get("labels") is None or positions is None:
        return args, named
    flat = {key: named[key].reshape(1, -1) for key in ("input_ids", "labels", "position_ids")}
    starts = (flat["position_ids"][0] == 0).nonzero()[:, 0].to(torch.int32)
    borders = torch.cat((starts, starts.new_tensor([positions.numel()])))
    longest = int((borders[1:] - borders[:-1]).max())
    rows = {
        **{key: borders for key in ("cu_seq_lens_q", "cu_seq_lens_k")},
        **{key: longest for key in ("max_length_q", "max_length_k")},
    }
    return args, {**named, **flat, **rows}
