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

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.optim._muon import muon
from torch.optim.adamw import adamw

from engine.training.muon import MuonWithAdamW
from engine.training.rounding import CHUNK, round_into
from engine.training.sharded import local
from engine.training.slices import Part

BLOCK = 256
"""Numbers that share a scale in bitsandbytes' 8-bit states."""


def _chunks(whole: slice) -> Iterator[slice]:
    starts = range(whole.start, whole.stop, CHUNK)
    return (slice(at, min(at + CHUNK, whole.stop)) for at in starts)


def _whole(grad: torch.Tensor) -> Part:
    numbers = local(grad).reshape(-1)
    return slice(0, numbers.numel()), numbers


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
            for part in _chunks(slice(0, flat.numel())):
                round_into(flat[part], exact[part], generator)

    def _adamw(
        self, group: dict[str, Any], parameter: torch.Tensor, generator: torch.Generator | None
    ) -> None:
        grad = parameter.grad
        assert grad is not None
        if generator is not None:
            self.step_parts(parameter, [_whole(grad)], generator)
            return
        state = self._adamw_state(parameter)
        _adamw(group, parameter, grad, (state["exp_avg"], state["exp_avg_sq"]), state["step"])

    def _adamw_state(self, parameter: torch.Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self._state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def _in_8_bits(
        self,
        group: dict[str, Any],
        parameter: torch.Tensor,
        generator: torch.Generator | None,
        place: list[int],
    ) -> None:
        if generator is not None:
            assert parameter.grad is not None
            self.step_parts(parameter, [_whole(parameter.grad)], generator)
            return
        if not self._state[parameter]:
            self._bits8.init_state(group, parameter, *place)
        self._bits8.prefetch_state(parameter)
        self._bits8.update_step(group, parameter, *place)
        self._await_pages(parameter)

    def _await_pages(self, parameter: torch.Tensor) -> None:
        if self._bits8.is_paged and parameter.is_cuda:
            torch.cuda.synchronize()  # paged states are host memory that kernels write

    @torch.no_grad()
    def step_parts(
        self,
        parameter: torch.Tensor,
        parts: Iterable[Part],
        generator: torch.Generator | None = None,
    ) -> None:
        """Step a parameter that Muon does not, by the gradients of its parts, which follow each
        other over all of its numbers and begin at multiples of 256; each is asked for when the one
        before has been stepped. With a `generator` as in `step`."""
        group, *place = self._places[id(parameter)]
        assert "adjust_lr_fn" not in group
        flat, bits8 = _flat(parameter), self._bits8
        if bits8 is None:
            state = self._adamw_state(parameter)
        else:
            state = self._state[parameter]
            if not state:
                bits8.init_state(group, parameter, *place)
        for whole, grads in parts:
            for part in (whole,) if generator is None else _chunks(whole):
                own = slice(part.start - whole.start, part.stop - whole.start)
                weight, grad = flat[part], grads[own]
                if generator is not None:
                    weight, grad = weight.float(), grad.float()
                if bits8 is None:
                    _adamw_part(group, state, part, weight, grad)
                else:
                    self._part_in_8_bits(group, _part(state, part, flat.numel()), weight, grad)
                if generator is not None:
                    round_into(flat[part], weight, generator)
        state["step"] += 1
        if bits8 is not None:
            self._await_pages(parameter)

    def _part_in_8_bits(
        self, group: dict[str, Any], state: dict[str, Any], weight: torch.Tensor, grad: torch.Tensor
    ) -> None:
        """A stand-in with its part of the state: the rule is an operation on tensors."""
        weight.grad = grad
        self._state[weight] = state
        try:
            self._bits8.prefetch_state(weight)
            self._bits8.update_step(group, weight, 0, 0)
        finally:
            del self._state[weight]


def _adamw_part(
    group: dict[str, Any],
    state: dict[str, Any],
    part: slice,
    weight: torch.Tensor,
    grad: torch.Tensor,
) -> None:
    kept = [_flat(state[key])[part] for key in ("exp_avg", "exp_avg_sq")]
    used = [one.to(weight.dtype) for one in kept]
    _adamw(group, weight, grad, used, state["step"].clone())
    for one, new in zip(kept, used, strict=True):
        if new is not one:
            one.copy_(new)


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
