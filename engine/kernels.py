"""Which kernels a training process will use, decided without torch: the estimator asks here too."""

from __future__ import annotations

import importlib.util

FLASH = "flash_attention_2"
"""transformers' name of flash attention, as in model.attention."""

LARGE_VOCABULARY = 16_384
"""Entries from which on the loss is computed in chunks by itself. A small head's logits are no more
than a layer's activations, and splitting them up saves nothing."""

CHUNK_BYTES = {"cpu": 128 << 20, "cuda": 256 << 20}
"""Bytes of a chunk's logits in float32. Each chunk adds to the whole gradient of the head, so that
small ones are slow: with 8 MB and 152k entries half the plain way's speed (benchmarks.bench_loss,
on a CPU); a card wants enough tokens to fill it."""


PART_TOKENS = 2048
"""The least tokens of a layer's part of a batch: as many as keep a card busy, about a pack's."""


def chunk_tokens(vocabulary: int, device: str) -> int:
    """Tokens of a chunk of the loss, on a device of the type "cpu" or "cuda"."""
    return max(1, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * vocabulary))


SLICE = 1 << 23
"""Numbers of a weight's gradient that are made at once, where it is stepped in slices: 16 MB in
bf16, and no fewer tokens of the head's product than keep a card busy."""


def slice_rows(width: int, tokens: int, device: str) -> int:
    """Rows of a slice (engine.training.slices) of a weight [vocabulary, width], of whose logits so
    many `tokens` have a gradient; a multiple of 256, the numbers that share a scale in an 8-bit
    state."""
    logits = CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * max(1, tokens))
    return max(256, min(SLICE // width, logits) // 256 * 256)


def liger_missing() -> list[str]:
    """The packages that Liger's kernels need and that are not installed."""
    return [p for p in ("triton", "liger_kernel") if importlib.util.find_spec(p) is None]


def flash_installed() -> bool:
    """Whether the package of flash_attention_2 is installed."""
    return importlib.util.find_spec("flash_attn") is not None


def chunks_loss(wanted: str, vocabulary: int) -> bool:
    """Whether `training.chunked_loss` means chunks for a model of that vocabulary. It depends on
    nothing else: an item's path must not change with its batch."""
    return wanted == "on" or (wanted == "auto" and vocabulary >= LARGE_VOCABULARY)


def rows_of_part(rows: int, length: int, tokens: int = 0) -> int:
    """Rows of the parts in which checkpointed layers take a batch [rows, length] whose gradients
    are stepped in the backward pass (engine.training.parts); `rows` where that is one part. A part
    has so many `tokens` at the least (PART_TOKENS by default), but for the last one."""
    return min(rows, max(1, -(-(tokens or PART_TOKENS) // length)))
