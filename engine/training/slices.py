"""Steps of a weight [vocabulary, width] in slices of its rows: its gradient never stands whole.

The embedding and the head are the largest matrices of a small model, and each row of theirs has a
gradient of its own: from the hidden states and the labels, or from the places that looked it up.
What these are made from is small, so it is kept until the gradient is wanted, and then a slice of
it is made, stepped with, and let go before the next.

Autograd hears of no gradient of the weight but of a gate (engine.training.gate): the step is taken
when nothing is left to come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from engine.kernels import slice_rows
from engine.training.gate import Gate

Part = tuple[slice, torch.Tensor]
"""Where numbers lie in the row of all of a weight's, and their gradient [numbers]."""


class Share(Protocol):
    """What one use of the weight adds to its gradient."""

    @property
    def tokens(self) -> int:
        """For how many a slice of logits is made in passing."""

    def add_to(self, gradient: torch.Tensor, first: int) -> None:
        """Add its rows from `first` on to `gradient` [rows, width]."""


class Sliced:
    """A weight that is stepped in slices. `step` takes it and its parts, in order; each is made
    when it is asked for."""

    def __init__(
        self, weight: torch.nn.Parameter, step: Callable[[torch.nn.Parameter, Iterator[Part]], None]
    ) -> None:
        self.weight, self._step = weight, step
        self._shares: list[Share] = []
        self.gate = Gate(weight.device, self._whole)

    def add(self, share: Share) -> torch.Tensor:
        """Keep what a use adds, in its backward pass; the gradient of the gate that it hands on."""
        self._shares.append(share)
        return self.gate.passed

    def clear(self) -> None:
        """Forget what a backward pass that broke off has left."""
        self._shares.clear()

    def _whole(self) -> None:
        shares, self._shares = self._shares, []
        self._step(self.weight, self._parts(shares))

    def _parts(self, shares: list[Share]) -> Iterator[Part]:
        rows, width = self.weight.shape
        tokens = max(share.tokens for share in shares)
        each = slice_rows(width, tokens, self.weight.device.type)
        for first in range(0, rows, each):
            last = min(first + each, rows)
            gradient = torch.zeros_like(self.weight[first:last])
            for share in shares:
                share.add_to(gradient, first)
            yield slice(first * width, last * width), gradient.view(-1)


class RowsShare:
    """Of the gradient of an embedding what looking up some rows adds: `rows` [n] in order, and the
    `gradient` of each [n, width]."""

    tokens = 0

    def __init__(self, rows: torch.Tensor, gradient: torch.Tensor) -> None:
        self._rows, self._gradient = rows, gradient

    def add_to(self, gradient: torch.Tensor, first: int) -> None:
        ends = self._rows.new_tensor([first, first + len(gradient)])
        own = slice(*torch.searchsorted(self._rows, ends).tolist())
        gradient.index_add_(0, self._rows[own] - first, self._gradient[own])
