"""One item's training: from its cursor to its end, or until the controls say to leave.

The steps are Trainer's. What happens between two of them is here: the metric, the ticks, a save
that is due, and the one question to the controls. No thread, store or face is known here.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from engine.prepare.prepared import Sequence
from engine.training.controls import (
    Controls,
    NonFinite,
    Place,
    Prompt,
    Reporter,
    RunItem,
    SampleResult,
    ValidationResult,
)
from engine.training.failures import lacks_memory, out_of_memory
from engine.training.halving import Halving
from engine.training.model import LoadedModel
from engine.training.optim import apply_settings
from engine.training.position import Packs, Plan
from engine.training.rng import capture_rng, set_rng
from engine.training.sampler import answer, expected_loss, validation_loss
from engine.training.schedule import GlobalSchedule
from engine.training.stepping import stepping
from engine.training.ticks import SAMPLES, VALIDATION, Monitor, samples_due
from engine.training.trainer import PackDataset, StepTrainer, arguments, make_loader
from queue_store.config import Training
from queue_store.metrics import StepMetric


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `kind` is "done" (every row of every epoch trained) or "left"; `reason` is
    what the controls gave, "" if they never said to leave. `step` counts the item's steps."""

    kind: str
    reason: str
    cursor: int
    step: int
    global_step: int


@dataclass(frozen=True)
class Monitoring:
    """What the ticks look at: held-out packs by the name of their set, the prompts, and by their
    ids what is expected of them, as tokens. `schedule` are steps of the item at which samples are
    taken (see ticks); `answered` is kept over items: the last tick's place, and who answered."""

    monitor: Monitor
    validation: Mapping[str, Packs]
    prompts: Several[Prompt] = ()
    max_tokens: int = 256
    expected: Mapping[str, Sequence] = field(default_factory=dict)
    schedule: frozenset[int] = frozenset()
    answered: dict[Place, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pending:
    """A step whose loss and gradient norm may still be on their way from the GPU."""

    step: int
    cursor_from: int
    cursor_to: int
    loss: torch.Tensor
    grad_norm: Any
    learning_rate: float
    tokens: int
    seconds: float


class TrainingRun(TrainerCallback):
    """Trains `item` on the live model, optimizer and schedule. Made for one `train()`.

    `settings` and `halved` (see halving) are the ones frozen with the item; `place` is the head.
    `schedule.global_step` must be `place.global_step`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        optimizer: torch.optim.Optimizer,
        schedule: GlobalSchedule,
        prepared: Packs,
        item: RunItem,
        settings: Training,
        place: Place,
        controls: Controls,
        reporter: Reporter,
        monitoring: Monitoring,
        *,
        halved: tuple[int, int] | None = None,
    ) -> None:
        self.loaded = loaded
        self.optimizer = optimizer
        self.schedule = schedule
        self.prepared = prepared
        self.item = item
        self.settings = settings
        self.branch = place.branch
        self.controls = controls
        self.reporter = reporter
        self.monitoring = monitoring
        self.plan = Plan(
            prepared,
            seed=settings.seed,
            epochs=item.epochs,
            effective_batch=settings.effective_batch,
        )
        self.cursor = item.cursor
        self._halving = Halving(
            settings.batch_size,
            halved,
            lambda: self.cursor,
            lambda told: reporter.halved(self.place, told),
            # A backward pass that steps cannot be taken back.
            allowed=not settings.in_backward,
        )
        self._step = self.plan.position(item.cursor).step
        self._leave = ""
        self._pending: list[_Pending] = []
        self._process = psutil.Process()
        pad = loaded.tokenizer.pad_token_id
        self._pad_id = 0 if pad is None else int(pad)
        apply_settings(optimizer, settings)
        loaded.loss.use(settings.chunked_loss)
        schedule.training = settings
        schedule.set(place.global_step)

    @property
    def place(self) -> Place:
        return Place(self.branch, self.schedule.global_step)

    def train(self) -> Outcome:
        """Train on. Raises NonFinite, StepMemory, and whatever else a failing step raises: then the
        live state is not to be saved."""
        while self.cursor < self.plan.rows and not self._leave:
            self._train_epoch()
        return Outcome(
            kind="done" if self.cursor == self.plan.rows else "left",
            reason=self._leave,
            cursor=self.cursor,
            step=self._step,
            global_step=self.schedule.global_step,
        )

    def _train_epoch(self) -> None:
        """One Trainer over what is left of the cursor's epoch."""
        position = self.plan.position(self.cursor)
        self._epoch, self._pack = position.epoch, position.pack
        packs = self.plan.order(position.epoch).packs
        self._epoch_packs = len(packs)
        loader = make_loader(
            PackDataset(self.prepared, packs[position.pack :]),
            self.settings.batch_size,
            self._pad_id,
            pin=self.loaded.device != "cpu",
        )
        # Trainer seeds everything when it is made: on_train_begin brings the generators back.
        self._rng = capture_rng()
        with stepping(self.loaded.model, self.optimizer, self.schedule, self.settings) as steps:
            self._trainer = StepTrainer(
                self.loaded.model,
                arguments(self.settings, self.loaded.device),
                loader,
                (steps, self.schedule),
                self,
                self._halving,
            )
            try:
                self._trainer.train()
            except Exception as error:
                cause = lacks_memory(error)
                if not cause or self._trainer.longest is None:
                    raise
                # The frames hold the step's activations, and whoever hears of this needs their
                # room.
                traceback.clear_frames(error.__traceback__)
                raise out_of_memory(
                    cause,
                    error,
                    self.settings,
                    size=self._halving.size,
                    row=(self.item.name, *self._trainer.longest),
                ) from error

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        set_rng(self._rng)
        if self.cursor == 0:
            # What the model answers before it has seen any row of the item.
            self._samples_due()
            if not self.controls.waiting():
                self._tick()
        self._rate = self.schedule.rate
        self._clock = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._record()
        if not self.controls.waiting():
            self._tick()
        self.reporter.after_step(self.place, self.cursor)
        directive = self.controls.at_step(self.place)
        if directive.leave:
            self._leave = directive.leave
            control.should_training_stop = True
        if directive.leave or self.cursor == self.plan.rows:
            self.flush()
        self._rate = self.schedule.rate
        self._clock = time.perf_counter()

    def _record(self) -> None:
        """Move the cursor over the step just done and keep its metric."""
        loss, grad_norm, tokens = self._trainer.take_step()
        before = self.cursor
        self._pack = min(self._pack + self.settings.effective_batch, self._epoch_packs)
        self.cursor = self.plan.cursor(self._epoch, self._pack)
        self._step += 1
        step = self.schedule.global_step
        due = step % self.settings.log_steps == 0
        if due:
            # Waits for the GPU, so that the seconds below are those of the work.
            loss = loss.cpu()
        seconds = time.perf_counter() - self._clock
        self._pending.append(
            _Pending(step, before, self.cursor, loss, grad_norm, self._rate, tokens, seconds)
        )
        self.monitoring.monitor.stepped(seconds)
        self._validation_due()
        self._samples_due()
        if due:
            self.flush()

    def _validation_due(self) -> None:
        monitor, every = self.monitoring.monitor, self.settings.eval_steps
        if not every:
            monitor.forget(VALIDATION)
        elif self.schedule.global_step % every == 0:
            monitor.fall_due(VALIDATION, self.place)

    def _samples_due(self) -> None:
        watch, every = self.monitoring, self.settings.sample_steps
        # Without a prompt there is nothing to wait for, nor to be shown as put off.
        if not watch.prompts or (not every and not watch.schedule):
            watch.monitor.forget(SAMPLES)
            return
        step = self.schedule.global_step
        if samples_due(step, self._step, self.plan.steps, every, watch.schedule):
            watch.monitor.fall_due(SAMPLES, self.place)

    def flush(self) -> None:
        """Read the losses and norms that are still on the device, check them, report the steps.

        Whoever saves calls this first. Raises NonFinite at the first bad step, which is reported
        too, and none after it.
        """
        pending, self._pending = self._pending, []
        memory = self._memory() if pending else 0
        for p in pending:
            loss, norm = float(p.loss), float(p.grad_norm)
            self.reporter.step(
                StepMetric(
                    branch=self.branch,
                    step=p.step,
                    item=self.item.id,
                    cursor_from=p.cursor_from,
                    cursor_to=p.cursor_to,
                    loss=loss,
                    learning_rate=p.learning_rate,
                    grad_norm=norm,
                    tokens=p.tokens,
                    seconds=p.seconds,
                    memory=memory,
                )
            )
            for what, value in (("loss", loss), ("gradient norm", norm)):
                if not math.isfinite(value):
                    raise NonFinite(p.step, what, value)

    def _memory(self) -> int:
        """Bytes: the GPU's peak since the last look, else the process's resident set."""
        if self.loaded.device != "cpu":
            peak = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            return int(peak)
        return int(self._process.memory_info().rss)

    def _tick(self) -> None:
        """Validation and samples, where due and within the budget."""
        watch = self.monitoring
        for kind, work in ((VALIDATION, self._validate), (SAMPLES, self._sample)):
            if not watch.monitor.may_run(kind):
                continue
            told = watch.monitor.takes_long(kind)
            if told:
                self.reporter.looking(kind)
            started = time.perf_counter()
            finished = work()
            watch.monitor.ran(kind, time.perf_counter() - started, finished)
            if told:
                self.reporter.looking("")

    def _validate(self) -> bool:
        for name, packs in self.monitoring.validation.items():
            started = time.perf_counter()
            result = validation_loss(
                self.loaded.model,
                packs,
                batch_size=self._halving.size,
                pad_id=self._pad_id,
                waiting=self.controls.waiting,
            )
            if result is None:
                return False
            loss, tokens = result
            seconds = time.perf_counter() - started
            if tokens:
                self.reporter.validation(
                    ValidationResult(self.place, self.item.id, name, loss, tokens, seconds)
                )
        return True

    def _sample(self) -> bool:
        watch = self.monitoring
        # Between two items no step is done: who answered after the one has the same answer.
        before = watch.answered.get(self.place, set())
        prompts = [prompt for prompt in watch.prompts if prompt.id not in before]
        if not prompts:
            return True
        due = watch.monitor.put_off(SAMPLES)
        started = time.perf_counter()
        expected = {p.id: watch.expected[p.id] for p in prompts if p.id in watch.expected}
        losses = expected_loss(
            self.loaded.model,
            list(expected.values()),
            pad_id=self._pad_id,
            waiting=self.controls.waiting,
        )
        if losses is None:
            return False
        answers = answer(
            self.loaded.model,
            self.loaded.tokenizer,
            prompts,
            max_tokens=watch.max_tokens,
            waiting=self.controls.waiting,
        )
        if answers is None:
            return False
        found = {
            name: loss for name, loss in zip(expected, losses, strict=True) if loss is not None
        }
        seconds = time.perf_counter() - started
        self.reporter.samples(
            SampleResult(
                *(self.place, self.item.id, answers, seconds, found),
                due=due.due if due is not None else self.place,
                item_step=self._step,
            )
        )
        asked = {prompt.id for prompt in prompts}
        watch.answered.clear()
        watch.answered[self.place] = before | asked
        return True
