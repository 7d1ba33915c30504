"""Gradients of linear layers' weights that are summed up in place, over the parts of a batch.

Where a layer takes a batch in parts, autograd makes each part's gradient of a weight beside the sum
of those before, and adds it. Here the product is added to the sum as it is computed: one matrix
less in memory, read and written once less, and rounded once, not twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from engine.training.gate import Gate

Whole = Callable[[torch.Tensor], None]


@contextmanager
def summed(layers: Iterable[torch.nn.Module], whole: Whole) -> Iterator[None]:
    """While this lasts, the trained weights of plain linear modules in `layers` are summed up so;
    `whole` hears of each whose gradient is whole, in its `grad`."""
    found = [
        module
        for layer in layers
        for module in layer.modules()
        if type(module) is torch.nn.Linear
        and module.weight.requires_grad
        and "forward" not in vars(module)
    ]
    sums = [_Sum(module, whole) for module in found]
    for module, one in zip(found, sums, strict=True):
        vars(module)["forward"] = one.product
    try:
        yield
    finally:
        for module, one in zip(found, sums, strict=True):
            del vars(module)["forward"]  # the class's is in sight again
            one.clear()


class _Sum:
    """The gradient of one weight, as far as it is there."""

    def __init__(self, module: torch.nn.Linear, whole: Whole) -> None:
        self._module, self._told = module, whole
        self._sum: torch.Tensor | None = None
        self.gate = Gate(module.weight.device, self._whole)

    def product(self, hidden: torch.Tensor) -> torch.Tensor:
        """The module's forward."""
        module = self._module
        if not torch.is_grad_enabled():
            return torch.nn.functional.linear(hidden, module.weight, module.bias)
        hidden = _Kept.apply(hidden, self.gate.tensor, self.gate.passed)
        kept: Any = hidden.grad_fn
        out = torch.nn.functional.linear(hidden, module.weight.detach(), module.bias)
        out.register_hook(lambda slope: self._add(slope, *kept.saved_tensors))
        return out

    @torch.no_grad()
    def _add(self, slope: torch.Tensor, hidden: torch.Tensor) -> None:
        """What a product with `hidden` [..., in] adds, whose gradient is `slope` [..., out]."""
        slope, hidden = (one.reshape(-1, one.shape[-1]) for one in (slope, hidden))
        if self._sum is None:
            self._sum = slope.t() @ hidden
        else:
            self._sum.addmm_(slope.t(), hidden)

    def clear(self) -> None:
        """Forget what a backward pass that broke off has left."""
        self._sum = None

    def _whole(self) -> None:
        self._module.weight.grad, self._sum = self._sum, None
        self._told(self._module.weight)


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
