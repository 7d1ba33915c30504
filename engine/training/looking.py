"""The ticks between two steps: the loss on held-out rows and the answers to the fixed examples.

With several ranks rank 0 looks alone while the others wait, for it holds the whole model; where
the model is split, all do the same forward passes, and rank 0 alone tells what was found. Nothing
here moves training's generators, on any rank (see sampler).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from functools import partial

from engine.prepare.prepared import Sequence
from engine.training.controls import (
    Controls,
    Place,
    Prompt,
    Reporter,
    SampleResult,
    ValidationResult,
)
from engine.training.model import LoadedModel
from engine.training.parallel import Ranks
from engine.training.position import Packs
from engine.training.sampler import answer, expected_loss, validation_loss
from engine.training.ticks import SAMPLES, VALIDATION, Monitor


@dataclass(frozen=True)
class Monitoring:
    """What the ticks look at: held-out packs by the name of their set, the prompts, and by their
    ids what is expected of them, as tokens. `schedule` are steps of the item at which samples are
    taken (see ticks); `answered` is kept over items: the last tick's place, and who answered.
    Where the model is split over ranks, every rank needs the same packs and prompts."""

    monitor: Monitor
    validation: Mapping[str, Packs]
    prompts: Several[Prompt] = ()
    max_tokens: int = 256
    expected: Mapping[str, Sequence] = field(default_factory=dict)
    schedule: frozenset[int] = frozenset()
    answered: dict[Place, set[str]] = field(default_factory=dict)


class Looking:
    """The ticks of one run. `item` is its id, `batch_size` gives the packs at once by now."""

    def __init__(
        self,
        loaded: LoadedModel,
        watch: Monitoring,
        controls: Controls,
        reporter: Reporter,
        ranks: Ranks,
        *,
        item: int,
        batch_size: Callable[[], int],
        pad_id: int,
    ) -> None:
        self.loaded = loaded
        self.watch = watch
        self.controls = controls
        self.reporter = reporter
        self.ranks = ranks
        self.item = item
        self.batch_size = batch_size
        self.pad_id = pad_id
        self._place = Place(0, 0)
        self._item_step = 0
        if ranks.sharded:
            ranks.acts |= {VALIDATION: self._validate, SAMPLES: self._sample}

    def end(self) -> None:
        """The run is over: nobody may ask for its ticks, nor keep its model, any more."""
        for kind in (VALIDATION, SAMPLES):
            self.ranks.acts.pop(kind, None)

    def _waiting(self) -> bool:
        """Whether a request waits; with a split model the same on all ranks at each question."""
        waits = self.controls.waiting()
        return bool(self.ranks.share(waits)) if self.ranks.sharded else waits

    def tick(self, place: Place, item_step: int) -> None:
        """Validation and samples, where due and within the budget. Rank 0's."""
        watch = self.watch
        self._place, self._item_step = place, item_step
        works: tuple[tuple[str, Callable[[], bool]], ...] = (
            (VALIDATION, self._validate),
            (SAMPLES, self._ask),
        )
        for kind, work in works:
            if not watch.monitor.may_run(kind):
                continue
            told = watch.monitor.takes_long(kind)
            if told:
                self.reporter.looking(kind)
            if kind == VALIDATION and self.ranks.sharded:
                work = partial(self.ranks.together, VALIDATION)
            started = time.perf_counter()
            finished = work()
            watch.monitor.ran(kind, time.perf_counter() - started, finished)
            if told:
                self.reporter.looking("")

    def _validate(self) -> bool:
        for name, packs in self.watch.validation.items():
            started = time.perf_counter()
            result = validation_loss(
                self.loaded.model,
                packs,
                batch_size=self.batch_size(),
                pad_id=self.pad_id,
                waiting=self._waiting,
            )
            if result is None:
                return False
            loss, tokens = result
            seconds = time.perf_counter() - started
            if tokens:
                self.reporter.validation(
                    ValidationResult(self._place, self.item, name, loss, tokens, seconds)
                )
        return True

    def _ask(self) -> bool:
        # Between two items no step is done: who answered after the one has the same answer.
        before = self.watch.answered.get(self._place, set())
        asked = [prompt.id for prompt in self.watch.prompts if prompt.id not in before]
        if not asked:
            return True
        if self.ranks.sharded:
            finished = bool(self.ranks.together(SAMPLES, asked=asked))
        else:
            finished = self._sample(asked)
        if finished:
            self.watch.answered.clear()
            self.watch.answered[self._place] = before | set(asked)
        return finished

    def _sample(self, asked: list[str]) -> bool:
        watch = self.watch
        prompts = [prompt for prompt in watch.prompts if prompt.id in asked]
        due = watch.monitor.put_off(SAMPLES)
        started = time.perf_counter()
        expected = {p.id: watch.expected[p.id] for p in prompts if p.id in watch.expected}
        losses = expected_loss(
            self.loaded.model,
            list(expected.values()),
            pad_id=self.pad_id,
            waiting=self._waiting,
        )
        if losses is None:
            return False
        answers = answer(
            self.loaded.model,
            self.loaded.tokenizer,
            prompts,
            max_tokens=watch.max_tokens,
            waiting=self._waiting,
        )
        if answers is None:
            return False
        found = {
            name: loss for name, loss in zip(expected, losses, strict=True) if loss is not None
        }
        seconds = time.perf_counter() - started
        self.reporter.samples(
            SampleResult(
                *(self._place, self.item, answers, seconds, found),
                due=due.due if due is not None else self._place,
                item_step=self._item_step,
            )
        )
        return True
