"""Rows of a pack do not see each other: the engine's own steps and its validation on packs give
what the rows give alone, whatever computes the attention, and with activations recomputed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from engine.prepare import Prepared, Sequence
from engine.prepare.collate import IGNORED, collate
from engine.training import sampler, trainer
from engine.training.model import load_model
from engine.training.optim import make_optimizer
from engine.training.rng import seed_rng
from engine.training.sampler import validation_loss
from engine.training.schedule import GlobalSchedule
from queue_store import config
from tests.training_kit import (
    Bench,
    Recorder,
    make_model_folder,
    prepare_file,
    training,
    write_rows,
)

ROWS = 26
ATTENTIONS = pytest.mark.parametrize("attention", ["sdpa", "eager"])
CHECKPOINTING = pytest.mark.parametrize("checkpointing", [False, True])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("leaks")
    folder = make_model_folder(root / "model")
    rows = write_rows(root / "rows.jsonl", ROWS)
    packed, single = (
        prepare_file(rows, folder, root / "home", max_length=1024, packing=packing)
        for packing in (True, False)
    )
    assert packed.packs < ROWS / 3 and single.packs == ROWS
    return {"folder": folder, "packed": packed, "single": single}


class Loaded(Bench):
    """A bench whose model computes its attention in the way asked for, with large weights: what
    leaks shows."""

    def __init__(
        self,
        folder: Path,
        attention: str,
        settings: config.Training,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        super().__init__(folder, settings, device=device, precision=precision)
        model = msgspec.structs.replace(
            config.default().model, attention=attention, precision=precision
        )
        seed_rng(settings.seed)
        self.loaded = load_model(folder, model, settings, device=device)
        assert self.loaded.model.config._attn_implementation == attention
        with torch.no_grad():
            for parameter in self.loaded.model.parameters():
                parameter.mul_(3.0)
        self.optimizer = make_optimizer(self.loaded.model, settings)
        self.schedule = GlobalSchedule(self.optimizer, settings)
        self.gradients: list[torch.Tensor] = []
        self.optimizer.register_step_pre_hook(lambda *_: self.gradients.append(self._gradient()))

    def _gradient(self) -> torch.Tensor:
        found = [p.grad.flatten().float() for p in self.loaded.model.parameters()]  # type: ignore[union-attr]
        return torch.cat(found).clone()


def one_step(
    folder: Path, prepared: Prepared, attention: str, checkpointing: bool, **device: str
) -> tuple[float, torch.Tensor]:
    """Loss and gradient of all rows in one step of the engine's run, two sequences at once."""
    settings = training(
        batch_size=2,
        effective_batch=prepared.packs + prepared.packs % 2,
        gradient_checkpointing=checkpointing,
        max_grad_norm=0.0,
        rounding="nearest",  # torch's own step, which calls the hook that takes the gradient
    )
    bench = Loaded(folder, attention, settings, **device)
    assert bench.loaded.model.is_gradient_checkpointing == checkpointing
    bench.run(prepared, recorder := Recorder())
    (metric,), (gradient,) = recorder.steps, bench.gradients
    return metric.loss, gradient


def apart(one: tuple[float, torch.Tensor], other: tuple[float, torch.Tensor]) -> float:
    """The larger of the relative differences of two losses and of their gradients."""
    loss = abs(one[0] - other[0]) / other[0]
    return max(loss, float((one[1] - other[1]).norm() / other[1].norm()))


@ATTENTIONS
@CHECKPOINTING
def test_a_step_on_packs_is_a_step_on_their_rows(
    place: dict[str, Any], attention: str, checkpointing: bool
) -> None:
    packed, single = (
        one_step(place["folder"], place[name], attention, checkpointing)
        for name in ("packed", "single")
    )
    assert apart(packed, single) < 2e-5


def running_on(sequences: list[Sequence], **named: Any) -> dict[str, torch.Tensor]:
    """The collator's fault that leaks: positions that do not restart with each row."""
    batch = collate(sequences, **named)
    length = batch["input_ids"].shape[1]
    batch["position_ids"] = torch.arange(length).expand_as(batch["position_ids"]).clone()
    return batch


@ATTENTIONS
@CHECKPOINTING
def test_the_check_sees_a_leak(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, attention: str, checkpointing: bool
) -> None:
    single = one_step(place["folder"], place["single"], attention, checkpointing)
    monkeypatch.setattr(trainer, "collate", running_on)
    leaking = one_step(place["folder"], place["packed"], attention, checkpointing)
    assert apart(leaking, single) > 1e-2


@ATTENTIONS
@CHECKPOINTING
def test_the_validation_loss_of_packs_is_that_of_their_rows(
    place: dict[str, Any], monkeypatch: pytest.MonkeyPatch, attention: str, checkpointing: bool
) -> None:
    settings = training(gradient_checkpointing=checkpointing)
    model = Loaded(place["folder"], attention, settings).loaded.model
    model.config.use_cache = True  # as a model has it that nobody prepared for training
    packed = validation_loss(model, place["packed"], batch_size=2)
    single = validation_loss(model, place["single"], batch_size=3)
    assert packed is not None and single is not None and packed[1] == single[1]
    assert packed[0] == pytest.approx(single[0], rel=1e-5)
    monkeypatch.setattr(sampler, "collate", running_on)
    leaking = validation_loss(model, place["packed"], batch_size=2)
    assert leaking is not None and abs(leaking[0] / single[0] - 1) > 1e-3


class Unequal:
    """Packs of very unequal lengths, and with few or no trained tokens."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.all = [
            Sequence(
                input_ids=rng.integers(3, 200, length).astype(np.int32),
                trained=np.arange(length) >= length - trained,
                position_ids=np.arange(length, dtype=np.int32),
                lines=(line,),
            )
            for line, (length, trained) in enumerate([(4, 1), (180, 170), (9, 0), (60, 3)], 1)
        ]
        self.packs = len(self.all)

    def sequence(self, pack: int) -> Sequence:
        return self.all[pack]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_validation_loss_is_weighted_by_tokens(place: dict[str, Any], batch_size: int) -> None:
    model = Loaded(place["folder"], "sdpa", training()).loaded.model
    packs = Unequal()
    losses = []
    with torch.no_grad():
        for sequence in packs.all:
            batch = collate([sequence])
            keep = batch["labels"][0, 1:] != IGNORED
            logits = model.eval()(batch["input_ids"], use_cache=False).logits[0, :-1][keep]
            labels = batch["labels"][0, 1:][keep]
            losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    every = torch.cat(losses)
    of_packs = torch.stack([loss.mean() for loss in losses if len(loss)]).mean()
    assert abs(float(of_packs / every.mean()) - 1) > 0.01, "the mean over packs is another one"
    result = validation_loss(model, packs, batch_size=batch_size)  # type: ignore[arg-type]
    assert result == (pytest.approx(float(every.mean()), rel=1e-5), len(every))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_attention_2"])
@CHECKPOINTING
def test_a_step_on_packs_is_a_step_on_their_rows_on_a_gpu(
    tmp_path: Path, attention: str, checkpointing: bool
) -> None:
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed")
    folder = make_model_folder(tmp_path / "model", hidden=256)
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    packed, single = (
        one_step(
            folder,
            prepare_file(rows, folder, tmp_path / "home", packing=packing),
            attention,
            checkpointing,
            device="cuda:0",
            precision="bf16",
        )
        for packing in (True, False)
    )
    assert apart(packed, single) < 5e-2, "no more than bf16 rounds"
