"""What a home in memory answers about the memory of training. Mixed into tests.tui_world.World."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.memory import cards
from engine.memory.asking import Estimator
from engine.memory.cards import Device
from engine.memory.estimate import Profile, Way
from engine.memory.whatif import HERE, WhatIf
from queue_store.config import Config, default
from queue_store.errors import TrainctlError
from snapshots import child
from tests.tui_world_base import WorldState

GB = 1_000_000_000


class Profiled(Estimator):
    """An estimator whose model is measured at once, or as far as `hold` lets it."""

    def __init__(self, world: MemoryAnswers) -> None:
        super().__init__(None, Path("model"), world.memory_here)
        self.world = world

    def measure(self, config: Config, stop: child.Stop, progress: Any, nice: int) -> None:
        progress(4, 8)
        while self.world.hold is not None and not self.world.hold.wait(0.01):
            if stop.is_set():
                raise TrainctlError("measuring the model did not finish: broken off")
        if self.world.unmeasured:
            raise TrainctlError(self.world.unmeasured)
        self._known[self.key(config)] = qwen3_4b(*self.key(config)[:2])


def qwen3_4b(size: int, method: str) -> Profile:
    """As engine.memory.profile measures Qwen3-4B, rounded."""
    whole, trained = 4_022_468_096, 4_022_468_096 if method == "full" else 264_241_152
    each = size if method == "full" else 4
    return Profile(
        frozen=0 if method == "full" else whole,
        trained=trained,
        trained_bytes=trained * each,
        hidden=3_633_315_840 if method == "full" else trained,
        small=196_096 if method == "full" else 0,
        outer=388_956_160 if method == "full" else 0,
        inner=24_903_680 if method == "full" else 1_245_184,
        muon_workspace=175_636_480,
        layers=36,
        vocabulary=151_936,
        tied=True,
        quantized=3_633_315_840 if method == "qlora" else 0,
        largest=24_903_680 if method == "qlora" else 0,
        plain=Way(91_284.0 * size, size, 1_472_000.0 + 186_376 * size, 0.0),
        checkpointed=Way(2560.0 * size, 0.0, 1_467_000.0 + 186_376 * size, 1.0),
        plain_inner=Way(91_284.0 * size, size, 15_000.0 * size, 0.0),
        checkpointed_inner=Way(2560.0 * size, 0.0, 100_000.0 * size, 3.0),
    )


class MemoryAnswers(WorldState):
    """In the shape of engine.reading.views."""

    memory_here = Device("RTX 3090", 24_576 << 20, 23 * GB, True)
    unmeasured = ""
    """Why the model cannot be measured."""
    well: dict[str, Any] | None = None
    """How well the estimate did so far."""
    memory_problem = ""

    @contextmanager
    def what_if(self) -> Iterator[WhatIf]:
        if self.memory_problem:
            raise TrainctlError(self.memory_problem)
        devices = {HERE: self.memory_here, **{name: cards.card(name) for name in cards.CARDS}}
        yield WhatIf(default(), Profiled(self), devices, self.well, trained=self.step > 0)
