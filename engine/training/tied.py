"""The gradient of an embedding that is the head, too, by the rows that a batch looked up.

Autograd makes of it a matrix as large as the head's gradient and adds the two up: three of them
stand then. Here the rows wait for the head's gradient, which they are added to in place: number for
number the same, in the memory of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.function import once_differentiable


class TiedRows:
    """Gradients of rows of the tied weight of a model, if it has one, between their backward pass
    and the moment in which the weight's own is whole."""

    def __init__(self, model: Any) -> None:
        plain = getattr(model, "get_base_model", lambda: model)()
        self._embedding, head = plain.get_input_embeddings(), plain.get_output_embeddings()
        self._weight: torch.nn.Parameter | None = None
        one = self._embedding
        if isinstance(one, torch.nn.Embedding) and one.max_norm is None and not one.sparse:
            weight = one.weight
            if getattr(head, "weight", None) is weight and weight.requires_grad:
                self._weight = weight
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While this lasts, backward passes leave the rows here."""
        if self._weight is None:
            yield
            return
        embedding, own = self._embedding, self._embedding.forward
        before = vars(embedding).get("forward")
        embedding.forward = lambda ids: self._look_up(own, ids)
        try:
            yield
        finally:
            if before is None:
                del embedding.forward  # the class's is in sight again
            else:
                embedding.forward = before
            self._waiting.clear()

    def add_to(self, parameter: torch.Tensor) -> None:
        """Add the rows that wait to the gradient of the tied weight; nothing to any other's."""
        if parameter is not self._weight:
            return
        if self._waiting and parameter.grad is None:  # a loss without the head
            parameter.grad = torch.zeros_like(parameter)
        assert parameter.grad is not None
        for rows, gradient in self._waiting:
            parameter.grad.index_add_(0, rows, gradient)
        self._waiting.clear()

    def _look_up(self, own: Any, ids: torch.Tensor) -> torch.Tensor:
        """The embedding's own forward over the rows that `ids` name, as over all of them."""
        embedding, weight = self._embedding, self._weight
        if not torch.is_grad_enabled():
            found: torch.Tensor = own(ids)
            return found
        rows, places = torch.unique(ids, return_inverse=True)
        padding = embedding.padding_idx
        few = _Rows.apply(weight, rows, padding, self._waiting)
        embedding._parameters["weight"], embedding.padding_idx = few, None
        try:
            found = own(places)
        finally:
            embedding._parameters["weight"], embedding.padding_idx = weight, padding
        return found


class _Rows(torch.autograd.Function):
    """`weight[rows]`, whose gradient goes to a list: autograd hears of none, but of its place in
    the order, after which the weight's gradient is whole."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, rows: torch.Tensor, padding: int | None, waiting: Any
    ) -> torch.Tensor:
        ctx.rows, ctx.padding, ctx.waiting = rows, padding, waiting
        return weight[rows]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, ...]:
        if ctx.padding is not None:
            gradient = gradient.masked_fill((ctx.rows == ctx.padding)[:, None], 0)
        ctx.waiting.append((ctx.rows, gradient))
        return None, None, None, None
