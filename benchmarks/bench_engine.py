"""Training speed: the engine's run against a bare Trainer, and against TRL's leak-free packing.

Pairs of runs are interleaved and their order alternates, on the same model, rows and batch; the
figure is the median of the pairs' ratios of tokens/s, with its spread; beside it the same ratio by
CPU time, which other work on the machine moves less. A run's first step (warm caches, lazy
imports) is not counted.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
import transformers

from benchmarks.figures import at_least, figure, missing, skipped
from engine.prepare import Prepared, PrepareSettings, prepare
from engine.prepare.collate import collate
from engine.training.controls import GO, Directive, Place, RunItem
from engine.training.looking import Monitoring
from engine.training.model import LoadedModel, load_model
from engine.training.optim import make_optimizer
from engine.training.quiet import quiet
from engine.training.run import TrainingRun
from engine.training.schedule import GlobalSchedule
from engine.training.ticks import Monitor
from engine.training.tiny import make_tiny
from queue_store import config
from queue_store.home import Home

LENGTH = 512
BATCH = 4
WORDS = ["carry", "borrow", "the", "syllable", "a", "bank", "of", "tiles", "answers", "every"]


class Speed(NamedTuple):
    """Tokens a second of wall and of CPU time."""

    wall: float
    cpu: float


class _Clock(transformers.TrainerCallback):
    """Wall and CPU time from the end of the first step to the end of the last."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))

    def after_step(self, place: Place, cursor: int) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))

    def at_step(self, place: Place) -> Directive:
        return GO

    def waiting(self) -> bool:
        return False

    def step(self, metric: Any) -> None: ...

    def validation(self, result: Any) -> None: ...

    def samples(self, result: Any) -> None: ...

    def speed(self, tokens: float) -> Speed:
        """Tokens a second for the `tokens` of all steps but the first."""
        wall, cpu = (b - a for a, b in zip(self.ends[0], self.ends[-1], strict=True))
        return Speed(tokens / wall, tokens / cpu)


def _write_rows(path: Path, tokens: int) -> None:
    """Conversations of 20 to 400 tokens, about `tokens` of them together."""
    draw = random.Random(5)
    with path.open("w") as file:
        while tokens > 0:
            words = [draw.choice(WORDS) for _ in range(draw.randint(5, 140))]
            half = len(words) // 3
            turns = [
                {"role": "user", "content": " ".join(words[:half])},
                {"role": "assistant", "content": " ".join(words[half:])},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
            tokens -= len(words) + 10


def _settings() -> config.Training:
    return msgspec.structs.replace(
        config.default().training,
        batch_size=BATCH,
        effective_batch=BATCH,
        max_length=LENGTH,
        eval_steps=0,
        sample_steps=0,
    )


def _load(folder: Path) -> LoadedModel:
    return load_model(folder, config.default().model, _settings())


def _tokens(prepared: Prepared, batch: int = BATCH) -> list[int]:
    """Tokens of each step, in the order of training; padding is none."""
    packs = prepared.order(_settings().seed, 0).packs
    sizes = [len(prepared.sequence(int(p)).input_ids) for p in packs]
    return [sum(sizes[at : at + batch]) for at in range(0, len(sizes), batch)]


def _engine(folder: Path, prepared: Prepared) -> Speed:
    return _trained(folder, prepared, _settings())


def _trained(folder: Path, prepared: Prepared, settings: config.Training) -> Speed:
    loaded, clock = _load(folder), _Clock()
    optimizer = make_optimizer(loaded.model, settings)
    TrainingRun(
        loaded,
        optimizer,
        GlobalSchedule(optimizer, settings),
        prepared,
        RunItem(1, "bench", 0, 1),
        settings,
        Place(0, 0),
        clock,
        clock,
        Monitoring(Monitor(0.0), {}),
    ).train()
    return clock.speed(sum(_tokens(prepared, settings.effective_batch)[1:]))


def _padded(folder: Path, rows: Prepared, batch: int) -> Speed:
    """The engine's run without packing: `batch` rows at once, padded to the longest of them; their
    real tokens are counted."""
    settings = msgspec.structs.replace(
        _settings(), packing=False, batch_size=batch, effective_batch=batch
    )
    return _trained(folder, rows, settings)


def _arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "logging_nan_inf_filter": False,
    }


def _bare(folder: Path, prepared: Prepared) -> Speed:
    """transformers' Trainer on the same packs in the same order, with its own optimizer."""
    loaded, clock = _load(folder), _Clock()
    packs = [prepared.sequence(int(p)) for p in prepared.order(_settings().seed, 0).packs]
    trainer = transformers.Trainer(
        model=loaded.model,
        args=transformers.TrainingArguments(
            **_arguments(folder.parent / "out"),
            remove_unused_columns=False,
            train_sampling_strategy="sequential",
        ),
        train_dataset=packs,
        data_collator=collate,
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return clock.speed(sum(_tokens(prepared)[1:]))


def _trl(folder: Path, rows: Path) -> Speed:
    """TRL's SFTTrainer with best-fit packing of the same file, same batch and length."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    loaded, clock = _load(folder), _Clock()
    data = datasets.Dataset.from_list([json.loads(line) for line in rows.read_text().splitlines()])
    trainer = SFTTrainer(
        model=loaded.model,
        args=SFTConfig(
            **_arguments(folder.parent / "out"),
            max_length=LENGTH,
            packing=True,
            packing_strategy="bfd",
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=data,
        processing_class=loaded.tokenizer,
        callbacks=[clock],
    )
    sizes: list[int] = []
    loader = trainer.get_train_dataloader()
    for batch in loader:
        sizes.append(int(batch["input_ids"].numel()))
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    # Its order is its own: the first step's tokens are taken as the mean.
    return clock.speed(sum(sizes) * (len(sizes) - 1) / len(sizes))


def _prepare(rows: Path, folder: Path, home: Home, packing: bool) -> Prepared:
    return prepare(
        rows,
        model_folder=folder,
        settings=PrepareSettings(
            max_length=LENGTH,
            packing=packing,
            profile="none",
            system_prompt="",
            over_length="drop",
            bad_rows="reject_file",
            validation_split=0.0,
            seed=1,
        ),
        held_out=frozenset(),
        root=home.prepared,
        progress=lambda done, total: None,
        cancelled=lambda: False,
    )


def _compare(
    label: str, count: int, ours: Callable[[], Speed], theirs: Callable[[], Speed], target: float
) -> list[dict[str, Any]]:
    """`count` interleaved pairs, the order alternating; rows of their ratios."""
    speeds: tuple[list[Speed], list[Speed]] = ([], [])
    for pair in range(count):
        for who in (0, 1) if pair % 2 == 0 else (1, 0):
            speeds[who].append((ours, theirs)[who]())
    mine, other = (statistics.median(s.wall for s in some) for some in speeds)
    return [
        at_least(label, [a.wall / b.wall for a, b in zip(*speeds, strict=True)], "times", target),
        figure("  by CPU time", [a.cpu / b.cpu for a, b in zip(*speeds, strict=True)], "times"),
        figure("  the engine", [mine], "tokens/s"),
        figure("  the other", [other], "tokens/s"),
    ]


def run(quick: bool) -> dict[str, Any]:
    """Rows {label, value, unit, target, met}."""
    quiet()
    torch.set_num_threads(1)  # more of them wait for each other, and differently every time
    root = Path(tempfile.mkdtemp(prefix="bench-engine-"))
    try:
        folder = root / "model"
        folder.mkdir()
        make_tiny(folder, 1)
        rows = root / "rows.jsonl"
        _write_rows(rows, LENGTH * BATCH * (4 if quick else 7))
        home = Home(root / "home")
        home.create()
        prepared, single = (_prepare(rows, folder, home, packing) for packing in (True, False))
        what = f"builtin:tiny, {BATCH} packs of {LENGTH} tokens a step"
        rows_of_bare = _compare(
            f"engine over a bare Trainer, {what}",
            3 if quick else 9,
            lambda: _engine(folder, prepared),
            lambda: _bare(folder, prepared),
            0.97,
        )
        label = f"engine over TRL's SFTTrainer with bfd packing, {what}"
        why = missing("trl")
        rows_of_trl = (
            [skipped(label, why)]
            if why
            else _compare(
                label,
                1 if quick else 2,
                lambda: _engine(folder, prepared),
                lambda: _trl(folder, rows),
                2.0,
            )
        )
        # As many rows at once as make the same number of real tokens on the average.
        batch = round(BATCH * single.packs / prepared.packs)
        rows_of_padded = _compare(
            f"packed over padded batches of {batch} rows, real tokens",
            1 if quick else 3,
            lambda: _engine(folder, prepared),
            lambda: _padded(folder, single, batch),
            1.0,
        )
        return {"rows": [*rows_of_bare, *rows_of_trl, *rows_of_padded]}
    finally:
        shutil.rmtree(root)
