"""An item: a queued file, its states, and the moves between them.

`trained` means that every row has trained and no checkpoint contains it yet; the transaction
of the checkpoint that does makes it `done`. `paused` is unfinished and not stepping.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

import orjson

from queue_store.errors import UsageError


class ItemState(StrEnum):
    WAITING = "waiting"
    """In the inbox and not complete yet; has no item row."""
    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    PAUSED = "paused"
    TRAINED = "trained"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    REJECTED = "rejected"


S = ItemState
ALLOWED: dict[ItemState, frozenset[ItemState]] = {
    S.WAITING: frozenset({S.QUEUED, S.REJECTED}),
    S.QUEUED: frozenset({S.PREPARING, S.SKIPPED, S.FAILED, S.PAUSED, S.DONE}),
    S.PREPARING: frozenset(
        {S.TRAINING, S.PAUSED, S.QUEUED, S.FAILED, S.SKIPPED, S.TRAINED, S.DONE}
    ),
    S.TRAINING: frozenset({S.PAUSED, S.TRAINED, S.FAILED, S.SKIPPED, S.QUEUED, S.DONE}),
    S.PAUSED: frozenset({S.PREPARING, S.SKIPPED, S.FAILED, S.QUEUED, S.TRAINED, S.DONE}),
    S.TRAINED: frozenset({S.DONE, S.QUEUED, S.PAUSED, S.SKIPPED}),
    S.DONE: frozenset({S.QUEUED, S.PAUSED, S.SKIPPED}),
    S.FAILED: frozenset({S.QUEUED, S.PAUSED, S.DONE}),
    S.SKIPPED: frozenset({S.QUEUED, S.PAUSED, S.DONE}),
    S.REJECTED: frozenset(),
}
"""The moves that may be made; transitions.move_state is the one place that makes them. Anything
that trained can become done: a restored version may contain the whole of it."""

RUNNABLE = (S.PAUSED, S.QUEUED)
ENDED = (S.DONE, S.FAILED, S.SKIPPED, S.REJECTED)


class Priority(IntEnum):
    HIGH = 0
    NORMAL = 1
    LOW = 2

    @property
    def word(self) -> str:
        return self.name.lower()

    @staticmethod
    def of(word: str) -> Priority:
        """The priority by its word. Raises UsageError."""
        try:
            return Priority[word.upper()]
        except KeyError:
            raise UsageError(f"unknown priority {word!r}", mend="high, normal or low") from None


@dataclass(frozen=True)
class Attempt:
    """One try of an item: times in seconds since the epoch; `cause` of its end ("" until then)."""

    n: int
    started: float
    ended: float | None
    cause: str
    error: str


@dataclass(frozen=True)
class Item:
    """A row of the queue. `cursor` and `step` (of the item) are those of the head: what trained
    since the newest checkpoint is known to the engine alone."""

    id: int
    name: str
    digest: str
    file: str
    source: str
    size: int
    state: ItemState
    priority: Priority
    position: float
    spec: str
    lines: int
    accepted: int
    rejected: list[dict[str, Any]]
    badge: dict[str, Any]
    rows: int | None
    epochs: int | None
    steps: int | None
    held_out: int | None
    report: dict[str, Any] | None
    prepared: str | None
    settings: dict[str, Any] | None
    cursor: int
    step: int
    crashes: int
    crashed_at: int
    not_before: float
    reason: str
    error: str
    trained_order: int | None
    created: float
    updated: float

    @staticmethod
    def of(row: sqlite3.Row) -> Item:
        values = dict(row)
        for key in ("rejected", "badge"):
            values[key] = orjson.loads(values[key])
        for key in ("report", "settings"):
            values[key] = None if values[key] is None else orjson.loads(values[key])
        values["state"] = ItemState(values["state"])
        values["priority"] = Priority(values["priority"])
        return Item(**values)

    @property
    def runnable(self) -> bool:
        return self.state in RUNNABLE
