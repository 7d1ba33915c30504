"""What ranks do in tests (see ranks_kit): each job is called on every rank and returns JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import torch

from engine.prepare.prepared import Prepared
from engine.training import live as loading
from engine.training.controls import GO, Directive, Place, Prompt, RunItem
from engine.training.looking import Monitoring
from engine.training.model import load_model
from engine.training.optim import make_optimizer
from engine.training.parallel import Ranks
from engine.training.rng import capture_rng, rng_to_json, seed_rank
from engine.training.run import TrainingRun
from engine.training.schedule import GlobalSchedule
from engine.training.sharded import is_part, local, shard
from engine.training.state import capture_state, restore_state, write_state
from engine.training.ticks import Monitor
from engine.training.trainer import arguments as trainer_arguments
from engine.training.wrapping import wrap
from queue_store import config as configuration
from queue_store.errors import TrainctlError
from queue_store.home import Home
from tests.training_kit import Bench, Recorder, tensor_bytes, training


def begin(job: str, size: int, sharded: bool, folder: Path, arguments: dict[str, Any]) -> Any:
    """Join the group, do the job, leave the group."""
    torch.set_num_threads(1)
    device = arguments.pop("device", "cpu")
    seconds = float(arguments.pop("group_timeout", 60))
    ranks = Ranks.begin(arguments.pop("wanted", size), device, sharded, seconds)
    result = globals()[job](ranks, folder, **arguments)
    ranks.end()
    return result


class RankBench(Bench):
    """A rank's live model, optimizer and schedule."""

    def __init__(
        self, ranks: Ranks, folder: Path, settings: Any, method: str, precision: str
    ) -> None:
        super().__init__(folder, settings, method, precision, ranks.device)
        self.ranks = ranks
        if ranks.sharded:
            shard(self.loaded.model, ranks)
            self.optimizer = make_optimizer(self.loaded.model, settings)
            self.schedule = GlobalSchedule(self.optimizer, settings)
        seed_rank(settings.seed, 0, ranks.rank)

    def save(self, folder: Path) -> Path:
        captured = capture_state(
            *(self.loaded, self.optimizer, self.schedule, {"branch": 0}), ranks=self.ranks
        )
        if captured is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_state(folder, captured)
        return folder

    def digest(self) -> str:
        """Of what this rank holds; of a split model, of the whole of it."""
        if not self.ranks.sharded:
            return super().digest()
        captured = capture_state(
            *(self.loaded, self.optimizer, self.schedule, {}), ranks=self.ranks
        )
        hasher = hashlib.blake2b()
        if captured is not None:
            for name, tensor in sorted(captured.tensors.items()):
                hasher.update(name.encode() + tensor_bytes(tensor))
        digest: str = self.ranks.share(hasher.hexdigest())
        return digest

    def restore(self, folder: Path) -> None:
        restore_state(folder, self.loaded, self.optimizer, self.schedule, ranks=self.ranks)


@dataclass
class Orders(Recorder):
    """Rank 0's controls: at which steps to save, to pause, to ask all ranks for an act."""

    ranks: Ranks = field(default_factory=Ranks)
    save_at: dict[str, str] = field(default_factory=dict)
    acts_at: dict[str, str] = field(default_factory=dict)
    pause_at: dict[str, float] = field(default_factory=dict)
    fails_at: int = -1

    def at_step(self, place: Place) -> Directive:
        step = str(place.global_step)
        if place.global_step == self.fails_at:
            raise OSError(5, "the disk of rank 0")
        if step in self.save_at:
            self.ranks.together("save", folder=self.save_at[step])
        if step in self.acts_at:
            self.ranks.together(self.acts_at[step])
        if step in self.pause_at:
            self.ranks.together("mark")
            threading.Event().wait(self.pause_at[step])
            self.ranks.together("mark")
        super().at_step(place)
        return Directive("skip") if place.global_step == self.leave_at else GO


def _rng() -> str:
    """A digest of this rank's generators."""
    return hashlib.blake2b(json.dumps(rng_to_json(capture_rng())).encode()).hexdigest()


def train(
    ranks: Ranks,
    folder: Path,
    *,
    model: str,
    prepared: str,
    settings: dict[str, Any],
    method: str = "full",
    precision: str = "fp32",
    epochs: int = 1,
    cursor: int = 0,
    restore: str = "",
    ticks: bool = False,
    alone: bool = False,
    **orders: Any,
) -> dict[str, Any]:
    """One run, and what it came to on this rank."""
    bench = RankBench(ranks, Path(model), training(**settings), method, precision)
    if restore:
        bench.restore(Path(restore))
    seeded = _rng()
    data = Prepared.open(Path(prepared))
    if ticks:
        prompts = [Prompt(f"p{i}", ({"role": "user", "content": f"say w{i}"},)) for i in range(2)]
        bench.monitoring = Monitoring(Monitor(1e9), {"held": data}, prompts, max_tokens=4)
    marks: list[tuple[float, float]] = []
    first = next(bench.loaded.model.parameters())

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def spoil(value: float) -> None:
        with torch.no_grad():
            first.view(-1)[0] = value

    ranks.acts |= {
        "save": lambda folder: bench.save(Path(folder)) and None,
        "mark": lambda: marks.append((time.monotonic(), time.process_time())),
        "die": die,
        "rank 1 dies": lambda: die() if ranks.rank == 1 else None,
        "rank 1 is NaN": lambda: spoil(float("nan")) if ranks.rank == 1 else None,
        "rank 1 drifts": lambda: spoil(0.5) if ranks.rank == 1 else None,
    }
    recorder = Orders(ranks=ranks, **orders)
    controls = None if ranks.rank else recorder
    failed, outcome = "", None
    try:
        outcome = TrainingRun(
            *(bench.loaded, bench.optimizer, bench.schedule, data),
            RunItem(1, "file", cursor, epochs),
            bench.settings,
            Place(0, bench.schedule.global_step),
            *(controls, controls, bench.monitoring),
            None if alone else ranks,
        ).train()
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        if not isinstance(error, TrainctlError | ArithmeticError) and "NonFinite" not in failed:
            raise
    return {
        "parts": all(is_part(p) for p in bench.loaded.model.parameters()),
        "digest": bench.digest(),
        "outcome": outcome and asdict(outcome),
        "failed": failed,
        "metrics": [asdict(m) for m in recorder.steps],
        "validations": [v.loss for v in recorder.validations],
        "answers": [[a.text for a in s.answers] for s in recorder.sampled],
        "seeded": seeded,
        "rng": _rng(),
        "marks": marks,
    }


def controls(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """What is said over the controls' group, without training."""
    done: list[str] = []
    large = "é" * 5000
    heard = [ranks.share({"rank": ranks.rank, "text": text}) for text in ("", large)]
    ranks.acts["inner"] = lambda word: done.append(word)
    ranks.acts["outer"] = lambda: ranks.decide(lambda: ranks.together("inner", word=large) or "in")

    def ask() -> list[int]:
        ranks.together("inner", word="first")
        ranks.together("outer")
        return [1, 2]

    answer = ranks.decide(ask)
    differs, failed = "", ""
    try:
        ranks.same("the word", "same" if ranks.rank % 2 == 0 else "other")
    except TrainctlError as error:
        differs = str(error)
    ranks.same("the word", large)
    try:
        # Rank 0 asks for an answer where the others wait for a value.
        ranks.decide(lambda: 1) if ranks.rank == 0 else ranks.share()
    except TrainctlError as error:
        failed = str(error)
    torch.set_num_threads(3)
    trainer_arguments(training(effective_batch=4), "cpu", ranks.size)
    return {
        "threads": torch.get_num_threads(),
        "heard": [h["rank"] for h in heard],
        "long": heard[1]["text"] == large,
        "done": [len(word) for word in done],
        "answer": answer,
        "all": [value[0] for value in ranks.collect([ranks.rank, large * ranks.rank])],
        "sums": ranks.gather((ranks.rank, torch.tensor(0.5))).tolist(),
        "differs": differs,
        "failed": failed,
    }


def live(ranks: Ranks, folder: Path, *, home: str, checkpoint: str = "") -> dict[str, Any]:
    """Load a home's live state; from the base model two steps are trained and saved as "c1"."""
    place, settings = Home(Path(home)), training()
    whole = msgspec.structs.replace(configuration.default(), training=settings)
    at: Any = SimpleNamespace(kind="checkpoint" if checkpoint else "base", name=checkpoint, step=2)
    read: list[int] = []

    def spied(*words: Any, **named: Any) -> Any:
        found = load_model(*words, **named)
        read.append(_mapped(found.model))
        return found

    loading.load_model = spied  # type: ignore[attr-defined]
    loaded = loading.load_live(place, whole, at, ranks)
    mapped = [*read, _mapped(loaded.loaded.model)]
    bench: Any = object.__new__(RankBench)
    bench.ranks, bench.loaded = ranks, loaded.loaded
    bench.optimizer, bench.schedule = loaded.optimizer, loaded.schedule
    if not checkpoint:
        rows = torch.arange(8 * (ranks.rank + 1))[None]
        module = wrap(bench.loaded.model, ranks)
        for _ in range(2):
            module(input_ids=rows, labels=rows).loss.backward()
            bench.optimizer.step()
            bench.optimizer.zero_grad()
            bench.schedule.step()
        bench.save(place.checkpoints / "c1")
    told = {"digest": bench.digest(), "step": bench.schedule.global_step, "rng": _rng()}
    return {**told, "mapped": mapped}


def _mapped(model: Any) -> float:
    """The share of the parameters that are views of the file they were read from."""
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ends = [m[0].split("-") for m in maps if m[-1].endswith("model.safetensors")]
    spans = [(int(a, 16), int(b, 16)) for a, b in ends]
    places = [local(parameter).data_ptr() for parameter in model.parameters()]
    return sum(any(a <= at < b for a, b in spans) for at in places) / len(places)
