"""The board: what the engine thread knows right now, published as one status object.

The engine thread writes fields and publishes; everybody else reads the published object, which
is never changed afterwards. Publishing costs the training loop well under a millisecond and
happens at most a few times a second, but at once when the state changes.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.hints.hint import Hint, fields, in_order
from engine.hints.surroundings import paused as paused_hint
from engine.machine.telemetry import Telemetry
from engine.messages import EngineState, unknown
from engine.reading import status
from queue_store import journal, queue, records
from queue_store.config import Snapshots
from queue_store.database import State, now
from queue_store.metrics import StepMetric

PUBLISH_SECONDS = 0.2
STILL = (EngineState.PAUSED, EngineState.IDLE, EngineState.STOPPED, EngineState.FAILED)
"""In these no step is done: a speed and a time left would be those of another time."""
RATE_STEPS = 20
"""Steps over which tokens/s and the time left are averaged."""


class Board:
    """Fields of the status; `publish` turns them into the object that `snapshot` returns."""

    def __init__(
        self,
        telemetry: Telemetry,
        store: Path,
        model: Mapping[str, str],
        mode: Callable[[], str],
        requests: Callable[[], list[str]],
        supervisor_pid: int | None = None,
    ) -> None:
        self.supervisor_pid = supervisor_pid
        self.telemetry = telemetry
        self.store = store
        self.mode = mode
        self.requests = requests
        self.started = now()
        self.state = EngineState.STARTING
        self.phase = ""
        self.progress: float | None = None
        self.branch: int | None = None
        self.global_step = 0
        self.head_checkpoint: str | None = None
        self.head_version: str | None = None
        self.checkpoint_bytes: int | None = None
        self.stop_free = 0
        self.model = status.model_status(name=model["name"], method=model["method"])
        self.item: dict[str, Any] | None = None
        self.val_loss: float | None = None
        self.samples_step: int | None = None
        self.monitoring_share: float | None = None
        self.samples_due: dict[str, Any] | None = None
        self.processes: Callable[[], dict[str, Any]] = status.not_loaded
        """Asked for those that hold the model."""
        self._paused, self._paused_since = False, now()
        self.told: dict[str, Hint] = {}
        """What the engine itself has to say, by rule; see `tell`."""
        self.watched: tuple[Hint, ...] = ()
        """The keeper's: what its last look found."""
        self.disk_low: Hint | None = None
        """The keeper's: little room is left."""
        self.heartbeat = time.monotonic()
        self._last: StepMetric | None = None
        self._on_record: records.Checkpoint | None = None
        """The checkpoint that training stood on last: its figures hold until there is a step."""
        self._recent: deque[tuple[int, float]] = deque(maxlen=RATE_STEPS)
        self._counts: dict[str, int] = {}
        self._seq = -1
        self._published_at = 0.0
        self.published: dict[str, Any] = {}

    def stand_on_head(self, state: State, rules: Snapshots, *, ahead: bool = False) -> None:
        """The figures of the head, as the live state stands on it; `ahead`: training is further
        than the head, and its own step stays."""
        at = records.head(state)
        if at is None:
            return
        size = at.checkpoint.size_bytes
        self.branch = at.branch
        if not ahead:
            self.global_step = at.checkpoint.step
        self.head_checkpoint = at.checkpoint.name
        self.head_version = records.version_name(state, at.checkpoint.id)
        self.checkpoint_bytes = size or None
        self.stop_free = status.free_limit(rules.stop_free, size) if size else 0
        if not ahead:
            self._on_record = at.checkpoint
        if self.val_loss is None:
            self.val_loss = at.checkpoint.val_loss

    def step(self, metric: StepMetric) -> None:
        """A step's figures."""
        self._last = metric
        self._recent.append((metric.tokens, metric.seconds))

    def figures(self) -> dict[str, float | None]:
        """Loss, validation loss and rate of the newest step; before there is one, those on the
        record of the checkpoint that training stands on."""
        at = self._last or self._on_record
        return {
            "loss": at.loss if at else None,
            "val_loss": self.val_loss,
            "learning_rate": at.learning_rate if at else None,
        }

    def forget_steps(self) -> None:
        """The head moved back: the figures shown belong to steps that were taken back."""
        self._last = self._on_record = self.val_loss = None
        self._recent.clear()

    @property
    def memory(self) -> int:
        """Bytes at the peak of the newest step, 0 before the first."""
        return self._last.memory if self._last else 0

    @property
    def step_seconds(self) -> float | None:
        """Mean seconds of the recent steps."""
        return sum(s for _, s in self._recent) / len(self._recent) if self._recent else None

    def set(self, state: EngineState, phase: str = "", progress: float | None = None) -> None:
        """A change of the engine's state; `phase` says in words what it is busy with."""
        self.state, self.phase, self.progress = state, phase, progress

    @property
    def paused(self) -> bool:
        """Whether training is paused by hand or waits for room."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        if paused and not self._paused:
            self._paused_since = now()
        self._paused = paused

    def tell(self, rule: str, text: str, advice: str = "", **figures: float | str) -> None:
        """A hint of the engine's own, until `all_well` or `untell`. Any thread."""
        self.told[rule] = Hint(
            rule, text, figures, advice, since_step=self.global_step, since_time=now()
        )

    def untell(self, rule: str) -> None:
        """That is over. Any thread."""
        self.told.pop(rule, None)

    def all_well(self) -> None:
        """What was wrong before did not keep training from going on. Copies tell their own end."""
        for rule in [rule for rule in self.told if rule not in ("backup", "deploy")]:
            self.untell(rule)

    @property
    def hint(self) -> str:
        """The text of the most important hint of the engine's own, "" without one."""
        return next((hint.text for hint in in_order(list(self.told.values()))), "")

    def hint_fields(self) -> dict[str, Any]:
        """`hint` and `hints` of the status as they stand. On the thread of whoever asks."""
        found = [*self.told.values(), *self.watched]
        if self.disk_low is not None:
            found.append(self.disk_low)
        if self.paused:
            found.append(paused_hint(self.global_step, self._paused_since))
        return fields(found, self.global_step, self.started)

    def publish(self, state: State, *, force: bool = False) -> None:
        """Make the fields the status that faces see, if the last time is long enough ago."""
        self.heartbeat = time.monotonic()
        if not force and self.heartbeat - self._published_at < PUBLISH_SECONDS:
            return
        self._published_at = self.heartbeat
        seq = journal.last_seq(state)
        if seq != self._seq:  # every change of the queue is an event
            self._seq, self._counts = seq, queue.waiting_by_priority(state)
        self.published = self.build()

    def build(self) -> dict[str, Any]:
        """The status object of the fields as they stand."""
        read = self.telemetry.latest()
        figures = self.figures()
        tokens = sum(t for t, _ in self._recent)
        seconds = sum(s for _, s in self._recent)
        eta = None
        if self.item and isinstance(self.item["steps"], int) and self.step_seconds is not None:
            eta = max(0, self.item["steps"] - self.item["step"]) * self.step_seconds
        why = "no step since this checkpoint" if self.global_step else "no step yet"
        idle = unknown(f"{self.state}: no steps are done") if self.state in STILL else None
        return status.status(
            state=self.state,
            branch=self.branch,
            global_step=self.global_step,
            queue=self._counts,
            head_checkpoint=self.head_checkpoint,
            head_version=self.head_version,
            model=self.model,
            gpus=read["gpus"],
            ram=read["ram"],
            cpu=read["cpu"],
            process=read["process"],
            disk=status.disk_status(self.store, self.checkpoint_bytes, self.stop_free),
            engine=status.engine_status(
                pid=os.getpid(),
                supervisor_pid=self.supervisor_pid,
                mode=self.mode(),
                started=self.started,
            ),
            item=self.item,
            loss=figures["loss"],
            val_loss=figures["val_loss"],
            learning_rate=figures["learning_rate"],
            tokens_per_second=idle or (tokens / seconds if seconds else None),
            eta_seconds=idle or (eta if eta is None or math.isfinite(eta) else None),
            why=why,
            phase=self.phase,
            progress=self.progress,
            paused=self.paused,
            requests=self.requests(),
            events_seq=self._seq,
            samples_step=self.samples_step,
            samples_due=self.samples_due,
            monitoring_share=self.monitoring_share,
            processes=self.processes(),
        )
