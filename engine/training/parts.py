"""Checkpointed layers take a batch in parts: what a layer computes anew in the backward pass stands
for some rows, not for all of them.

For steps in the backward pass, whose batch is the whole step. A row's activations need no other
row, so a part has the same numbers but for rounding, and gradients of the parts are summed up by
autograd, which hands a weight's on once, when all are there: in passing those of one layer stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from engine.kernels import rows_of_part


@contextmanager
def in_parts(model: torch.nn.Module) -> Iterator[None]:
    """While this lasts, layers whose activations are checkpointed take a batch in parts. Nothing
    changes where none are, nor under flash attention, for which rows lie in one sequence."""
    layers: list[Any] = [
        module
        for module in model.modules()
        if getattr(module, "gradient_checkpointing", False)
        and callable(getattr(module, "_gradient_checkpointing_func", None))
    ]
    own = [layer._gradient_checkpointing_func for layer in layers]
    try:
        for layer, checkpoint in zip(layers, own, strict=True):
            layer._gradient_checkpointing_func = partial(_parted, checkpoint)
        yield
    finally:
        for layer, checkpoint in zip(layers, own, strict=True):
            layer._gradient_checkpointing_func = checkpoint


def _parted(checkpoint: Callable[..., Any], layer: Any, *given: Any) -> Any:
    """`layer` is a layer's forward with its named arguments bound, as transformers hands it on;
    `given` are the others, hidden states [rows, length, width] first."""
    hidden = given[0] if given else None
    if not (isinstance(layer, partial) and isinstance(hidden, torch.Tensor) and hidden.ndim == 3):
        return checkpoint(layer, *given)
    rows, length = hidden.shape[:2]
    each = rows_of_part(rows, length)
    parts = None if each == rows else _split((given, layer.keywords), rows, length, each)
    if parts is None:
        return checkpoint(layer, *given)
    made: list[torch.Tensor] = []
    for others, named in parts:
        out = checkpoint(partial(layer.func, *layer.args, **named), *others)
        if not isinstance(out, torch.Tensor):  # of a layer that tells more than hidden states
            return checkpoint(layer, *given)
        made.append(out)
    return torch.cat(made)


def _split(value: Any, rows: int, length: int, each: int) -> list[Any] | None:
    """What each part sees of an argument; None where it cannot be told whose rows it holds."""
    count = -(-rows // each)
    if isinstance(value, torch.Tensor):
        shape = value.shape
        if value.ndim == 0 or shape[0] == 1 or tuple(shape) == (length,):  # the same for all rows
            return [value] * count
        # Hidden states, positions, rotary factors; or a mask [rows, heads or 1, tokens, tokens].
        its_own = shape[0] == rows and value.ndim > 1 and (shape[1] == length or value.ndim == 4)
        return list(value.split(each)) if its_own else None
    if type(value) in (tuple, list):
        found = [_split(one, rows, length, each) for one in value]
        if any(one is None for one in found):
            return None
        return [type(value)(part) for part in zip(*found, strict=True)] or [value] * count
    if type(value) is dict:
        split = _split(tuple(value.values()), rows, length, each)
        if split is None:
            return None
        return [dict(zip(value, part, strict=True)) for part in split]
    return [value] * count if value is None or isinstance(value, bool | int | float | str) else None
