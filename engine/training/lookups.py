"""The gradient of an embedding by the rows that a batch looked up.

Autograd makes of them a matrix as large as the embedding. Here they wait as they are: for the
slices in which the weight is stepped, or, where the head has the same weight and its gradient is
made whole, for that, to which they are added in place (autograd adds two into a third). Number for
number the gradient is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from engine.training.slices import RowsShare, Sliced


class Lookups:
    """What looks rows up in the embedding of a model. `weight` is the embedding's, if it trains and
    nothing but a look-up reads it there; None else. `tied`: the head has the same one."""

    def __init__(self, model: Any) -> None:
        plain = getattr(model, "get_base_model", lambda: model)()
        self._embedding, head = plain.get_input_embeddings(), plain.get_output_embeddings()
        self.weight: torch.nn.Parameter | None = None
        one = self._embedding
        if isinstance(one, torch.nn.Embedding) and one.max_norm is None and not one.sparse:
            weight = one.weight
            assert isinstance(weight, torch.nn.Parameter)
            self.weight = weight if weight.requires_grad else None
        self.tied = getattr(head, "weight", None) is getattr(one, "weight", self)
        self._sliced: Sliced | None = None
        self._waiting: list[RowsShare] = []

    @contextmanager
    def kept(self, sliced: Sliced | None = None) -> Iterator[None]:
        """While this lasts, backward passes leave the rows with `sliced`, which is the weight;
        without it here, for `add_to`, and an embedding that is not the head, too, is left alone."""
        if self.weight is None or (sliced is None and not self.tied):
            yield
            return
        self._sliced = sliced
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
            self._sliced = None

    def add_to(self, parameter: torch.Tensor) -> None:
        """Add the rows that wait here to the gradient of their weight; nothing to any other's."""
        if parameter is not self.weight or not self._waiting:
            return
        if parameter.grad is None:  # a loss without the head
            parameter.grad = torch.zeros_like(parameter)
        for rows in self._waiting:
            rows.add_to(parameter.grad, 0)
        self._waiting.clear()

    def _look_up(self, own: Any, ids: torch.Tensor) -> torch.Tensor:
        """The embedding's own forward over the rows that `ids` name, as over all of them."""
        embedding, weight = self._embedding, self.weight
        assert weight is not None
        if not torch.is_grad_enabled():
            found: torch.Tensor = own(ids)
            return found
        rows, places = torch.unique(ids, return_inverse=True)
        padding = embedding.padding_idx
        anchor = weight if self._sliced is None else self._sliced.gate.tensor
        few = _Rows.apply(weight.detach(), anchor, rows, padding, self._sliced or self._waiting)
        embedding._parameters["weight"], embedding.padding_idx = few, None
        try:
            found = own(places)
        finally:
            embedding._parameters["weight"], embedding.padding_idx = weight, padding
        return found


class _Rows(torch.autograd.Function):
    """`weight[rows]`, whose gradient goes to `to`. Autograd hears of none, but of its place in the
    order, by the `anchor`: when the anchor's gradient is whole, nothing is left to come."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: torch.Tensor,
        anchor: torch.Tensor,
        rows: torch.Tensor,
        padding: int | None,
        to: Sliced | list[RowsShare],
    ) -> torch.Tensor:
        ctx.rows, ctx.padding, ctx.to = rows, padding, to
        return weight[rows]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.padding is not None:
            gradient = gradient.masked_fill((ctx.rows == ctx.padding)[:, None], 0)
        share, anchor = RowsShare(ctx.rows, gradient), None
        if isinstance(ctx.to, Sliced):
            anchor = ctx.to.add(share)
        else:
            ctx.to.append(share)
        return None, anchor, None, None, None
