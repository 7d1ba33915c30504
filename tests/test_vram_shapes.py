"""The estimate at the width of real models: a step on shapes without memory, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.gpu.shapes import SHAPES
from engine.memory.estimate import ON_CARD, estimate
from engine.memory.profile import _fake, _Watch
from engine.training import slices
from engine.training.loss_path import LossPath
from engine.training.model import checkpoint_activations
from engine.training.optim import make_optimizer
from engine.training.rules import Rules
from engine.training.schedule import GlobalSchedule
from engine.training.stepping import stepping
from queue_store.config import Config
from tests.test_vram import profiled, settings

LENGTH, ROWS = 2048, 3
aten = torch.ops.aten


class Counted(_Watch):
    """Where a shape depends on numbers it takes the largest: every token has a label, and looked up
    a row that no other did."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (aten.nonzero.default, aten._unique2.default):
            return super().__torch_dispatch__(func, types, args, kwargs)
        count = args[0].numel()
        all_ = super().__torch_dispatch__(aten.arange.default, types, (count,), {})
        if func is aten.nonzero.default:
            return all_.view(count, 1)
        return all_, all_.view(args[0].shape), all_


@pytest.fixture(autouse=True)
def shapes_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No parameter is stepped, and which rows of a slice were looked up is not asked."""

    def parts(self: Any, parameter: Any, parts: Any, generator: Any = None) -> None:
        for _ in parts:
            pass

    monkeypatch.setattr(Rules, "step", lambda *given: None)
    monkeypatch.setattr(Rules, "step_parts", parts)
    monkeypatch.setattr(slices.RowsShare, "add_to", lambda self, gradient, first: None)
    yield


def counted(folder: Path, config: Config) -> int:
    """Bytes that a step takes beside weights and states."""
    read = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(read, dtype=torch.bfloat16)
    model.train().config.use_cache = False
    model.enable_input_require_grads()
    checkpoint_activations(model)
    path = LossPath(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path, "_try", lambda: "")
        path.use("on")
    with FakeTensorMode(allow_non_fake_inputs=True):
        _fake(model)
        optimizer = make_optimizer(model, config.training)
        schedule = GlobalSchedule(optimizer, config.training)
        ids = torch.zeros((ROWS, LENGTH), dtype=torch.long)
        positions = torch.arange(LENGTH).expand(ROWS, -1)
        with stepping(model, optimizer, schedule, config.training, path), Counted(model) as watch:
            out = model(
                input_ids=ids,
                position_ids=positions,
                labels=ids,
                num_items_in_batch=torch.tensor(ids.numel()),
            )
            out.loss.backward()
    return int(watch.peak)


@pytest.mark.parametrize("name", ["qwen3-0.6b", "qwen3-4b", "qwen3-8b"])
def test_what_a_step_in_the_backward_pass_takes_beside_weights_and_states(
    name: str, tmp_path: Path
) -> None:
    """As many layers as have their inputs on the card, so that none waits in host memory."""
    raw = {**SHAPES[name].config(), "num_hidden_layers": ON_CARD}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = settings(
        in_backward=True,
        max_grad_norm=0.0,
        gradient_checkpointing=True,
        rounding="nearest",
        max_length=LENGTH,
        batch_size=ROWS,
        effective_batch=ROWS,
    )
    told = estimate(profiled(tmp_path, config, 2), config.training, size=2, gpu=False)
    beside = told.gradients + told.activations + told.logits + told.workspace
    assert beside == pytest.approx(counted(tmp_path, config), rel=0.1), told
