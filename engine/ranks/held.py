"""The live model as the worker has it, wherever it is: in this process, or at the ranks.

`HeldModel` is what the engine thread needs of it. `Here` is one process: the state is the
worker's own, and nothing stands between. `engine.ranks.there` is several.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from engine.prepare.prepared import Prepared
from engine.training.controls import Controls, Place, Reporter, RunItem
from engine.training.freeing import give_pages
from engine.training.live import Live
from engine.training.looking import Monitoring
from engine.training.prompted import Question, prompted
from engine.training.run import Outcome, TrainingRun
from engine.training.sampler import Grown, heard_ends
from engine.training.state import Captured, capture_state
from queue_store.config import Training

Json = dict[str, Any]


class Loaded(Protocol):
    """What is known of the model that trains (engine.training.model.LoadedModel has it)."""

    @property
    def folder(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def parameters(self) -> int: ...


class Run(Protocol):
    """One item's run, as TrainingRun."""

    def train(self) -> Outcome: ...
    def flush(self) -> None: ...


class Written(Protocol):
    """A state at one moment, which can be written into a folder before the next step."""

    def write(self, folder: Path) -> None: ...


class HeldModel(Protocol):
    """The live model. Engine thread only."""

    @property
    def loaded(self) -> Loaded: ...

    @property
    def told(self) -> Json:
        """As Live."""
        ...

    @property
    def ends(self) -> list[str]:
        """Tokens at which generation stops."""
        ...

    def use_optimizer(self, training: Training) -> bool:
        """As Live."""
        ...

    def begin(
        self,
        prepared: Prepared,
        item: RunItem,
        settings: Training,
        place: Place,
        controls: Controls,
        reporter: Reporter,
        monitoring: Monitoring,
        halved: tuple[int, int] | None = None,
    ) -> Run:
        """As TrainingRun."""
        ...

    def capture(self, info: Json) -> Captured | Written:
        """The state at this moment. A Captured may be copied and written beside training; another
        one is written before anything goes on."""
        ...

    def answer(self, asked: Question, end: Callable[[], str], grown: Grown) -> Json:
        """As `prompted`."""
        ...

    def processes(self) -> Json:
        """{size, kind, nodes, ranks[{rank, host, pid, device, memory}]} of the status."""
        ...

    def look(self) -> None:
        """Raises where the model is lost: a process that held it is no more."""
        ...

    def end(self) -> None:
        """Let go of it; the memory that other processes hold is free when this returns."""
        ...


class Here(Live):
    """The live state in this process."""

    @property
    def ends(self) -> list[str]:
        return heard_ends(self.loaded)

    def begin(
        self,
        prepared: Prepared,
        item: RunItem,
        settings: Training,
        place: Place,
        controls: Controls,
        reporter: Reporter,
        monitoring: Monitoring,
        halved: tuple[int, int] | None = None,
    ) -> TrainingRun:
        return TrainingRun(
            self.loaded,
            self.optimizer,
            self.schedule,
            prepared,
            item,
            settings,
            place,
            controls,
            reporter,
            monitoring,
            halved=halved,
        )

    def capture(self, info: Json) -> Captured:
        captured = capture_state(self.loaded, self.optimizer, self.schedule, info)
        assert captured is not None
        return captured

    def answer(self, asked: Question, end: Callable[[], str], grown: Grown) -> Json:
        return prompted(self.loaded, asked, end, grown)

    def processes(self) -> Json:
        return {"size": 1, "kind": "one process", "nodes": 1, "ranks": [self._rank()]}

    def _rank(self) -> Json:
        gpu = self.loaded.device != "cpu"
        memory = torch.cuda.memory_reserved() if gpu else psutil.Process().memory_info().rss
        return {
            "rank": 0,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "device": self.loaded.device,
            "memory": int(memory),
        }

    def look(self) -> None:
        return

    def end(self) -> None:
        give_pages(self.optimizer)


def here(live: Live) -> Here:
    """A live state as the worker has it."""
    return Here(**vars(live))
