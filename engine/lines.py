"""The line of the present model through the runs, and a metric along it.

Every row of metrics.db carries the run that it was measured in. The line says which rows made
the present model; all others were taken back by a crash, an undo or a rollback, and stay on
record. Reads only; arithmetic over many rows is left to SQLite.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.messages import unknown
from queue_store import records
from queue_store.database import State
from queue_store.metrics import VAL_LOSS

_VALUES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "tokens_per_second": "tokens / NULLIF(seconds, 0)",
    "seconds": "seconds",
    "memory": "memory",
}
_STEPS = "SELECT id, run, step, {value} AS value FROM steps WHERE run = :run"
_VALIDATIONS = (
    f"SELECT id, run, step, loss AS value FROM validations WHERE run = :run AND name = '{VAL_LOSS}'"
    " AND step > :low AND step <= :high"
)


@dataclass(frozen=True)
class Segment:
    """Rows of `run` with `low` < step <= `high`."""

    run: int
    low: int
    high: int


EVERY_STEP = 1 << 62


def segments(runs: Sequence[tuple[int, int | None]]) -> list[Segment]:
    """The line of records.line (newest first) as ranges of steps, oldest first, without overlap."""
    result: list[Segment] = []
    low = -1
    for run, last in reversed(runs):
        high = EVERY_STEP if last is None else last
        result.append(Segment(run, low, high))
        low = max(low, high)
    return result


def runs_of(state: State, checkpoint: int) -> list[tuple[int, int]]:
    """As records.line, for the model of any checkpoint. Raises NotFound."""
    result: list[tuple[int, int]] = []
    at: int | None = checkpoint
    while at is not None:
        point = records.checkpoint(state, at)
        if point.run is None:
            at = point.parent
            continue
        result.append((point.run, point.step))
        row = state.db.execute("SELECT checkpoint FROM runs WHERE id = ?", (point.run,)).fetchone()
        at = row[0]
    return result


def line_of(state: State, checkpoint: int) -> list[Segment]:
    """The steps that made a checkpoint, oldest first. Raises NotFound."""
    return segments(runs_of(state, checkpoint))


def newest_row(db: sqlite3.Connection, line: list[Segment]) -> sqlite3.Row | None:
    """The metrics row of the line's last step."""
    for part in reversed(line):
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM steps WHERE run = ? AND step > ? AND step <= ?"
            " ORDER BY step DESC LIMIT 1",
            (part.run, part.low, part.high),
        ).fetchone()
        if row is not None:
            return row
    return None


@dataclass
class _Bucket:
    """What the steps of a bucket come to, over the segments that share it."""

    last: int
    last_id: int
    rows: int
    numbers: int
    low: float | None
    high: float | None
    sum: float

    def add(self, other: _Bucket) -> None:
        """Take in a later segment's share."""
        self.last, self.last_id = other.last, other.last_id
        self.rows += other.rows
        self.numbers += other.numbers
        lows = [v for v in (self.low, other.low) if v is not None]
        highs = [v for v in (self.high, other.high) if v is not None]
        self.low, self.high = min(lows, default=None), max(highs, default=None)
        self.sum += other.sum


def series(
    db: sqlite3.Connection,
    line: list[Segment],
    metric: str,
    *,
    width: int,
    start: int | None,
    end: int | None,
) -> dict[str, Any]:
    """The metric along the line, from step `start` to `end` (both included), as at most `width`
    points [step, min, max, mean, last] in the order of steps; `step` is the last of its bucket.

    A value that is no number makes its bucket's mean null; min and max are those of the numbers
    in it, null where there is none. `total` is the number of values that the points stand for,
    `first` and `last` their steps.
    """
    table, value = _table(metric)
    parts = [
        Segment(
            p.run,
            max(p.low, (start or 0) - 1),
            min(p.high, EVERY_STEP if end is None else end),
        )
        for p in line
    ]
    parts = [p for p in parts if p.low < p.high]
    ends = [e for e in (_ends(db, table, p) for p in parts) if e is not None]
    if not ends:
        nothing = unknown("no value in this range")
        return {"metric": metric, "points": [], "first": nothing, "last": nothing, "total": 0}
    first, last = ends[0][0], ends[-1][1]
    size = -(-(last - first + 1) // width)
    buckets: dict[int, _Bucket] = {}
    for part in parts:
        part = Segment(part.run, max(part.low, first - 1), min(part.high, last))
        for number, share in _reduce(db, table, value, part, first, size):
            if number in buckets:
                buckets[number].add(share)
            else:
                buckets[number] = share
    latest = _latest(db, table, value, [b.last_id for b in buckets.values()])
    points = [
        [b.last, b.low, b.high, b.sum / b.rows if b.numbers == b.rows else None, latest[b.last]]
        for _, b in sorted(buckets.items())
    ]
    total = sum(b.rows for b in buckets.values())
    return {"metric": metric, "points": points, "first": first, "last": last, "total": total}


def _table(metric: str) -> tuple[str, str]:
    return ("validations", "") if metric == "val_loss" else ("steps", _VALUES[metric])


def _ends(db: sqlite3.Connection, table: str, part: Segment) -> tuple[int, int] | None:
    where = f"FROM {table} WHERE run = ? AND step > ? AND step <= ?"
    values = (part.run, part.low, part.high)
    low = db.execute(f"SELECT MIN(step) {where}", values).fetchone()[0]
    if low is None:
        return None
    return int(low), int(db.execute(f"SELECT MAX(step) {where}", values).fetchone()[0])


def _rows(table: str, value: str) -> str:
    if table == "validations":
        return _VALIDATIONS
    return _STEPS.format(value=value) + " AND step > :low AND step <= :high"


def _reduce(
    db: sqlite3.Connection, table: str, value: str, part: Segment, first: int, size: int
) -> Iterator[tuple[int, _Bucket]]:
    """The buckets of a segment, each from the index's range of its steps: grouping by an
    expression would sort all rows first, which doubles the time of a million. A bucket a step is
    one walk along the index."""
    if size == 1:
        sql = f"SELECT step, id, value FROM ({_rows(table, value)}) ORDER BY step, id"
        values = {"run": part.run, "low": part.low, "high": part.high}
        for step, id, found in db.execute(sql, values):
            numbers = int(found is not None)
            yield step - first, _Bucket(step, id, 1, numbers, found, found, found or 0.0)
        return
    sql = (
        "SELECT MAX(step), MAX(id), COUNT(*), COUNT(value), MIN(value), MAX(value), TOTAL(value)"
        f" FROM ({_rows(table, value)})"
    )
    for number in range((part.low + 1 - first) // size, (part.high - first) // size + 1):
        start = first + number * size - 1
        low, high = max(part.low, start), min(part.high, start + size)
        row = db.execute(sql, {"run": part.run, "low": low, "high": high}).fetchone()
        if row[2]:
            yield number, _Bucket(*row)


def _latest(
    db: sqlite3.Connection, table: str, value: str, ids: list[int]
) -> dict[int, float | None]:
    """The value of each bucket's last step, by step."""
    chosen = "(SELECT value FROM json_each(?))"
    if table == "validations":
        sql = f"SELECT step, loss FROM validations WHERE id IN {chosen}"
    else:
        sql = f"SELECT step, {value} FROM steps WHERE id IN {chosen}"
    return dict(db.execute(sql, (orjson.dumps(ids).decode(),)).fetchall())
