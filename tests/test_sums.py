"""Gradients of a layer's linear weights that are summed in place: those of autograd, in one
matrix, for no more products."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.training.model import checkpoint_activations
from engine.training.parts import checkpointed, in_parts
from engine.training.sums import summed
from tests.model_zoo import ARCHITECTURES, make_model

ROWS, LENGTH = 5, 32
IDS = torch.randint(1000, (ROWS, LENGTH), generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows are a part: five make three."""
    monkeypatch.setattr("engine.kernels.PART_TOKENS", 2 * LENGTH)


class Watching(TorchDispatchMode):
    """Counts products, and tensors that were made, by their shape."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0
        self.made: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        name = func.__name__.split(".")[0]
        self.products += name in ("mm", "addmm", "addmm_")
        if name in ("mm", "addmm"):
            self.made[tuple(out.shape)] += 1
        return out


def model_of(kind: str, dtype: torch.dtype) -> Any:
    model = make_model(kind).to(dtype).train()
    model.config.use_cache = False
    checkpoint_activations(model)
    return model


def gradients(model: Any, *, sums: bool, parts: bool = True) -> tuple[Any, list[str], Watching]:
    """Those of each parameter, which of them were told to be whole, and what was seen."""
    model.zero_grad()
    names = {id(p): name for name, p in model.named_parameters()}
    told: list[str] = []
    with ExitStack() as stack:
        if parts:
            stack.enter_context(in_parts(model))
        if sums:
            told_of = lambda p: told.append(names[id(p)])  # noqa: E731
            stack.enter_context(summed(checkpointed(model), told_of))
        watching = stack.enter_context(Watching())
        model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, told, watching


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_they_are_autograds_with_no_matrix_beside_and_for_as_many_products(kind: str) -> None:
    model = model_of(kind, torch.float64)
    plain, _, before = gradients(model, sums=False)
    found, told, after = gradients(model, sums=True)
    for name, one in plain.items():
        torch.testing.assert_close(found[name], one, rtol=1e-6, atol=1e-9, msg=name)
    linear = [
        f"{path}.weight"
        for path, module in model.named_modules()
        if type(module) is torch.nn.Linear and path != "lm_head"
    ]
    assert sorted(told) == sorted(linear)
    assert after.products == before.products
    shape = tuple(model.get_parameter(next(n for n in linear if "gate" in n)).shape)
    same = sum(tuple(model.get_parameter(name).shape) == shape for name in linear)
    assert before.made[shape] == 3 * same and after.made[shape] == same


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_a_whole_batch_they_are_autograds_bit_for_bit(dtype: torch.dtype) -> None:
    model = model_of("qwen2", dtype)  # with biases
    plain, *_ = gradients(model, sums=False, parts=False)
    found, *_ = gradients(model, sums=True, parts=False)
    assert all(torch.equal(found[name], one) for name, one in plain.items())


def test_a_sum_in_bf16_is_rounded_no_more_than_autograds() -> None:
    exact, *_ = gradients(model_of("qwen3", torch.float64), sums=False)
    apart = []
    for sums in (False, True):
        found, *_ = gradients(model_of("qwen3", torch.bfloat16), sums=sums)
        apart.append(sum(float((found[name].double() - one).norm()) for name, one in exact.items()))
    assert apart[1] <= 1.02 * apart[0]


def test_afterwards_the_layers_are_as_before_also_when_a_pass_broke_off() -> None:
    model = model_of("qwen3", torch.float32)
    plain, *_ = gradients(model, sums=False)
    model.zero_grad()
    weight = model.model.layers[0].mlp.down_proj.weight
    with pytest.raises(RuntimeError, match="full"), in_parts(model):

        def told(parameter: torch.Tensor) -> None:
            if parameter is weight:
                raise RuntimeError("full")

        with summed(checkpointed(model), told):
            model(input_ids=IDS, labels=IDS).loss.backward()
    assert not any("forward" in vars(m) for m in model.modules() if isinstance(m, torch.nn.Linear))
    found, *_ = gradients(model, sums=False)
    assert all(torch.equal(found[name], one) for name, one in plain.items())


def test_an_evaluation_in_between_adds_nothing() -> None:
    model = model_of("qwen3", torch.float32)
    plain, *_ = gradients(model, sums=True)
    model.zero_grad()
    with in_parts(model), summed(checkpointed(model), lambda parameter: None):
        with torch.no_grad():
            model.eval()(input_ids=IDS)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert all(torch.equal(p.grad, plain[name]) for name, p in model.named_parameters())


def test_layers_may_share_a_weight_and_lie_within_each_other() -> None:
    """As Zamba's do: a weight is whole when all of its uses are through."""
    model = model_of("qwen3", torch.float64)
    first, second = (layer.mlp for layer in model.model.layers)
    second.down_proj.weight = first.down_proj.weight
    plain, *_ = gradients(model, sums=False)
    names = {id(p): name for name, p in model.named_parameters()}
    model.zero_grad()
    told: list[str] = []
    layers = [*checkpointed(model), model.model]
    with in_parts(model), summed(layers, lambda p: told.append(names[id(p)])):
        model(input_ids=IDS, labels=IDS).loss.backward()
    assert len(told) == len(set(told))
    for name, one in model.named_parameters():
        torch.testing.assert_close(one.grad, plain[name], rtol=1e-6, atol=1e-9, msg=name)
    assert not any("forward" in vars(m) for m in model.modules() if isinstance(m, torch.nn.Linear))


def test_a_product_whose_gradient_nobody_asks_for_adds_nothing() -> None:
    layer = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])
    told: list[torch.Tensor] = []
    hidden = torch.ones(2, 4, requires_grad=True)
    with summed([layer], told.append):
        used, left = layer[0](input=hidden), layer[1](hidden)
        (used.sum() + left.detach().sum()).backward()
    assert [one is layer[0].weight for one in told] == [True]
    assert layer[1].weight.grad is None
