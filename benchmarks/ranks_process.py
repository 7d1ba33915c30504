"""One rank, or one process alone, as bench_ranks measures them.

`python -m benchmarks.ranks_process MODEL PREPARED SIZE`, a rank under torch elastic's environment
where SIZE is above 1. Reads words from stdin: "train" trains the prepared file once, "decide" lets
rank 0 decide DECISIONS times; rank 0 answers each with a line of JSON: seconds of one of them.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_ranks import DECISIONS, settings
from engine.prepare import Prepared
from engine.training.controls import RunItem, Silent
from engine.training.looking import Monitoring
from engine.training.model import load_model
from engine.training.optim import make_optimizer
from engine.training.parallel import ALONE, Ranks
from engine.training.quiet import quiet
from engine.training.run import Place, TrainingRun
from engine.training.schedule import GlobalSchedule
from engine.training.ticks import Monitor
from queue_store import config


class _Seconds(Silent):
    """What the steps took, as the run reports them."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def step(self, metric: Any) -> None:
        self.steps.append(metric.seconds)


def _train(ranks: Ranks, model: Path, prepared: Prepared) -> float:
    """Median seconds of a step, the first one left out (warm caches, lazy imports)."""
    loaded = load_model(model, config.default().model, settings(), device="cpu")
    optimizer = make_optimizer(loaded.model, settings())
    told = _Seconds()
    TrainingRun(
        *(loaded, optimizer, GlobalSchedule(optimizer, settings()), prepared),
        *(RunItem(1, "bench", 0, 1), settings(), Place(0, 0)),
        *(told, told, Monitoring(Monitor(0.0), {}), ranks),
    ).train()
    return statistics.median(told.steps[1:]) if told.steps else 0.0


def _decide(ranks: Ranks) -> float:
    """Mean seconds of one decision that all ranks hear."""
    ranks.decide(lambda: "")
    started = time.perf_counter()
    for _ in range(DECISIONS):
        ranks.decide(lambda: "")
    return (time.perf_counter() - started) / DECISIONS


def main() -> None:
    model, prepared, size = Path(sys.argv[1]), Prepared.open(Path(sys.argv[2])), int(sys.argv[3])
    quiet()
    torch.set_num_threads(1)
    ranks = Ranks.begin(size, "cpu", False) if size > 1 else ALONE
    for line in sys.stdin:
        word = line.strip()
        seconds = _train(ranks, model, prepared) if word == "train" else _decide(ranks)
        if ranks.rank == 0:
            print(json.dumps(seconds), flush=True)
    ranks.end()


if __name__ == "__main__":
    main()
