"""Muon for the hidden matrices and AdamW (or its 8-bit form) for all the rest, as one Optimizer.

`torch.optim.Muon` takes 2-D parameters only (Jordan et al. 2024); embeddings, the head and norms
go to `rest`. Both share this optimizer's param_groups and state, so that schedule, checkpoint and
Trainer see one optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """`rest` moves what is no hidden matrix (None where there is nothing else); `hidden` is a list
    of param groups with every hyper-parameter of torch's Muon. The groups of `rest` come first."""

    def __init__(self, rest: torch.optim.Optimizer | None, hidden: list[dict[str, Any]]) -> None:
        self.rest = rest
        self._muon = torch.optim.Muon(hidden) if hidden else None
        super().__init__([*(rest.param_groups if rest else ()), *hidden], {})
        # The inner optimizers fill in the defaults of their kind: their groups are the groups.
        self.param_groups = [g for inner in self._inner for g in inner.param_groups]
        self._share()

    @property
    def _inner(self) -> list[torch.optim.Optimizer]:
        return [o for o in (self.rest, self._muon) if o is not None]

    def _share(self) -> None:
        """Let the inner optimizers work on this one's state and groups."""
        at = 0
        for inner in self._inner:
            count = len(inner.param_groups)
            inner.param_groups = self.param_groups[at : at + count]
            inner.state = self.state
            at += count

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for inner in self._inner:
            inner.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


class MuonWithAdamW8bit(MuonWithAdamW):
    """The same with bitsandbytes' AdamW for the rest: its states fit no other rule's."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        raise NotImplementedError("torch would cast 8-bit states: restore_optimizer does not")
