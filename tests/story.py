"""A store with a history, written by the functions that the engine uses: runs, steps,
checkpoints, versions, a crash and a rollback."""

from __future__ import annotations

from typing import Any

from queue_store import head, intake, records, transitions
from queue_store.database import State, open_state
from queue_store.home import Home
from queue_store.items import Item, Priority
from queue_store.metrics import Metrics, Sample, StepMetric, Validation

ROW = b'{"messages":[{"role":"user","content":"1+1"},{"role":"assistant","content":"2"}]}\n'


class Story:
    """One home's engine by hand. Losses are 100 - step, or what the test gives."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.state: State = open_state(home)
        self.metrics = Metrics(home)
        self.step = 0
        self.run: records.Run | None = None

    def item(self, name: str = "a.jsonl", priority: Priority = Priority.NORMAL) -> Item:
        path = self.home.root / name
        path.write_bytes(ROW * 100)
        return intake.add_file(self.state, path, priority=priority)

    def claim(self) -> Item:
        item = transitions.claim(self.state)
        assert item is not None
        transitions.prepared(
            self.state,
            item.id,
            key="k",
            settings={},
            rows=100,
            epochs=1,
            steps=50,
            held_out=0,
            report={},
        )
        return transitions.training(self.state, item.id, f"{item.name} trains")

    def begin(self) -> None:
        """The process starts: a run from the head on."""
        if records.head(self.state) is None:
            records.start(self.state, "0" * 64, "builtin:tiny")
        self.run = records.start_run(self.state)
        self.step = self.run.step

    def train(self, steps: int, item: int = 1, losses: dict[int, float] | None = None) -> None:
        assert self.run is not None
        for _ in range(steps):
            self.step += 1
            loss = (losses or {}).get(self.step, 100.0 - self.step)
            row = StepMetric(
                branch=self.run.branch,
                step=self.step,
                item=item,
                cursor_from=(self.step - 1) * 2,
                cursor_to=self.step * 2,
                loss=loss,
                learning_rate=1e-3,
                grad_norm=1.0,
                tokens=100,
                seconds=0.5,
                memory=1000,
            )
            self.metrics.add_step(self.run.id, row)
        self.metrics.flush()

    def validate(self, losses: dict[str, tuple[float, int]]) -> None:
        """{set: (loss, tokens)} at the present step."""
        assert self.run is not None
        tick = [
            Validation(self.run.branch, self.step, name, loss, tokens, 0.1)
            for name, (loss, tokens) in losses.items()
        ]
        self.metrics.add_validations(self.run.id, tick)

    def sample(self, exact: dict[str, bool]) -> None:
        assert self.run is not None
        self.metrics.add_samples(
            self.run.id,
            [
                Sample(self.run.branch, self.step, e, f"at {self.step}", right, 0.5, 3, 0.01)
                for e, right in exact.items()
            ],
        )

    def checkpoint(self, item: int = 1, digest: str = "w" * 64) -> records.Checkpoint:
        assert self.run is not None
        name = f"checkpoint-{self.step}-r{self.run.id}"
        (self.home.checkpoints / name).mkdir()
        return records.commit_checkpoint(
            self.state,
            name=name,
            branch=self.run.branch,
            step=self.step,
            run=self.run.id,
            item=item,
            cursors={item: (self.step * 2, self.step)},
            size_bytes=1000,
            loss=100.0 - self.step,
            val_loss=None,
            learning_rate=1e-3,
            manifest_digest="m",
            weights_digest=digest,
        )

    def version(self, point: records.Checkpoint, name: str, state: str = "verified") -> None:
        with self.state.transaction() as db:
            db.execute(
                "INSERT INTO versions(name, kind, scope, state, checkpoint, branch, step, created,"
                " description, size_bytes, verified_at, loss, manifest_digest, weights_digest)"
                " VALUES(?, 'manual', 'whole', ?, ?, ?, ?, 1.0, '', 1000, 2.0, ?, 'm', ?)",
                (
                    *(name, state, point.id, point.branch, point.step, point.loss),
                    point.weights_digest,
                ),
            )

    def roll_back(self, point: records.Checkpoint) -> None:
        head.move_head(self.state, point, why="rollback", rolled_back=True)

    def done(self, item: int) -> None:
        transitions.trained(self.state, item, self.step)

    def close(self) -> None:
        self.metrics.close()
        self.state.close()


def nulls(value: Any, at: str = "") -> list[str]:
    """Where in a JSON value a null stands."""
    if value is None:
        return [at]
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in nulls(v, f"{at}.{k}")]
    if isinstance(value, list):
        return [p for n, v in enumerate(value) for p in nulls(v, f"{at}[{n}]")]
    return []
