"""A loss on a few tokens: two ways to compute the same must agree on it before one is used."""

from __future__ import annotations

from typing import Any

import torch

from engine.prepare.collate import IGNORED
from engine.training.rng import preserve_rng

TOKENS = 16
APART = {torch.float64: 1e-4, torch.float32: 1e-4}
"""The largest relative difference of two losses; a dtype of 16 bits rounds more."""
APART_HALF = 2e-2


def trial_loss(model: Any, **named: Any) -> float:
    """The mean loss of the second half of a few tokens, without dropout and gradients; generators
    and mode are as before afterwards. `named` goes to the model's forward."""
    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(TOKENS, device=model.device)[None] % rows
    labels = ids.clone()
    labels[:, : TOKENS // 2] = IGNORED
    training = model.training
    with preserve_rng(), torch.no_grad():
        model.eval()
        try:
            out = model(input_ids=ids, labels=labels, use_cache=False, **named)
        finally:
            model.train(training)
    return float(out.loss)


def agree(one: float, other: float, dtype: torch.dtype) -> bool:
    """Whether two losses differ by no more than rounding."""
    return abs(one - other) <= APART.get(dtype, APART_HALF) * abs(other)
