"""The live model at several ranks, and an item's run there, as the engine thread has them.

The engine holds no model: it asks rank 0, and answers what rank 0 asks at each step. The engine's
heartbeat moves only when rank 0 tells something, for it is published only then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.prepare.prepared import Prepared
from engine.ranks import words
from engine.ranks.held import HeldModel
from engine.ranks.launch import STARTING_FACTOR, Idle, Launch
from engine.ranks.plan import Processes
from engine.training.controls import (
    Controls,
    Place,
    Reporter,
    RunItem,
    SampleResult,
    ValidationResult,
)
from engine.training.looking import Monitoring
from engine.training.optim import rule_of
from engine.training.prompted import Question
from engine.training.run import Outcome
from engine.training.sampler import Grown
from queue_store.config import Config, Training
from queue_store.home import Home
from queue_store.metrics import StepMetric
from queue_store.records import Checkpoint

Json = dict[str, Any]


@dataclass(frozen=True)
class LoadedThere:
    """What rank 0 told of the model that it loaded."""

    folder: Path
    name: str
    method: str
    dtype: str
    device: str
    parameters: int
    trained: int


class There:
    """The live model at the ranks of one launch."""

    def __init__(self, launch: Launch, said: Json) -> None:
        self._launch = launch
        self._rule = str(said["rule"])
        self.told: Json = said["told"]
        self.ends: list[str] = list(said["ends"])
        self.loaded = LoadedThere(
            folder=Path(said["folder"]),
            trained=int(said["trained"]),
            **{key: self.told[key] for key in ("name", "method", "dtype", "device", "parameters")},
        )

    @staticmethod
    def load(
        home: Home,
        config: Config,
        at: Checkpoint,
        processes: Processes,
        idle: Idle,
        starts: Idle,
        held: HeldModel | None = None,
    ) -> There:
        """Have the ranks load checkpoint `at`: those of `held`, where they are as `processes` says,
        else others. `idle` is called meanwhile, and may raise to break it off; `starts` instead of
        it while the ranks come together, which has a time limit of its own.

        Raises LaunchFailed, or what a rank raised; then none is left.
        """
        if isinstance(held, There) and held.serves(processes):
            launch = held._launch
        else:
            if held is not None:
                held.end()
            launch = Launch(home, processes)
            launch.begin(starts)
        load = {"do": "load", "home": str(home.root), "config": msgspec.to_builtins(config)}
        try:
            said = launch.ask({**load, "at": words.plain(at)}, idle=idle, factor=STARTING_FACTOR)
        except BaseException:
            launch.abandon("loading was broken off")
            raise
        return There(launch, said)

    def serves(self, processes: Processes) -> bool:
        """Whether its ranks live and are as `processes` says."""
        return self._launch.over is None and self._launch.processes == processes

    def use_optimizer(self, training: Training) -> bool:
        if rule_of(training) == self._rule:
            return False
        self.told = self._launch.ask({"do": "optimizer", "training": words.plain(training)})
        self._rule = rule_of(training)
        return True

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
    ) -> RunThere:
        order = {
            "do": "run",
            "packs": words.packs(prepared),
            "item": words.plain(item),
            "settings": words.plain(settings),
            "place": words.plain(place),
            "monitoring": words.monitoring(monitoring),
            "halved": halved,
        }
        return RunThere(self._launch, order, controls, reporter, monitoring)

    def capture(self, info: Json) -> CapturedThere:
        return CapturedThere(self._launch, info)

    def answer(self, asked: Question, end: Callable[[], str], grown: Grown) -> Json:
        told = ""

        def heard(said: Json) -> None:
            grown(*said["grown"])
            ends()

        def ends() -> None:
            nonlocal told
            if not told and (told := end()):
                self._launch.send({"end": told})

        order = {"do": "generate", "question": asdict(asked)}
        found: Json = self._launch.ask(order, heard, ends)
        return found

    def processes(self) -> Json:
        wanted = self._launch.processes
        return {
            "size": wanted.size,
            "kind": wanted.kind,
            "nodes": wanted.nodes,
            "ranks": [dict(rank) for rank in self._launch.ranks],
        }

    def look(self) -> None:
        self._launch.look()

    def end(self) -> None:
        self._launch.end()


@dataclass(frozen=True)
class CapturedThere:
    """The state as it stands at the ranks, which stand still until it is written."""

    launch: Launch
    info: Json

    def write(self, folder: Path) -> None:
        """Rank 0 writes it. Raises OSError: then discard the folder; or LaunchFailed."""
        self.launch.ask({"do": "save", "folder": str(folder), "info": self.info})


class RunThere:
    """One item's run at the ranks; made for one `train`."""

    def __init__(
        self,
        launch: Launch,
        order: Json,
        controls: Controls,
        reporter: Reporter,
        monitoring: Monitoring,
    ) -> None:
        self._launch, self._order = launch, order
        self._controls, self._reporter, self._monitoring = controls, reporter, monitoring
        self._told = False

    def train(self) -> Outcome:
        """As TrainingRun. Raises LaunchFailed, or what a rank raised, and what the controls and
        the reporter raise: then no rank is left."""
        self._told = self._controls.waiting()
        order = {**self._order, "waiting": self._told}
        try:
            said = self._launch.ask(order, self._heard, self._tell_waiting)
        except BaseException:
            self._launch.abandon("its run was left in the middle of a step")
            raise
        return words.of(Outcome, said)

    def flush(self) -> None:
        """Have the steps told that are not yet. Raises NonFinite."""
        self._launch.ask({"do": "flush"}, self._heard)

    def _tell_waiting(self) -> None:
        """Rank 0 asks for every token that it samples whether something waits: it is told."""
        waiting = self._controls.waiting()
        if waiting != self._told:
            self._told = waiting
            self._launch.send({"waiting": waiting})

    def _heard(self, said: Json) -> None:
        self._tell_waiting()
        if "step" in said:
            self._reporter.step(words.of(StepMetric, said["step"]))
        elif "at" in said:
            self._at_step(said["at"])
        elif "looking" in said:
            self._reporter.looking(str(said["looking"]))
        elif "validation" in said:
            self._reporter.validation(words.of(ValidationResult, said["validation"]))
        elif "samples" in said:
            self._samples(words.of(SampleResult, said["samples"]))

    def _at_step(self, said: Json) -> None:
        place, monitor = words.of(Place, said["place"]), self._monitoring.monitor
        monitor.take(said["monitor"])
        self._reporter.after_step(place, int(said["cursor"]))
        directive = self._controls.at_step(place)
        self._told = self._controls.waiting()
        answer = {"leave": directive.leave, "waiting": self._told, "monitor": monitor.dump()}
        self._launch.send({"go": answer})

    def _samples(self, result: SampleResult) -> None:
        """What rank 0 remembers of who answered is remembered here, for the next item."""
        answered = self._monitoring.answered
        before = answered.get(result.place, set())
        answered.clear()
        answered[result.place] = before | {answer.id for answer in result.answers}
        self._reporter.samples(result)
