"""Two processes that train as ranks against one, and what it costs them to agree.

All have one torch thread, and the same model, rows and effective batch. The rounds are interleaved
and their order alternates; the figure is the median of the rounds' ratios of steps a second. A
decision of rank 0 that the other hears is measured by itself and set against a step.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.figures import at_most, figure
from engine.prepare import PrepareSettings, prepare
from engine.training.tiny import make_tiny
from queue_store import config
from queue_store.home import Home

LENGTH, EFFECTIVE = 512, 4
DECISIONS = 500
WORDS = ["carry", "borrow", "the", "syllable", "a", "bank", "of", "tiles", "answers", "every"]
PORT = "29611"


def settings() -> config.Training:
    """Of the runs: a pack a micro-batch, all steps read at once."""
    return msgspec.structs.replace(
        config.default().training,
        **{"batch_size": 1, "effective_batch": EFFECTIVE, "max_length": LENGTH, "log_steps": 1},
        **{"eval_steps": 0, "sample_steps": 0, "monitoring_budget": 0.0, "threads": 1},
    )


def _rows(path: Path, rows: int) -> Path:
    draw = random.Random(5)
    with path.open("w") as file:
        for _ in range(rows):
            words = " ".join(draw.choice(WORDS) for _ in range(draw.randint(40, 140)))
            turns = [{"role": "user", "content": "say"}, {"role": "assistant", "content": words}]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def _prepared(root: Path, model: Path, rows: int) -> Path:
    home = Home(root / "home")
    home.create()
    made = prepare(
        _rows(root / "rows.jsonl", rows),
        model_folder=model,
        settings=PrepareSettings(
            max_length=LENGTH,
            packing=True,
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
    return made.folder


class _Group:
    """`size` processes that wait for words."""

    def __init__(self, model: Path, prepared: Path, size: int) -> None:
        words = [sys.executable, "-m", "benchmarks.ranks_process", str(model), str(prepared)]
        self.processes = [
            subprocess.Popen(
                [*words, str(size)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(_elastic(rank, size))},
            )
            for rank in range(size)
        ]

    def say(self, word: str) -> float:
        """The seconds with which rank 0 answers `word`."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(word + "\n")
            process.stdin.flush()
        assert self.processes[0].stdout is not None
        return float(json.loads(self.processes[0].stdout.readline()))

    def close(self) -> None:
        for process in self.processes:
            process.communicate(timeout=60)


def _elastic(rank: int, size: int) -> dict[str, str]:
    """torch elastic's environment of a rank on this host; of one process alone, none."""
    if size == 1:
        return {}
    return {
        **{"RANK": str(rank), "WORLD_SIZE": str(size)},
        **{"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT},
    }


def run(quick: bool) -> dict[str, Any]:
    """Rows {label, value, unit, target, met}."""
    rounds, rows = (3, 120) if quick else (7, 240)
    with tempfile.TemporaryDirectory(prefix="bench-ranks-") as place:
        root = Path(place)
        model = root / "model"
        model.mkdir()
        make_tiny(model, 1)
        prepared = _prepared(root, model, rows)
        groups = [_Group(model, prepared, size) for size in (1, 2)]
        try:
            for group in groups:
                group.say("train")  # imports and caches
            seconds: tuple[list[float], list[float]] = ([], [])
            decisions: list[float] = []
            for number in range(rounds):
                for who in (0, 1) if number % 2 == 0 else (1, 0):
                    seconds[who].append(groups[who].say("train"))
                decisions.append(groups[1].say("decide"))
        finally:
            for group in groups:
                group.close()
    one, two = seconds
    step = statistics.median(two)
    what = f"builtin:tiny, {EFFECTIVE} packs of {LENGTH} tokens a step, one thread each"
    return {
        "rows": [
            figure(
                f"two processes over one, {what}",
                [a / b for a, b in zip(one, two, strict=True)],
                "times the steps/s",
            ),
            figure("  one process", [1 / s for s in one], "steps/s"),
            figure("  two processes", [1 / s for s in two], "steps/s"),
            at_most(
                "the controls' broadcast, of a step of two processes",
                [100 * d / step for d in decisions],
                "%",
                1.0,
            ),
            figure("  a decision that all ranks hear", [1e6 * d for d in decisions], "µs"),
        ]
    }
