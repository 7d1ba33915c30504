"""One step of one parameter, by the rule of its group: what optimizers do to all at once.

The optimizer's own state is used and nothing else is kept, so that a parameter may be stepped here
at one step and by the optimizer's `step` at the next. To the nearest the arithmetic is the
optimizer's, bit for bit. With stochastic rounding (bf16 weights) the update is computed in float32
from the weight and rounded when it is written back.

Bytes a trained number, whichever way it is stepped or rounded:

    adamw                    two states in the weight's dtype: 4 with bf16 weights, 8 with float32
    adamw_8bit, paged        two bytes and two float32 scales a block of 256: 2.03;
                             8 in tensors of less than 4,096 numbers
    muon                     one momentum in the weight's dtype: 2 with bf16, 4 with float32;
                             what is no hidden matrix as adamw or adamw_8bit (training.muon.rest)

With bf16 weights the states stay in bf16, rounded to the nearest: they move by (1 - beta), 5 % and
more of themselves a step, far above the 0.4 % that bf16 resolves.

In passing, with stochastic rounding, at most: adamw 21 bytes and 8-bit 13 for each of CHUNK
numbers (88 and 55 MB), Muon 4 a number of one matrix (the weight in float32) beside its own
workspace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.optim._muon import muon
from torch.optim.adamw import adamw

from engine.training.muon import MuonWithAdamW
from engine.training.rounding import CHUNK, round_into
from engine.training.sharded import local

BLOCK = 256
"""Numbers that share a scale in bitsandbytes' 8-bit states."""


def _chunks(count: int) -> Iterator[slice]:
    return (slice(at, min(at + CHUNK, count)) for at in range(0, count, CHUNK))


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Its numbers in a row, as a view; of a split one those of this rank."""
    return local(tensor.detach()).view(-1)


class Rules:
    """The rules of a live optimizer's groups."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._state = optimizer.state
        rest = optimizer.rest if isinstance(optimizer, MuonWithAdamW) else optimizer
        self._bits8: Any = rest if hasattr(rest, "update_step") else None
        self._places = {
            id(parameter): (group, number, at)
            for number, group in enumerate(optimizer.param_groups)
            for at, parameter in enumerate(group["params"])
        }

    @torch.no_grad()
    def step(self, parameter: torch.nn.Parameter, generator: torch.Generator | None = None) -> None:
        """Step one parameter by its gradient; with a `generator` rounded stochastically (then it is
        in bf16)."""
        group, *place = self._places[id(parameter)]
        if "adjust_lr_fn" in group:
            self._muon(group, parameter, generator)
        elif self._bits8 is None:
            self._adamw(group, parameter, generator)
        else:
            self._in_8_bits(group, parameter, generator, place)

    def _muon(
        self, group: dict[str, Any], parameter: torch.Tensor, generator: torch.Generator | None
    ) -> None:
        state, grad = self._state[parameter], parameter.grad
        assert grad is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        weight = parameter if generator is None else parameter.float()
        muon(
            [weight],
            [grad],
            [state["momentum_buffer"]],
            has_complex=False,
            **{
                key: group[key]
                for key in (
                    *("lr", "weight_decay", "momentum", "nesterov", "ns_coefficients"),
                    *("eps", "ns_steps", "adjust_lr_fn"),
                )
            },
        )
        if generator is not None:
            flat, exact = _flat(parameter), _flat(weight)
            for part in _chunks(flat.numel()):
                round_into(flat[part], exact[part], generator)

    def _adamw(
        self, group: dict[str, Any], parameter: torch.Tensor, generator: torch.Generator | None
    ) -> None:
        state, grad = self._state[parameter], parameter.grad
        assert grad is not None
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = state["exp_avg"], state["exp_avg_sq"]
        if generator is None:
            _adamw(group, parameter, grad, states, state["step"])
            return
        flat, grads = _flat(parameter), _flat(grad)
        for part in _chunks(flat.numel()):
            weight = flat[part].float()
            kept = [_flat(one)[part] for one in states]
            exact = [one.float() for one in kept]
            _adamw(group, weight, grads[part].float(), exact, state["step"].clone())
            for one, new in zip(kept, exact, strict=True):
                one.copy_(new)
            round_into(flat[part], weight, generator)
        state["step"] += 1

    def _in_8_bits(
        self,
        group: dict[str, Any],
        parameter: torch.nn.Parameter,
        generator: torch.Generator | None,
        place: list[int],
    ) -> None:
        bits8, state = self._bits8, self._state[parameter]
        if not state:
            bits8.init_state(group, parameter, *place)
        bits8.prefetch_state(parameter)
        if generator is None:
            bits8.update_step(group, parameter, *place)
        else:
            flat, grads = parameter.detach().view(-1), parameter.grad.reshape(-1)  # type: ignore[union-attr]
            for part in _chunks(flat.numel()):
                weight = flat[part].float()
                weight.grad = grads[part].float()
                # A stand-in with its part of the state: the rule is an operation on tensors.
                self._state[weight] = _part(state, part, flat.numel())
                try:
                    bits8.update_step(group, weight, *place)
                finally:
                    del self._state[weight]
                round_into(flat[part], weight, generator)
            state["step"] += 1
        if bits8.is_paged and parameter.is_cuda:
            torch.cuda.synchronize()  # paged states are host memory that kernels write


def _adamw(
    group: dict[str, Any],
    weight: torch.Tensor,
    grad: torch.Tensor,
    states: Any,
    step: torch.Tensor,
) -> None:
    beta1, beta2 = group["betas"]
    adamw(
        [weight],
        [grad],
        [states[0]],
        [states[1]],
        [],
        [step],
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _part(state: dict[str, Any], part: slice, count: int) -> dict[str, Any]:
    """The numbers `part` of `count` in a bitsandbytes state, as views of it."""
    blocks = slice(part.start // BLOCK, -(-part.stop // BLOCK))
    found = dict(state)
    for key in ("state1", "state2"):
        found[key] = state[key].view(-1)[part]
        if getattr(state[key], "is_paged", False):
            found[key].is_paged, found[key].page_deviceid = True, state[key].page_deviceid
    for key in ("absmax1", "absmax2"):
        if key in state:
            found[key] = state[key][blocks]
    assert state["state1"].numel() == count
    return found
