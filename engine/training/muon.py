"""Muon for the hidden matrices and AdamW for all the rest, as one torch Optimizer.

`torch.optim.Muon` takes 2-D parameters only (Jordan et al. 2024); embeddings, the head and norms
go to AdamW. Both share this optimizer's param_groups and state, so that schedule, checkpoint and
Trainer see one optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """`rest` and `hidden` are lists of param groups with every hyper-parameter of torch's AdamW
    and Muon in them; the groups of AdamW come first."""

    def __init__(self, rest: list[dict[str, Any]], hidden: list[dict[str, Any]]) -> None:
        self._adamw = torch.optim.AdamW(rest) if rest else None
        self._muon = torch.optim.Muon(hidden) if hidden else None
        super().__init__([*rest, *hidden], {})
        # The inner optimizers fill in the defaults of their kind: their groups are the groups.
        self.param_groups = [g for inner in self._inner for g in inner.param_groups]
        self._share()

    @property
    def _inner(self) -> list[torch.optim.Optimizer]:
        return [o for o in (self._adamw, self._muon) if o is not None]

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
