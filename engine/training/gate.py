"""A number that stands for a weight in autograd's order, where its gradient is made otherwise.

Whatever uses the weight hangs on the gate, too, and hands on a gradient for it: autograd adds those
up, and tells when the last one is there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch


class Gate:
    """`whole` is called when nothing of a backward pass that uses the weight is left to come."""

    def __init__(self, device: torch.device, whole: Callable[[], None]) -> None:
        self.tensor = torch.zeros((), device=device, requires_grad=True)
        self.passed = torch.zeros((), device=device)
        """What the backward pass of a use hands on as the gradient of the gate."""
        self._whole = whole
        # The collector does not look into a tensor's hooks: a reference from there would hold the
        # gate, and the model behind it, for ever.
        gate = weakref.ref(self)

        @torch.no_grad()
        def all_there(tensor: torch.Tensor) -> None:
            tensor.grad = None
            found = gate()
            assert found is not None
            found._whole()

        self.tensor.register_post_accumulate_grad_hook(all_there)
