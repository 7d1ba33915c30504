"""One case: the model is loaded as a user's is, some steps are done to warm up, the rest counts.

Ours is the engine's own run; TRL's SFTTrainer has its best settings: packing, Liger where it is
installed, bf16, flash attention where it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.gpu import card
from benchmarks.gpu.modes import MODES, Case
from benchmarks.gpu.shapes import SHAPES, Shape
from engine.kernels import FLASH, liger_missing
from engine.machine.gpus import Gpus
from engine.memory import asking, fitting
from engine.memory.estimate import estimate
from engine.prepare import Prepared
from engine.training.controls import GO, Directive, Place, RunItem
from engine.training.freeing import give_pages
from engine.training.model import load_model
from engine.training.optim import make_optimizer
from engine.training.run import Monitoring, TrainingRun
from engine.training.schedule import GlobalSchedule
from engine.training.ticks import Monitor
from queue_store import config
from queue_store.config import Config


@dataclass(frozen=True)
class Done:
    """What came of a case; bytes, None where there is no card to tell. `predicted` and `took` are
    the estimate and what it stands for: the card's peak, or the process's resident memory."""

    tokens_per_second: float
    share_of_peak: float
    tokens_per_step: float
    allocated: int | None
    reserved: int | None
    card: int | None
    host: int
    predicted: int | None = None
    took: int | None = None


class Clock(transformers.TrainerCallback):
    """The times at which steps end, once the card has done them; leaves after `steps`. Stands
    where the engine's thread stands, and among TRL's callbacks."""

    def __init__(self, device: str, warm: int, steps: int) -> None:
        self.device, self.warm, self.steps = device, warm, steps
        self.ends: list[float] = []
        self.peaks = card.Peaks(device, before(device))

    def _ended(self) -> None:
        card.wait(self.device)
        if len(self.ends) + 1 == self.warm:
            self.peaks.__enter__()
        self.ends.append(time.perf_counter())
        if len(self.ends) == self.warm + self.steps:
            self.peaks.__exit__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._ended()

    def after_step(self, place: Place, cursor: int) -> None:
        self._ended()

    def at_step(self, place: Place) -> Directive:
        return Directive("stop") if len(self.ends) == self.warm + self.steps else GO

    def waiting(self) -> bool:
        return False

    def step(self, metric: Any) -> None: ...

    def validation(self, result: Any) -> None: ...

    def samples(self, result: Any) -> None: ...

    @property
    def seconds(self) -> float:
        """Of the steps that count."""
        return self.ends[-1] - self.ends[self.warm - 1]


_start: dict[str, int | None] = {}


def before(device: str) -> int | None:
    """Bytes of the card that were taken when this process first looked: before it took any."""
    if device not in _start:
        gpus = Gpus()
        _start[device] = card.used_of_card(gpus) if card.is_card(device) else None
        gpus.close()
    return _start[device]


def packs_of_step(case: Case, prepared: Prepared) -> int:
    """Packs that hold the tokens of a step; rounded down, so that there are as many steps as the
    case counts: the peaks are read at the last one."""
    return max(1, int(case.rows_a_step * prepared.packs / prepared.rows))


def settings(case: Case, effective: int) -> Config:
    """config.toml of a case: micro-batches of one pack, but where the mode wants the whole step at
    once."""
    shape = SHAPES[case.shape]
    base = config.default()
    whole = {
        "training.max_length": shape.length,
        "training.batch_size": 1,
        "training.effective_batch": effective,
        "training.eval_steps": 0,
        "training.sample_steps": 0,
        "training.log_steps": 1_000_000,
        "training.warmup_steps": 0,
        "training.learning_rate": 1e-5,
        "model.precision": "bf16" if card.is_card(case.device) else "fp32",
        **MODES[case.mode].settings,
    }
    if whole.get("training.in_backward"):
        whole["training.batch_size"] = effective
    return fitting.with_settings(base, whole)


def ours(case: Case, model: Path, prepared: Prepared) -> Done:
    """The engine's run."""
    chosen = settings(case, packs_of_step(case, prepared))
    training = chosen.training
    loaded = load_model(model, chosen.model, training, device=case.device)
    optimizer = make_optimizer(loaded.model, training)
    clock = Clock(case.device, case.warm, case.steps)
    TrainingRun(
        loaded,
        optimizer,
        GlobalSchedule(optimizer, training),
        prepared,
        RunItem(1, "bench", 0, 1),
        training,
        Place(0, 0),
        clock,
        clock,
        Monitoring(Monitor(0.0), {}),
    ).train()
    packs = prepared.order(training.seed, 0).packs
    sizes = [len(prepared.sequence(int(pack)).input_ids) for pack in packs]
    first = case.warm * training.effective_batch
    tokens = sum(sizes[first : first + case.steps * training.effective_batch])
    done = _done(case, clock, tokens)
    gpu = card.is_card(case.device)
    size = asking.number_bytes(chosen.model, gpu)
    # In a child, as everywhere: Liger's kernels are in this process's classes by now.
    liger = gpu and asking.fused_loss(training)
    kernels = liger and asking.liger_installed()
    found = asking.profile(None, model, chosen.model, size, kernels)
    flash = loaded.model.config._attn_implementation == FLASH
    whole = estimate(found, training, size=size, gpu=gpu, liger=liger, flash=flash)
    took = (done.card or done.reserved) if gpu else done.host
    if gpu and done.reserved and getattr(optimizer, "is_paged", False):
        # Pages fill what is left of a card, and are not among what has to fit.
        give_pages(optimizer)
        took = done.reserved + card.context(case.device, before(case.device))
    return replace(done, predicted=whole.total, took=took)


def trl(case: Case, model: Path, rows: Path, effective: int) -> Done:
    """TRL's run of the same rows, length and batch."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    mode, shape = MODES[case.mode], SHAPES[case.shape]
    assert mode.trl is not None
    gpu = card.is_card(case.device)
    flash = gpu and importlib.util.find_spec("flash_attn") is not None
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    data = datasets.Dataset.from_list([{"messages": line["messages"]} for line in lines])
    clock = Clock(case.device, case.warm, case.steps)
    trainer = SFTTrainer(
        model=str(model),
        args=SFTConfig(
            output_dir=str(model.parent / "trl"),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=effective,
            max_steps=case.warm + case.steps,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not gpu,
            bf16=gpu,
            max_length=shape.length,
            packing=True,
            packing_strategy="bfd",
            gradient_checkpointing=bool(mode.settings.get("training.gradient_checkpointing")),
            use_liger_kernel=gpu and not liger_missing(),
            model_init_kwargs={
                "dtype": "bfloat16" if gpu else "float32",
                "attn_implementation": "flash_attention_2" if flash else "sdpa",
            },
            **mode.trl,
        ),
        train_dataset=data,
        peft_config=_peft() if mode.method == "lora" else None,
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    sizes = [int(batch["input_ids"].numel()) for batch in trainer.get_train_dataloader()]
    trainer.train()
    # Its order is its own: a step's tokens are taken as the mean.
    return _done(case, clock, sum(sizes) / len(sizes) * effective * case.steps)


def _peft() -> Any:
    import peft

    lora = config.default().model.lora
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )


def _done(case: Case, clock: Clock, tokens: float) -> Done:
    shape: Shape = SHAPES[case.shape]
    gpu = card.is_card(case.device)
    speed = tokens / clock.seconds
    peak = card.matrix_peak(case.device, torch.bfloat16 if gpu else torch.float32)
    needed = shape.operations(weights=MODES[case.mode].method == "full")
    peaks = clock.peaks
    return Done(
        tokens_per_second=speed,
        share_of_peak=speed * needed / peak,
        tokens_per_step=tokens / case.steps,
        allocated=peaks.allocated,
        reserved=peaks.reserved,
        card=peaks.card,
        host=peaks.host,
    )
