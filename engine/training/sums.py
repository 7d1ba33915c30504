"""Gradients of linear layers' weights that are summed up in place, over the parts of a batch.

Where a layer takes a batch in parts, autograd makes each part's gradient of a weight beside the sum
of those before, and adds it. Here the product is added to the sum as it is computed: one matrix
less in memory, read and written once less, and rounded once, not twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from engine.training.gate import Gate

Whole = Callable[[torch.Tensor], None]


@contextmanager
def summed(layers: Iterable[torch.nn.Module], whole: Whole) -> Iterator[None]:
    """While this lasts, the trained weights of plain linear modules in `layers` are summed up so;
    `whole` hears of each whose gradient is whole, in its `grad`."""
    found = {
        id(module): module
        for layer in layers  # one may be within another
        for module in layer.modules()
        if type(module) is torch.nn.Linear
        and module.weight.requires_grad
        and "forward" not in vars(module)
    }
    sums: dict[int, _Sum] = {}  # one a weight: layers may share it
    for module in found.values():
        weight = module.weight
        assert isinstance(weight, torch.nn.Parameter)
        if id(weight) not in sums:
            sums[id(weight)] = _Sum(weight, whole)
        vars(module)["forward"] = partial(sums[id(weight)].product, module)
    try:
        yield
    finally:
        for module in found.values():
            del vars(module)["forward"]  # the class's is in sight again
        for one in sums.values():
            one.clear()


class _Sum:
    """The gradient of one weight, as far as it is there."""

    def __init__(self, weight: torch.nn.Parameter, whole: Whole) -> None:
        self._weight, self._told = weight, whole
        self._sum: torch.Tensor | None = None
        self.gate = Gate(weight.device, self._whole)

    def product(self, module: torch.nn.Linear, input: torch.Tensor) -> torch.Tensor:
        """The forward of a module that has the weight."""
        linear = torch.nn.functional.linear
        if not torch.is_grad_enabled():
            return linear(input, self._weight, module.bias)
        hidden = _Kept.apply(input, self.gate.tensor, self.gate.passed)
        kept: Any = hidden.grad_fn
        out = linear(hidden, self._weight.detach(), module.bias)
        out.register_hook(lambda slope: self._add(slope, *kept.saved_tensors))
        return out

    @torch.no_grad()
    def _add(self, slope: torch.Tensor | None, hidden: torch.Tensor) -> None:
        """What a product with `hidden` [..., in] adds, whose gradient is `slope` [..., out]."""
        if slope is None:  # what became of the product has none
            return
        slope, hidden = (one.reshape(-1, one.shape[-1]) for one in (slope, hidden))
        if self._sum is None:
            self._sum = slope.t() @ hidden
        else:
            self._sum.addmm_(slope.t(), hidden)

    def clear(self) -> None:
        """Forget what a backward pass that broke off has left."""
        self._sum = None

    def _whole(self) -> None:
        if self._sum is None:
            return
        self._weight.grad, self._sum = self._sum, None
        self._told(self._weight)


class _Kept(torch.autograd.Function):
    """Keeps what a product is computed from, before it is: where a layer is computed anew in the
    backward pass, torch stops at the last tensor that is kept, and the product is left out."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, gate: torch.Tensor, passed: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden)
        ctx.passed = passed
        return hidden.view_as(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return slope, ctx.passed, None
