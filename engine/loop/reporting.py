"""What the run tells: every step to the metrics and the board, every tick to the store."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.loop import saving
from engine.reading.status import item_status
from engine.training.controls import Halved, Place, SampleResult, ValidationResult
from engine.training.examples import judge
from engine.training.items import Ready
from engine.training.ticks import SAMPLES, VALIDATION
from queue_store import durable, journal
from queue_store import transitions as moves
from queue_store.items import Item
from queue_store.metrics import ITEM_MARK, StepMetric, Validation

if TYPE_CHECKING:
    from engine.loop.worker import Worker

LOOKING = {VALIDATION: "measuring the validation loss", SAMPLES: "asking the fixed examples"}
"""What the status says of a tick while it runs."""
FLUSH_STEPS, FLUSH_SECONDS = 64, 0.5
"""Metrics are written in batches of so many steps, or so long after the last one."""


class Reports:
    """The run's Reporter. Runs on the engine thread, between two steps."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._flushed = time.monotonic()
        self._item: Item | None = None
        self._ready: Ready | None = None
        self._step = 0
        self._tick: list[Validation] = []

    @property
    def place(self) -> Place:
        board = self.worker.board
        return Place(board.branch or 0, board.global_step)

    def begin(self, item: Item, ready: Ready) -> None:
        """The item whose steps follow."""
        cursor, _ = self.worker.cursors.get(item.id, (0, 0))
        self._item, self._ready = item, ready
        self._step = ready.plan.position(cursor).step
        self._show(cursor)

    def _show(self, cursor: int) -> None:
        item, ready = self._item, self._ready
        assert item is not None and ready is not None
        self.worker.board.item = item_status(
            id=item.id,
            name=item.name,
            priority=item.priority.word,
            step=self._step,
            steps=ready.plan.steps,
            rows=ready.prepared.rows,
            cursor=cursor,
        )

    def step(self, metric: StepMetric) -> None:
        worker = self.worker
        worker.metrics.add_step(worker.line.id, metric)
        worker.board.step(metric)
        now = time.monotonic()
        if worker.metrics.pending >= FLUSH_STEPS or now - self._flushed > FLUSH_SECONDS:
            worker.flush_metrics()
            self._flushed = now

    def looking(self, kind: str) -> None:
        board = self.worker.board
        board.set(board.state, LOOKING.get(kind, ""))
        self.worker.publish(force=True)

    def validation(self, result: ValidationResult) -> None:
        self._tick.append(
            Validation(
                branch=result.place.branch,
                step=result.place.global_step,
                name=result.name,
                loss=result.loss,
                tokens=result.tokens,
                seconds=result.seconds,
            )
        )

    def _validated(self) -> None:
        """All sets of the tick have reported."""
        tick, self._tick = self._tick, []
        if tick:
            worker = self.worker
            worker.board.val_loss = worker.metrics.add_validations(worker.line.id, tick)

    def samples(self, result: SampleResult) -> None:
        worker = self.worker
        judged = judge(result, worker.watch.fixed, worker.watch.profile)
        worker.metrics.add_samples(worker.line.id, judged)
        worker.board.samples_step = result.place.global_step
        shares: dict[str, list[bool]] = {}
        of_item: list[bool] = []
        for sample in judged:
            name = worker.watch.fixed[sample.example].row.set_name
            own = sample.example.startswith(ITEM_MARK)
            (of_item if own else shares.setdefault(name, [])).append(sample.exact)
        told = [f"{name} {sum(s)}/{len(s)}" for name, s in shares.items()]
        if of_item:
            told.append(f"rows of the item {sum(of_item)}/{len(of_item)}")
        late = ""
        if result.due is not None and result.due != result.place:
            late = f"; due since step {result.due.global_step} (training.monitoring_budget)"
        held_out = [exact for share in shares.values() for exact in share]
        with worker.state.transaction():
            journal.record(
                worker.state,
                "samples",
                f"samples exact: {', '.join(told)}, in {result.seconds:.1f} s{late}",
                item=result.item,
                branch=result.place.branch,
                step=result.place.global_step,
                data={
                    "exact": sum(held_out),
                    "count": len(held_out),
                    "seconds": result.seconds,
                    "sets": {name: [sum(s), len(s)] for name, s in shares.items()},
                    "rows": [sum(of_item), len(of_item)],
                    "item_step": result.item_step,
                    "due": (result.due or result.place).global_step,
                },
            )

    def halved(self, place: Place, halved: Halved) -> None:
        """Frozen with the item and journaled at once: after a kill the same step trains so."""
        worker, item, ready = self.worker, self._item, self._ready
        assert item is not None and ready is not None
        kept = replace(ready.settings, halved=(halved.cursor, halved.after))
        self._ready = replace(ready, settings=kept)
        step = place.global_step + 1
        text = (
            f"step {step:,}: out of memory with batch_size {halved.before} on"
            f" {item.name}:{halved.line}, {halved.tokens:,} tokens; goes on with {halved.after}"
        )
        moves.halved(worker.state, item.id, kept.dump(), text, branch=place.branch, step=step)
        worker.board.tell(
            "warning",
            text,
            f"training.batch_size = {halved.after} is what fits this card",
        )

    def after_step(self, place: Place, cursor: int) -> None:
        worker = self.worker
        assert self._item is not None
        self._step += 1
        worker.cursors[self._item.id] = (cursor, self._step)
        worker.changes += 1
        worker.board.global_step = place.global_step
        worker.board.monitoring_share = worker.watch.monitor.share
        late = worker.watch.monitor.put_off(SAMPLES)
        told = {"step": late.due.global_step, "training_seconds": late.seconds} if late else None
        worker.board.samples_due = told
        self._show(cursor)
        self._validated()
        saving.tend(worker)
        if not worker.board.paused and worker.saver.due(place.global_step, worker.config):
            worker.save(aside=True)
        worker.publish()
        durable.crash_point("step")
