"""What a checkpoint costs training: how long no step is done, against plain `torch.save`.

The engine's own Saver on a model of a few tens of millions of parameters with AdamW, and real
training steps between. The rounds are interleaved; all three ways write the same state to the
same disk. `torch.save` writes without digests and without syncing, which the other two do.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers

from benchmarks.figures import at_most, figure
from benchmarks.kit import made_home
from engine.loop.saving import Moment, Saver
from engine.training.live import Live, load_live
from engine.training.tiny import make_tiny
from queue_store import config as configuration
from queue_store import durable, records
from queue_store.config import Config
from queue_store.database import State, open_state
from queue_store.home import Home
from queue_store.metrics import Metrics

HIDDEN, LAYERS, TOKENS = 512, 10, 64
"""About 30 million parameters; a step of TOKENS tokens takes a few tenths of a second."""

STALL = 0.3


def make_model(folder: Path, layers: int = LAYERS) -> Path:
    """A Qwen3 with the tokenizer of builtin:tiny, drawn at random."""
    folder.mkdir(parents=True)
    make_tiny(folder, 1)
    raw = json.loads((folder / "config.json").read_text())
    raw |= {
        "hidden_size": HIDDEN,
        "intermediate_size": 3 * HIDDEN,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": HIDDEN // 8,
    }
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**raw)).save_pretrained(folder)
    return folder


class Trained:
    """A live state that really trains, and the engine's saver for it."""

    def __init__(self, home: Home, state: State, config: Config) -> None:
        records.start(state, "0" * 64, "bench")
        base = str(home.root / "model")
        config = msgspec.structs.replace(
            config, model=msgspec.structs.replace(config.model, base=base)
        )
        self.home, self.state, self.config = home, state, config
        self.line = records.start_run(state)
        self.metrics = Metrics(home)
        self.saver = Saver(home, state, self.metrics)
        at = records.head(state)
        assert at is not None
        self.live: Live = load_live(home, config, at.checkpoint)
        vocabulary = self.live.loaded.model.config.vocab_size
        self.rows = torch.randint(0, vocabulary, (1, TOKENS))

    def step(self) -> float:
        """One optimizer step; its seconds."""
        started = time.perf_counter()
        self.live.loaded.model(input_ids=self.rows, labels=self.rows).loss.backward()
        self.live.optimizer.step()
        self.live.optimizer.zero_grad()
        self.live.schedule.step()
        return time.perf_counter() - started

    def capture(self) -> Moment:
        return self.saver.capture(
            self.live,
            self.config,
            self.line,
            step=self.live.schedule.global_step,
            item=None,
            cursors={},
            figures={},
        )

    def in_line(self) -> float:
        return timed(lambda: self.saver.write_here(self.capture(), self.config))

    def aside(self) -> tuple[float, list[float], float]:
        """Seconds at the two boundaries, of the steps meanwhile, and of the whole write."""
        started = time.perf_counter()

        def begins() -> None:
            if not self.saver.write_aside(self.capture(), 1):
                raise RuntimeError("no memory to write aside")

        held, steps = timed(begins), []
        while not self.saver.aside.ready:
            steps.append(self.step())
        whole = time.perf_counter() - started
        held += timed(lambda: self.saver.register(self.config))
        self.saver.aside.wait()
        return held, steps, whole

    def torch_save(self) -> float:
        place = self.home.tmp / "state.pt"
        live = self.live

        def act() -> None:
            torch.save(
                {"model": live.loaded.model.state_dict(), "optimizer": live.optimizer.state_dict()},
                place,
            )

        seconds = timed(act)
        place.unlink()
        return seconds


def timed(act: Callable[[], Any]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def run(quick: bool) -> dict[str, Any]:
    """The rows of the table."""
    rounds = 5 if quick else 12
    with made_home() as home:
        make_model(home.root / "model")
        config = configuration.load(home.config)
        with open_state(home) as state:
            trained = Trained(home, state, config)
            try:
                return {"rows": _rows(trained, rounds)}
            finally:
                trained.saver.close()
                trained.metrics.close()


def _rows(trained: Trained, rounds: int) -> list[dict[str, Any]]:
    for _ in range(3):
        trained.step()
    durable.make_folder(trained.home.tmp)
    trained.torch_save()
    first = trained.aside()[0]
    plain, aside, line, beside, alone, whole = ([] for _ in range(6))
    for n in range(rounds):
        acts = [
            lambda: plain.append(trained.torch_save()),
            lambda: _aside(trained, aside, beside, whole),
        ]
        for act in acts if n % 2 else acts[::-1]:  # which comes first alternates
            alone += [trained.step() for _ in range(3)]
            act()
    # In line afterwards: it gives back the memory of the copy, which the next one would make anew.
    pure = []
    for n in range(max(3, rounds // 2)):
        pair = [lambda: pure.append(trained.torch_save()), lambda: line.append(trained.in_line())]
        for act in pair if n % 2 else pair[::-1]:
            trained.step()
            act()
    head = records.head(trained.state)
    assert head is not None
    size = head.checkpoint.size_bytes / 1e6
    ratios = [a / p for a, p in zip(aside, plain, strict=True)]
    slow = statistics.mean(beside) / statistics.mean(alone)
    return [
        at_most("training stands for a checkpoint / torch.save of it", ratios, "x", STALL),
        figure("  training stands, written beside", aside, "s"),
        figure("  the first time (the copy's memory is made)", [first], "s"),
        figure("  torch.save, not synced", plain, "s"),
        figure("  state", [size], "MB"),
        figure("  until the head has it", whole, "s"),
        figure("a step while it is written / alone", [slow], "x"),
        figure("  steps meanwhile, a checkpoint", [len(beside) / rounds], "steps"),
        figure(
            "written in line, synced / torch.save",
            [a / p for a, p in zip(line, pure, strict=True)],
            "x",
        ),
        figure("  written in line", line, "s"),
    ]


def _aside(trained: Trained, aside: list[float], beside: list[float], whole: list[float]) -> None:
    held, steps, seconds = trained.aside()
    aside.append(held)
    beside.extend(steps)
    whole.append(seconds)
