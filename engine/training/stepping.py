"""How an item's settings step the live optimizer: at once, in the backward pass, rounded how.

The optimizer and its state are one and the same in every way (see rules), so an item may be stepped
in another way than the one before it, or than before a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from engine.training.lookups import Lookups
from engine.training.loss_path import LossPath
from engine.training.parts import checkpointed, in_parts
from engine.training.rounding import Draws
from engine.training.rules import Rules
from engine.training.schedule import GlobalSchedule
from engine.training.slices import Part, Sliced
from engine.training.sums import summed
from queue_store.config import Training
from queue_store.errors import ConfigError


def check_rounding(dtype: str, method: str, training: Training) -> None:
    """Raises ConfigError where `training.rounding` asks for what no weight of a model of that dtype
    ("bf16", "fp32") and method has: adapters are in fp32."""
    if training.rounding == "stochastic" and (dtype != "bf16" or method != "full"):
        raise ConfigError(
            "no weight that trains is in bf16 (adapters are in fp32): none is rounded",
            where='training.rounding = "stochastic"',
            mend='use "auto", or model.precision = "bf16" with model.method = "full"',
        )


def rounds_stochastically(model: torch.nn.Module, training: Training) -> bool:
    """Whether weights are rounded stochastically: where bf16 weights train, unless
    `training.rounding` is "nearest"."""
    bf16 = any(p.requires_grad and p.dtype is torch.bfloat16 for p in model.parameters())
    return bf16 and training.rounding != "nearest"


class Stepping(torch.optim.Optimizer):
    """Steps the parameters of `optimizer` one by one, in its groups and on its state.

    `stochastic`: parameters in bf16 are rounded so. `step_number` gives the global steps done.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        stochastic: bool,
        seed: int,
        step_number: Callable[[], int],
    ) -> None:
        super().__init__(optimizer.param_groups, {})
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        self._rules = Rules(optimizer)
        self._draws = Draws(seed) if stochastic else None
        self._step_number = step_number
        self._names = {id(p): name for name, p in model.named_parameters()}

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter)

    def _step_one(self, parameter: torch.nn.Parameter) -> None:
        self._rules.step(parameter, self._generator(parameter))

    def _generator(self, parameter: torch.nn.Parameter) -> torch.Generator | None:
        """Of the bits for this step's rounding; None where it is not rounded stochastically."""
        if self._draws is None or parameter.dtype is not torch.bfloat16:
            return None
        name = self._names[id(parameter)]
        return self._draws.of(self._step_number(), name, parameter.device)


class InBackward(Stepping):
    """Steps each parameter as its gradient arrives, and lets the gradient go.

    So gradients never stand in memory together: at most the largest, or those of one layer where it
    takes the batch in parts. Where the `loss` is computed in chunks, embedding and head are stepped
    in slices; else a tied weight's gradient stands from the head on (autograd hands it over once,
    when the embedding is through). Nothing in the backward pass needs a weight after its gradient
    is whole. A backward pass that breaks off has stepped some of the parameters: the state is then
    not to be used.
    """

    def __init__(
        self, model: torch.nn.Module, *arguments: Any, loss: LossPath, **named: Any
    ) -> None:
        super().__init__(model, *arguments, **named)
        self._order = {number: at for at, number in enumerate(self._names)}
        self._model, self._loss, self._lookups = model, loss, Lookups(model)
        self._norms: dict[int, torch.Tensor] = {}
        self._stepped: set[int] = set()

    @contextmanager
    def hooked(self) -> Iterator[InBackward]:
        """While this lasts, a backward pass steps the parameters."""
        hooks = [
            parameter.register_post_accumulate_grad_hook(self._arrived)
            for group in self.param_groups
            for parameter in group["params"]
        ]
        try:
            layers = checkpointed(self._model)
            with in_parts(self._model), summed(layers, self._arrived), self._slicing():
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _slicing(self) -> Iterator[None]:
        """While this lasts, embedding and head are stepped in slices, where they can be."""
        head, lookups = self._loss.head_weight, self._lookups
        apart = lookups.weight is not None or not lookups.tied
        if not self._loss.chunked or head is None or not head.requires_grad or not apart:
            with lookups.kept():
                yield
            return
        weights = [head] if lookups.weight is None or lookups.tied else [head, lookups.weight]
        sliced = {id(one): Sliced(one, self._step_slices) for one in weights}
        try:
            with self._loss.sliced(sliced[id(head)]), lookups.kept(sliced.get(id(lookups.weight))):
                yield
        finally:
            for one in sliced.values():
                one.clear()

    def _step_slices(self, parameter: torch.nn.Parameter, parts: Iterator[Part]) -> None:
        norms: list[torch.Tensor] = []

        def measured() -> Iterator[Part]:
            for place, gradient in parts:
                norms.append(_norm(gradient))
                yield place, gradient

        self._once(parameter)
        self._rules.step_parts(parameter, measured(), self._generator(parameter))
        self._norms[self._order[id(parameter)]] = torch.linalg.vector_norm(torch.stack(norms))

    def _once(self, parameter: torch.nn.Parameter) -> None:
        """Raises RuntimeError where a parameter that was stepped is stepped again: a model that
        uses a weight in a way that is not known here must not train wrongly."""
        if id(parameter) in self._stepped:
            raise RuntimeError(
                f"{self._names[id(parameter)]} has two gradients in one step: this model does not"
                " train with training.in_backward"
            )
        self._stepped.add(id(parameter))

    @torch.no_grad()
    def _arrived(self, parameter: torch.Tensor) -> None:
        self._lookups.add_to(parameter)
        assert isinstance(parameter, torch.nn.Parameter)
        if parameter.grad is None:  # what became of it has none
            return
        self._once(parameter)
        self._norms[self._order[id(parameter)]] = _norm(parameter.grad)
        self._step_one(parameter)
        parameter.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """The backward pass has done it; the next one may begin."""
        self._stepped.clear()

    def take_norm(self) -> torch.Tensor:
        """The norm of all gradients since the last call, from those of each: float32 []."""
        norms, self._norms = self._norms, {}
        if not norms:
            return torch.zeros(())
        return torch.linalg.vector_norm(torch.stack([norms[at] for at in sorted(norms)]))


def _norm(gradient: torch.Tensor) -> torch.Tensor:
    """Summed up in float32 at the least."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    return torch.linalg.vector_norm(gradient, dtype=wide)


@contextmanager
def stepping(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: GlobalSchedule,
    training: Training,
    loss: LossPath,
) -> Iterator[torch.optim.Optimizer]:
    """What steps `optimizer` by these settings: itself, where they ask for no other way. `loss` is
    the model's, on the way that they name."""
    stochastic = rounds_stochastically(model, training)
    if not stochastic and not training.in_backward:
        yield optimizer
        return
    named: dict[str, Any] = {
        "stochastic": stochastic,
        "seed": training.seed,
        "step_number": lambda: schedule.global_step,
    }
    if not training.in_backward:
        yield Stepping(model, optimizer, **named)
        return
    with InBackward(model, optimizer, loss=loss, **named).hooked() as found:
        yield found
