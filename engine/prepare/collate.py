"""Packed sequences to the tensors of a batch, so that no row sees another.

Rows of a pack are isolated by restarting `position_ids` alone: transformers builds the
block-diagonal mask from them when `attention_mask` is absent and `use_cache` is False. So this
must never return an attention mask (an all-ones mask leaks: 0.77 in the logits), and whoever
calls the model outside training must pass use_cache=False.
"""

from __future__ import annotations

from collections.abc import Sequence as Several

import numpy as np
import torch

from engine.prepare.prepared import Sequence

IGNORED = -100
"""Label of a token that has no loss (torch.nn.functional.cross_entropy's ignore_index)."""

MULTIPLE = 8


def padded(longest: int) -> int:
    """Tokens of a row of a batch whose longest sequence has so many."""
    return -(-longest // MULTIPLE) * MULTIPLE


def collate(
    sequences: Several[Sequence], pad_to: int | None = None, pad_id: int = 0
) -> dict[str, torch.Tensor]:
    """A batch as int64 tensors [B, L]: input_ids, labels, position_ids.

    L is `pad_to`, else the longest sequence rounded up to a multiple of 8. Labels are -100 on
    what does not train and on the first token of every row, which the last token of the row
    before it would have to predict. The padded tail counts its positions from 0 on, so it is a
    segment of its own. Raises ValueError where a sequence is longer than `pad_to`.
    """
    longest = max(len(sequence.input_ids) for sequence in sequences)
    length = pad_to if pad_to is not None else padded(longest)
    if longest > length:
        raise ValueError(f"a sequence of {longest} tokens does not fit pad_to={length}")
    shape = (len(sequences), length)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    for place, sequence in enumerate(sequences):
        end = len(sequence.input_ids)
        input_ids[place, :end] = sequence.input_ids
        positions[place, :end] = sequence.position_ids
        positions[place, end:] = np.arange(length - end)
        trains = sequence.trained & (sequence.position_ids != 0)
        labels[place, :end] = np.where(trains, sequence.input_ids, IGNORED)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "labels": torch.from_numpy(labels),
        "position_ids": torch.from_numpy(positions),
    }
