"""What was measured, step by step: metrics.db.

Rows are never changed: a step that a crash took back stays and is told apart by its run
(records.line). A loss that is not a number is stored as NULL.
Writes come in batches from the engine thread; `flush` before a checkpoint's transaction is a
synced commit, so that no checkpoint is newer than its metrics.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass

from queue_store.database import disk_error, make_room, now, open_metrics
from queue_store.home import Home

VAL_LOSS = "val_loss"
"""The name of the one validation figure of a tick; the rows of single sets stand beside it."""

SPLIT = "split"
"""The name under which an item's own held-out rows are validated."""


ITEM_MARK = "/"
"""How the id of an example of an item begins; a set has a name, so its examples' ids never do."""


def item_example(item: int, digest: str, line: int) -> str:
    """The id of the example that is a row of an item; another file begins new histories."""
    return f"{ITEM_MARK}{item}-{digest[:8]}/line {line}"


def set_example(set_name: str, digest: str, example: str) -> str:
    """The id of an example of a held-out set; a set that was edited begins new histories."""
    return f"{set_name}/{digest[:8]}/{example}"


def _set_of(example: str) -> tuple[str, str]:
    """The name of an example's set, "" for one of an item, and which state of it."""
    name, _, rest = example.partition("/")
    return name, rest.partition("/")[0]


def item_of(example: str) -> int | None:
    """The item whose row an example is, None for one of a held-out set."""
    if not example.startswith(ITEM_MARK):
        return None
    return int(example[len(ITEM_MARK) :].partition("-")[0])


@dataclass(frozen=True)
class StepMetric:
    """One optimizer step. Cursors count rows in training order, on through the epochs; `loss` is
    the mean over the step's trained tokens; `tokens` are real ones (no padding); `seconds` wall
    time; `memory` bytes (device peak, or resident memory on a CPU)."""

    branch: int
    step: int
    item: int
    cursor_from: int
    cursor_to: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    seconds: float
    memory: int


@dataclass(frozen=True)
class Validation:
    """A validation tick: `name` of the set, `loss` weighted by token, `seconds` that it took."""

    branch: int
    step: int
    name: str
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Example:
    """A fixed example of the samples: `prompt` as shown, `expected` the gold answer. `set_name` is
    its set's, or the name of the item that it is a row of (see `item_example`)."""

    id: str
    set_name: str
    position: int
    prompt: str
    expected: str
    skill: str
    level: int | None


@dataclass(frozen=True)
class Sample:
    """What the model answered to an example at a step; `similarity` 0 to 1 (never called loss);
    `expected_loss` the mean loss of the expected answer (nats a token), None = not measured.
    `host` whose worker answered, "" for the training process."""

    branch: int
    step: int
    example: str
    answer: str
    exact: bool
    similarity: float
    tokens: int
    seconds: float
    expected_loss: float | None = None
    host: str = ""


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


@contextmanager
def transaction(home: Home, db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing in metrics.db. Raises OSError where the disk is full or fails."""
    make_room(home)
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    except sqlite3.OperationalError as error:
        raise disk_error(error, home.metrics_db) from error


class Metrics:
    """The engine's writer. One thread only."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.db: sqlite3.Connection = open_metrics(home)
        self._steps: list[tuple[object, ...]] = []

    def add_step(self, run: int, metric: StepMetric) -> None:
        """Keep a step's row until the next flush."""
        m = metric
        self._steps.append(
            (
                run,
                m.branch,
                m.step,
                m.item,
                m.cursor_from,
                m.cursor_to,
                _number(m.loss),
                m.learning_rate,
                _number(m.grad_norm),
                m.tokens,
                m.seconds,
                m.memory,
                now(),
            )
        )

    @property
    def pending(self) -> int:
        """Steps not written yet."""
        return len(self._steps)

    def flush(self) -> None:
        """Write and sync what is pending. Raises OSError: then it stays pending."""
        if not self._steps:
            return
        # Kept until they are written: a disk that is full now may have room at the next flush.
        with self._transaction():
            self.db.executemany(
                "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss,"
                " learning_rate, grad_norm, tokens, seconds, memory, time)"
                " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
                self._steps,
            )
        self._steps = []

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self.home, self.db)

    def add_validations(self, run: int, tick: Sequence[Validation]) -> float | None:
        """Write a tick's rows, one a set, and the one figure of the tick beside them, which is
        returned: `val_loss`, over the fixed sets weighted by token. Only where a home has no
        fixed set do the rows that an item keeps for validation (SPLIT) make it, for they are
        others with every item.
        """
        fixed = [v for v in tick if v.name != SPLIT] or list(tick)
        tokens = sum(v.tokens for v in fixed)
        if not tokens:
            return None
        loss = sum(v.loss * v.tokens for v in fixed) / tokens
        first = fixed[0]
        whole = Validation(first.branch, first.step, VAL_LOSS, loss, tokens, 0.0)
        with self._transaction():
            self.db.executemany(
                "INSERT INTO validations(run, branch, step, name, loss, tokens, seconds, time)"
                " VALUES(?,?,?,?,?,?,?,?)",
                [
                    (run, v.branch, v.step, v.name, _number(v.loss), v.tokens, v.seconds, now())
                    for v in (*tick, whole)
                ],
            )
        return loss

    def set_examples(self, examples: Sequence[Example]) -> None:
        """Make the fixed examples known (those of before stay, for their history)."""
        with self._transaction():
            self.db.executemany(
                "INSERT INTO examples VALUES(?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE"
                " SET position = excluded.position, set_name = excluded.set_name",
                [astuple(e) for e in examples],
            )

    def add_samples(self, run: int, samples: Iterable[Sample]) -> None:
        """Write a sample tick's rows in one transaction."""
        with self._transaction():
            self._insert_samples(run, samples)

    def add_missing_samples(self, run: int, step: int, samples: Iterable[Sample]) -> list[Sample]:
        """Write those answers of one step to examples of sets that are not on record there yet,
        in one transaction, and return them. Where a set was asked there in another state of its
        file, that is the tick, and nothing of this one is added."""
        with self._transaction():
            rows = self.db.execute(
                "SELECT example FROM samples WHERE run = ? AND step = ?", (run, step)
            )
            there = {str(row[0]) for row in rows}
            states = dict(map(_set_of, there))
            added = []
            for one in samples:
                name, state = _set_of(one.example)
                if one.example not in there and states.get(name, state) == state:
                    added.append(one)
            self._insert_samples(run, added)
        return added

    def _insert_samples(self, run: int, samples: Iterable[Sample]) -> None:
        self.db.executemany(
            "INSERT INTO samples(run, branch, step, example, answer, exact, similarity, tokens,"
            " seconds, expected_loss, host, time) VALUES(?,?,?,?,?,?,?,?,?,?,?,?)",
            [
                (
                    *(run, s.branch, s.step, s.example, s.answer, int(s.exact), s.similarity),
                    *(s.tokens, s.seconds),
                    None if s.expected_loss is None else _number(s.expected_loss),
                    *(s.host, now()),
                )
                for s in samples
            ],
        )

    def highest_cursor(self, item: int) -> int:
        """The highest cursor that an item ever reached, on any line; 0 if it never stepped."""
        row = self.db.execute("SELECT MAX(cursor_to) FROM steps WHERE item = ?", (item,)).fetchone()
        return int(row[0] or 0)

    def close(self) -> None:
        self.flush()
        self.db.close()
