"""One item's training: from its cursor to its end, or until the controls say to leave.

The steps are Trainer's. What happens between two of them is here: the metric, the ticks, a save
that is due, and the one question to the controls. No thread, store or face is known here.
"""

from __future__ import annotations

import math
import time
import traceback
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from engine.training.controls import Controls, NonFinite, Place, Reporter, RunItem, Silent
from engine.training.failures import lacks_memory, out_of_memory
from engine.training.halving import Halving
from engine.training.looking import Looking, Monitoring
from engine.training.model import LoadedModel
from engine.training.optim import apply_settings
from engine.training.parallel import ALONE, Ranks
from engine.training.position import Packs, Plan
from engine.training.rng import capture_rng, set_rng
from engine.training.schedule import GlobalSchedule
from engine.training.split import RankBatches
from engine.training.stepping import stepping
from engine.training.ticks import SAMPLES, VALIDATION, samples_due
from engine.training.trainer import PackDataset, StepTrainer, arguments, make_loader
from engine.training.wrapping import wrap
from queue_store.config import Training
from queue_store.metrics import StepMetric
from queue_store.sharing import check_parts, check_shared


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
class _Pending:
    """A step whose loss and gradient norm may still be on their way from the GPU. `whole`: with
    several ranks, each one's (loss, tokens, memory), of which the step's are made."""

    step: int
    cursor_from: int
    cursor_to: int
    loss: torch.Tensor
    grad_norm: Any
    learning_rate: float
    tokens: int
    seconds: float
    whole: torch.Tensor | None = None

    def figures(self, memory: int) -> tuple[float, int, int]:
        """(loss, tokens, memory): of one process, whose memory is `memory`, or of all ranks."""
        if self.whole is None:
            return float(self.loss), self.tokens, memory
        losses, tokens, peaks = self.whole.cpu().T
        return float(losses.sum()), int(tokens.sum()), int(peaks.max())


class TrainingRun(TrainerCallback):
    """Trains `item` on the live model, optimizer and schedule. Made for one `train()`.

    `settings` and `halved` (see halving) are the ones frozen with the item; `place` is the head.
    `schedule.global_step` must be `place.global_step`. With `ranks` every rank makes one of the
    same item and calls `train()`; rank 0 has the controls and the reporter, the others follow.

    Raises ConfigError where a step cannot be divided over the ranks.
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
        controls: Controls | None,
        reporter: Reporter | None,
        monitoring: Monitoring,
        ranks: Ranks | None = None,
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
        self.controls = controls or Silent()
        self.reporter = reporter or Silent()
        self.monitoring = monitoring
        self.ranks = ranks or ALONE
        check_shared(settings, self.ranks.size)
        if self.ranks.sharded:
            check_parts(settings, loaded.method)
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
            lambda told: self.reporter.halved(self.place, told),
            # A backward pass that steps cannot be taken back, nor one that other ranks share.
            allowed=not settings.in_backward and self.ranks.size == 1,
        )
        self._step = self.plan.position(item.cursor).step
        self._leave = ""
        self._pending: list[_Pending] = []
        self._process = psutil.Process()
        pad = loaded.tokenizer.pad_token_id
        self._pad_id = 0 if pad is None else int(pad)
        self._looking = Looking(
            *(loaded, monitoring, self.controls, self.reporter, self.ranks),
            item=item.id,
            batch_size=lambda: self._halving.size,
            pad_id=self._pad_id,
        )
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
        module = wrap(self.loaded.model, self.ranks)
        try:
            while self.cursor < self.plan.rows and not self._leave:
                self._train_epoch(module)
        finally:
            self._looking.end()
        return Outcome(
            kind="done" if self.cursor == self.plan.rows else "left",
            reason=self._leave,
            cursor=self.cursor,
            step=self._step,
            global_step=self.schedule.global_step,
        )

    def _train_epoch(self, module: Any) -> None:
        """One Trainer over what is left of the cursor's epoch."""
        position = self.plan.position(self.cursor)
        self._epoch, self._pack = position.epoch, position.pack
        packs = self.plan.order(position.epoch).packs
        self._epoch_packs = len(packs)
        left = packs[position.pack :]
        loader = make_loader(
            PackDataset(self.prepared, left),
            RankBatches(
                len(left),
                effective_batch=self.settings.effective_batch,
                batch_size=self.settings.batch_size,
                rank=self.ranks.rank,
                size=self.ranks.size,
            ),
            self._pad_id,
            pin=self.loaded.device != "cpu",
        )
        # Trainer seeds everything when it is made: on_train_begin brings the generators back.
        self._rng = capture_rng()
        live = (self.loaded.model, self.optimizer, self.schedule, self.settings, self.loaded.loss)
        with stepping(*live) as steps:
            self._trainer = StepTrainer(
                self.loaded.model,
                arguments(self.settings, self.loaded.device, self.ranks.size),
                loader,
                (steps, self.schedule),
                self,
                self._halving,
                self.ranks.size,
                module,
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
            self.ranks.decide(self._look)
        self._rate = self.schedule.rate
        self._clock = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._record()
        self._leave = self.ranks.decide(self._boundary)
        if self._leave:
            control.should_training_stop = True
        if self._leave or self.cursor == self.plan.rows:
            self.flush()
        self._rate = self.schedule.rate
        self._clock = time.perf_counter()

    def _look(self) -> None:
        if not self.controls.waiting():
            self._looking.tick(self.place, self._step)

    def _boundary(self) -> str:
        """Between two steps, on rank 0: the reason to leave, "" to go on."""
        self._look()
        self.reporter.after_step(self.place, self.cursor)
        return self.controls.at_step(self.place).leave

    def _record(self) -> None:
        """Move the cursor over the step just done and keep its metric."""
        loss, grad_norm, tokens = self._trainer.take_step()
        whole = None
        if self.ranks.size > 1:
            # Trainer takes a rank's loss times their number (see StepTrainer).
            whole = self.ranks.gather((loss / self.ranks.size, tokens, self._memory()))
        before = self.cursor
        self._pack = min(self._pack + self.settings.effective_batch, self._epoch_packs)
        self.cursor = self.plan.cursor(self._epoch, self._pack)
        self._step += 1
        step = self.schedule.global_step
        due = step % self.settings.log_steps == 0
        if due:
            # Waits for the GPU, so that the seconds below are those of the work.
            loss, whole = loss.cpu(), whole.cpu() if whole is not None else None
        seconds = time.perf_counter() - self._clock
        self._pending.append(
            _Pending(step, before, self.cursor, loss, grad_norm, self._rate, tokens, seconds, whole)
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
        memory = self._memory() if pending and self.ranks.size == 1 else 0
        for p in pending:
            norm = float(p.grad_norm)
            loss, tokens, peak = p.figures(memory)
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
                    tokens=tokens,
                    seconds=p.seconds,
                    memory=peak,
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
