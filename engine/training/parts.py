"""Checkpointed layers take a batch in parts: what a layer computes anew in the backward pass stands
for some rows, not for all of them.

For steps in the backward pass, whose batch is the whole step. A row's activations need no other
row, so a part has the same numbers but for rounding. Gradients of the parts are summed up by
autograd in their own dtype, as those of micro-batches are, and a weight's is handed on once, when
all are there: in passing those of one layer stand. A layer is computed whole where it cannot be
told for certain which numbers are whose row's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.kernels import rows_of_part
from engine.training.rng import preserve_rng


@dataclass
class Parts:
    """How batches are taken: parts of so many `tokens` (0: as engine.kernels says), by layers of a
    model with so many `heads`. `states` tells of a kind of layer whether it gives hidden states
    and nothing beside, once it was tried; `whole` are the kinds that were computed whole."""

    tokens: int = 0
    heads: tuple[int, ...] = ()
    states: dict[type, bool] = field(default_factory=dict)
    whole: set[type] = field(default_factory=set)


def checkpointed(model: Any) -> list[Any]:
    """The layers of a model whose activations are checkpointed."""
    return [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    ]


@contextmanager
def in_parts(model: Any, tokens: int = 0) -> Iterator[Parts]:
    """While this lasts, layers whose activations are checkpointed take a batch in parts. Nothing
    changes where none are, nor under flash attention, for which rows lie in one sequence."""
    layers = checkpointed(model)
    config = model.config.get_text_config()
    names = ("num_attention_heads", "num_key_value_heads")
    taken = Parts(tokens, tuple(int(getattr(config, name, None) or 0) for name in names))
    own = [layer._gradient_checkpointing_func for layer in layers]
    try:
        for layer, checkpoint in zip(layers, own, strict=True):
            layer._gradient_checkpointing_func = partial(_parted, taken, checkpoint)
        yield taken
    finally:
        for layer, checkpoint in zip(layers, own, strict=True):
            layer._gradient_checkpointing_func = checkpoint


def _parted(taken: Parts, checkpoint: Callable[..., Any], layer: Any, *given: Any) -> Any:
    """`layer` is a layer's forward with itself and its named arguments bound, as transformers hands
    it on; `given` are the others, hidden states [rows, length, width] first."""
    hidden = given[0] if given else None
    if not (isinstance(layer, partial) and isinstance(hidden, torch.Tensor) and hidden.ndim == 3):
        return checkpoint(layer, *given)
    rows, length = hidden.shape[:2]
    each = rows_of_part(rows, length, taken.tokens)
    kind = type(layer.args[0] if layer.args else layer.func)
    if each == rows or rows == length:
        return checkpoint(layer, *given)
    batch = _Batch(rows, length, each, taken.heads)
    others, named = batch.split(given), batch.split(tuple(layer.keywords.values()))
    parts = []
    for part, values in zip(others or (), named or (), strict=False):
        words = dict(zip(layer.keywords, values, strict=True))
        parts.append((partial(layer.func, *layer.args, **words), part))
    if parts and kind not in taken.states:
        taken.states[kind] = _gives_states(*parts[-1])
    if not parts or not taken.states[kind]:
        # Decided by the batch alone: what came before it in a run must not change how it trains.
        taken.whole.add(kind)
        return checkpoint(layer, *given)
    return torch.cat([checkpoint(one, *part) for one, part in parts])


def _gives_states(layer: Any, part: tuple[Any, ...]) -> bool:
    """Whether a layer gives hidden states, and nothing beside them. It is tried once in a run, and
    leaves no trace: what is drawn next is the same as where it was not tried."""
    with preserve_rng(), torch.no_grad():
        out = layer(*part)
    return isinstance(out, torch.Tensor) and out.shape == part[0].shape


@dataclass(frozen=True)
class _Batch:
    """Of so many `rows` of a `length` (another number: else who tells them apart), `each` of them
    to a part."""

    rows: int
    length: int
    each: int
    heads: tuple[int, ...]

    def split(self, value: Any) -> list[Any] | None:
        """What each part sees of an argument; None where that cannot be told."""
        count = -(-self.rows // self.each)
        if isinstance(value, torch.Tensor):
            if value.ndim == 0 or value.shape[0] == 1 or self._shared(value):
                return [value] * count
            return list(value.split(self.each)) if self._by_rows(value) else None
        if type(value) is tuple:
            found = [self.split(one) for one in value]
            if any(one is None for one in found):
                return None
            return list(zip(*found, strict=True)) if found else [value] * count
        # What can be written to is not copied: what a layer writes there is for the next one.
        plain = value is None or isinstance(value, bool | int | float | str)
        return [value] * count if plain else None

    def _shared(self, value: torch.Tensor) -> bool:
        """Whether it is the same for all rows: places in a sequence."""
        return tuple(value.shape) == (self.length,)

    def _by_rows(self, value: torch.Tensor) -> bool:
        """Whether it has something of each row: hidden states, positions and rotary factors
        [rows, length, …], or a mask [rows, heads or 1, length or 1, length]."""
        if value.ndim < 2 or value.shape[0] != self.rows:
            return False
        if value.shape[1] == self.length:
            return True
        sees = tuple(value.shape[2:])
        mask = sees in ((self.length, self.length), (1, self.length))
        # With as many heads as rows, numbers may be what each head adds.
        return mask and (value.dtype is torch.bool or self.rows not in self.heads)
