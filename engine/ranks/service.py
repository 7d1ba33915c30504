"""What a rank does: the acts that the engine asks for, carried out by all ranks together.

Rank 0 hears the engine and calls the others to each act (engine.training.parallel); between them,
and in a run at each step, it waits for the next word. What is done at rank 0 alone (writing a
state, an answer of a whole copy) the others wait out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.ranks import words
from engine.ranks.link import Json, Link
from engine.training.controls import (
    Directive,
    Halved,
    NonFinite,
    Place,
    RunItem,
    SampleResult,
    ValidationResult,
)
from engine.training.live import Live, load_live
from engine.training.parallel import Ranks
from engine.training.prompted import Question, prompted
from engine.training.run import TrainingRun
from engine.training.sampler import heard_ends
from engine.training.state import Captured, capture_state, write_state
from engine.training.ticks import Monitor
from queue_store.config import Training
from queue_store.errors import DataError, Refused
from queue_store.home import Home
from queue_store.metrics import StepMetric
from queue_store.records import Checkpoint

RANK_0 = ("flush", "save", "generate")
"""Acts that rank 0 begins by itself, in which an error of these leaves the ranks as they were."""
HARMLESS = (OSError, NonFinite, Refused, DataError)


def about(ranks: Ranks) -> Json:
    """This rank, as the status shows it."""
    return {
        "rank": ranks.rank,
        "host": words.host(),
        "pid": os.getpid(),
        "device": ranks.device,
        "memory": 0,
    }


class Service:
    """One rank's. `link` is rank 0's."""

    def __init__(self, ranks: Ranks, link: Link | None) -> None:
        self.ranks = ranks
        self.link = link
        self.live: Live | None = None
        self.run: TrainingRun | None = None
        self.waiting = False
        """Whether something waits for the next step, as the engine said last."""
        self.end = ""
        """Why the answer that is given has to end, as the engine said."""
        self._captured: Captured | None = None
        ranks.acts |= {
            "load": self._load,
            "optimizer": self._use_optimizer,
            "run": self._run,
            "capture": self._capture,
            "answer": self._answer,
        }

    # -- rank 0: the engine's words ---------------------------------------------------------------

    def serve(self, until: str) -> Any:
        """Rank 0: do what the engine asks for, until it says `until`; what it says of that."""
        assert self.link is not None
        while True:
            said = self.link.receive()
            assert said is not None  # no time limit
            if until in said:
                return said[until]
            if "do" in said:
                self._do(said)
            else:
                self._take(said)

    def look(self) -> None:
        """Take what the engine said meanwhile, without waiting for it."""
        assert self.link is not None
        while (said := self.link.receive(0.0)) is not None:
            self._take(said)

    def _take(self, said: Json) -> None:
        self.waiting = bool(said.get("waiting", self.waiting))
        self.end = str(said.get("end", self.end))

    def _do(self, said: Json) -> None:
        assert self.link is not None
        name = str(said.pop("do"))
        if name not in RANK_0:
            done = self.ranks.together(name, **said)
        else:
            alone: dict[str, Callable[..., Any]] = {
                "flush": self._flush,
                "save": self._save,
                "generate": self._generate,
            }
            try:
                done = alone[name](**said)
            except HARMLESS as error:
                self.link.send({"failed": words.error_words(error)})
                return
        self.link.send({"done": done})

    def _flush(self) -> None:
        assert self.run is not None
        self.run.flush()

    def _save(self, folder: str, info: Json) -> None:
        """Write the state into the engine's temporary folder; the engine makes it a checkpoint."""
        self.ranks.together("capture", info=info)
        captured, self._captured = self._captured, None
        assert captured is not None
        write_state(Path(folder), captured)

    def _generate(self, question: Json) -> Json:
        self.end = ""
        if self.ranks.sharded:
            found: Json = self.ranks.together("answer", question=question)
            return found
        return self._answer(question)

    # -- all ranks --------------------------------------------------------------------------------

    def _load(self, home: str, config: Json, at: Json) -> Json:
        self.live = None
        live = load_live(
            Home(Path(home)), words.config_of(config), words.of(Checkpoint, at), self.ranks
        )
        self.live = live
        loaded = live.loaded
        return {
            "told": live.told,
            "folder": str(loaded.folder),
            "trained": loaded.trained,
            "rule": live.optimizer_name,
            "ends": heard_ends(loaded),
        }

    def _use_optimizer(self, training: Json) -> Json:
        assert self.live is not None
        self.live.use_optimizer(words.training_of(training))
        return self.live.told

    def _run(
        self,
        packs: Json,
        item: Json,
        settings: Json,
        place: Json,
        monitoring: Json,
        waiting: bool,
        halved: tuple[int, int] | None,
    ) -> Json:
        live = self.live
        assert live is not None
        watch = words.monitoring_of(monitoring)
        self.waiting = waiting
        teller = Teller(self, self.link, watch.monitor) if self.link else None
        self.run = TrainingRun(
            live.loaded,
            live.optimizer,
            live.schedule,
            words.packs_of(packs),
            words.of(RunItem, item),
            words.of(Training, settings),
            words.of(Place, place),
            teller,
            teller,
            watch,
            self.ranks,
            halved=tuple(halved) if halved else None,  # type: ignore[arg-type]
        )
        try:
            outcome: Json = words.plain(self.run.train())
            return outcome
        finally:
            self.run = None

    def _capture(self, info: Json) -> None:
        live = self.live
        assert live is not None
        self._captured = capture_state(
            live.loaded, live.optimizer, live.schedule, info, ranks=self.ranks
        )

    def _answer(self, question: Json) -> Json:
        assert self.live is not None
        told = self.link is not None
        return prompted(
            self.live.loaded,
            words.of(Question, question),
            self._shared_end if self.ranks.sharded else self._end,
            self._grown if told else None,
        )

    def _end(self) -> str:
        self.look()
        return self.end

    def _shared_end(self) -> str:
        """The same at every rank: with a split model all do the same forward passes."""
        return str(self.ranks.share(self._end() if self.link else ""))

    def _grown(self, text: str, tokens: int) -> None:
        assert self.link is not None
        self.link.send({"grown": [text, tokens]})


class Teller:
    """Rank 0's Controls and Reporter: asks the engine, and tells it."""

    def __init__(self, service: Service, link: Link, monitor: Monitor) -> None:
        self._service, self._link, self._monitor = service, link, monitor
        self._cursor = 0

    def waiting(self) -> bool:
        self._service.look()
        return self._service.waiting

    def at_step(self, place: Place) -> Directive:
        told = {"cursor": self._cursor, "monitor": self._monitor.dump()}
        self._link.send({"at": {"place": words.plain(place), **told}})
        answer = self._service.serve("go")
        self._service.waiting = bool(answer["waiting"])
        self._monitor.take(answer["monitor"])
        return Directive(str(answer["leave"]))

    def step(self, metric: StepMetric) -> None:
        self._link.send({"step": words.plain(metric)})

    def looking(self, kind: str) -> None:
        self._link.send({"looking": kind})

    def validation(self, result: ValidationResult) -> None:
        self._link.send({"validation": words.plain(result)})

    def samples(self, result: SampleResult) -> None:
        self._link.send({"samples": words.plain(result)})

    def halved(self, place: Place, halved: Halved) -> None:
        raise AssertionError("only one process tries a step again")

    def after_step(self, place: Place, cursor: int) -> None:
        self._cursor = cursor  # told with the question that follows
