"""Real small things to train with: a two-layer Qwen3 folder, prepared files, and a recorder that
stands where the engine's thread stands."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers

from engine.prepare import Prepared, PrepareSettings, prepare
from engine.training.controls import (
    GO,
    Directive,
    Halved,
    Place,
    RunItem,
    SampleResult,
    ValidationResult,
)
from engine.training.looking import Monitoring
from engine.training.model import LoadedModel, load_model
from engine.training.optim import make_optimizer
from engine.training.rng import seed_rng
from engine.training.run import Outcome, TrainingRun
from engine.training.schedule import GlobalSchedule
from engine.training.state import restore_state, save_state
from engine.training.ticks import Monitor
from engine.training.tiny import make_tiny
from queue_store import config
from queue_store.home import Home
from queue_store.metrics import StepMetric


def make_model_folder(folder: Path, *, dropout: float = 0.0, hidden: int = 32) -> Path:
    """A Qwen3 of two layers with the tokenizer of builtin:tiny; the same bytes every time."""
    folder.mkdir(parents=True)
    make_tiny(folder, 1)
    raw = json.loads((folder / "config.json").read_text())
    raw.update(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=hidden // 2,
        attention_dropout=dropout,
    )
    (folder / "model.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**raw))
    model.save_pretrained(folder)
    return folder


def write_rows(path: Path, count: int, start: int = 0) -> Path:
    """Conversations of very different lengths, some of two turns."""
    lines = []
    for i in range(start, start + count):
        turns = []
        for turn in range(1 + i % 2):
            words = " ".join(f"w{(i * 7 + k * (turn + 3)) % 50}" for k in range(2 + (i * 5) % 17))
            turns += [
                {"role": "user", "content": f"row {i} say {words}"},
                {"role": "assistant", "content": f"{words} end {i}"},
            ]
        lines.append(json.dumps({"messages": turns}))
    path.write_text("\n".join(lines) + "\n")
    return path


def prepare_file(
    path: Path,
    model_folder: Path,
    home: Path,
    *,
    max_length: int = 192,
    split: float = 0.0,
    packing: bool = True,
) -> Prepared:
    Home(home).create()
    settings = PrepareSettings(
        max_length=max_length,
        packing=packing,
        profile="none",
        system_prompt="",
        over_length="drop",
        bad_rows="reject_file",
        validation_split=split,
        seed=1,
    )
    return prepare(
        path,
        model_folder=model_folder,
        settings=settings,
        held_out=frozenset(),
        root=Home(home).prepared,
        progress=lambda done, total: None,
        cancelled=lambda: False,
    )


def training(**changes: Any) -> config.Training:
    """Settings of a short run: two packs a step, accumulated over two batches."""
    base = {
        "batch_size": 1,
        "effective_batch": 2,
        "learning_rate": 3e-3,
        "warmup_steps": 5,
        "threads": 1,
        "eval_steps": 0,
        "sample_steps": 0,
        "monitoring_budget": 1.0,
        "weight_decay": 0.01,
    }
    return msgspec.structs.replace(config.default().training, **{**base, **changes})


@dataclass
class Recorder:
    """Reporter and controls in one: keeps what it is told, leaves after `leave_at` steps of the
    global count, and calls `on_step` where the thread would save."""

    leave_at: int = -1
    on_step: Callable[[Place, int], None] | None = None
    steps: list[StepMetric] = field(default_factory=list)
    validations: list[ValidationResult] = field(default_factory=list)
    sampled: list[SampleResult] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    halvings: list[Halved] = field(default_factory=list)

    def step(self, metric: StepMetric) -> None:
        self.steps.append(metric)

    def looking(self, kind: str) -> None:
        self.looks.append(kind)

    def validation(self, result: ValidationResult) -> None:
        self.validations.append(result)

    def samples(self, result: SampleResult) -> None:
        self.sampled.append(result)

    def halved(self, place: Place, halved: Halved) -> None:
        self.halvings.append(halved)

    def after_step(self, place: Place, cursor: int) -> None:
        if self.on_step:
            self.on_step(place, cursor)

    def at_step(self, place: Place) -> Directive:
        self.asked.append(place.global_step)
        return Directive("stop") if place.global_step == self.leave_at else GO

    def waiting(self) -> bool:
        return False


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Bench:
    """The live model, optimizer and schedule of one process, as the engine's thread holds them."""

    def __init__(
        self,
        folder: Path,
        settings: config.Training,
        method: str = "full",
        precision: str = "fp32",
        device: str = "cpu",
        lora: config.Lora | None = None,
    ) -> None:
        self.settings = settings
        small = config.Lora(r=4, alpha=4, dropout=0.1, targets=["q_proj", "v_proj"])
        model = msgspec.structs.replace(
            config.default().model,
            method=method,
            precision=precision,
            lora=lora or small,
        )
        torch.set_num_threads(1)
        seed_rng(settings.seed)
        self.loaded: LoadedModel = load_model(folder, model, settings, device=device)
        self.optimizer = make_optimizer(self.loaded.model, settings)
        self.schedule = GlobalSchedule(self.optimizer, settings)
        self.monitoring = Monitoring(Monitor(settings.monitoring_budget), {})

    def run(
        self,
        prepared: Any,
        recorder: Recorder,
        *,
        item: int = 1,
        cursor: int = 0,
        epochs: int = 1,
        halved: tuple[int, int] | None = None,
    ) -> Outcome:
        return TrainingRun(
            self.loaded,
            self.optimizer,
            self.schedule,
            prepared,
            RunItem(item, f"file{item}", cursor, epochs),
            self.settings,
            Place(0, self.schedule.global_step),
            recorder,
            recorder,
            self.monitoring,
            halved=halved,
        ).train()

    def save(self, folder: Path) -> Path:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        save_state(folder, self.loaded, self.optimizer, self.schedule, {"branch": 0})
        return folder

    def restore(self, folder: Path) -> None:
        restore_state(folder, self.loaded, self.optimizer, self.schedule)

    def digest(self) -> str:
        """Of every weight's bytes and the whole optimizer state."""
        hasher = hashlib.blake2b()
        for name, tensor in sorted(self.loaded.model.state_dict().items()):
            hasher.update(name.encode())
            hasher.update(tensor_bytes(tensor))
        for group in self.optimizer.param_groups:
            hasher.update(repr(group["lr"]).encode())
            for parameter in group["params"]:
                for key, value in sorted(self.optimizer.state[parameter].items()):
                    hasher.update(key.encode())
                    tensor = torch.is_tensor(value)
                    hasher.update(tensor_bytes(value) if tensor else repr(value).encode())
        return hasher.hexdigest()
