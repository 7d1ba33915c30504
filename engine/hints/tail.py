"""What the rules over losses need of metrics.db: the newest steps and validations of the line.

Every query is a range of the index (run, step) read from its end with a limit, so that a look
costs the same after a million steps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.hints.loss import PLATEAU_STEPS, Step, Tick
from engine.lines import Segment
from queue_store.compared import steps_before
from queue_store.metrics import VAL_LOSS

TICKS = 200
"""Validations looked at: with eval_steps = 50, the last 10,000 steps."""
PEAK_STEPS = 200
"""An item's steps, the newest, whose memory is looked at."""
PAIRED = 20
"""Validations, the newest, that are compared with the training loss before them."""


def newest_step(db: sqlite3.Connection, line: Sequence[Segment]) -> tuple[int, int]:
    """(run, step) of the line's last step on record; (0, 0) without one."""
    for part in reversed(line):
        row = db.execute(
            "SELECT MAX(step) FROM steps WHERE run = ? AND step > ? AND step <= ?",
            (part.run, part.low, part.high),
        ).fetchone()
        if row[0] is not None:
            return part.run, int(row[0])
    return 0, 0


def steps(
    db: sqlite3.Connection, line: Sequence[Segment], count: int = PLATEAU_STEPS
) -> list[Step]:
    """The newest `count` steps with a loss, oldest first."""
    found: list[Step] = []
    for part in reversed(line):
        if len(found) >= count:
            break
        rows = db.execute(
            "SELECT step, item, loss FROM steps WHERE run = ? AND step > ? AND step <= ?"
            " AND loss IS NOT NULL ORDER BY step DESC LIMIT ?",
            (part.run, part.low, part.high, count - len(found)),
        )
        found += [Step(*row) for row in rows]
    found.reverse()
    return found


def peak(db: sqlite3.Connection, item: int) -> int:
    """The highest memory in bytes of an item's last steps, 0 without one."""
    row = db.execute(
        "SELECT MAX(memory) FROM (SELECT memory FROM steps WHERE item = ?"
        " ORDER BY run DESC, step DESC LIMIT ?)",
        (item, PEAK_STEPS),
    ).fetchone()
    return int(row[0] or 0)


def ticks(db: sqlite3.Connection, line: Sequence[Segment], count: int = TICKS) -> list[Tick]:
    """The newest `count` validations, oldest first; the newest PAIRED of them with the training
    loss before them."""
    found: list[Tick] = []
    for part in reversed(line):
        if len(found) >= count:
            break
        rows = db.execute(
            "SELECT step, loss FROM validations WHERE run = ? AND step > ? AND step <= ?"
            " AND name = ? AND loss IS NOT NULL ORDER BY step DESC LIMIT ?",
            (part.run, part.low, part.high, VAL_LOSS, count - len(found)),
        ).fetchall()
        for step, val in rows:
            item, train = _before(db, part, step) if len(found) < PAIRED else (0, None)
            found.append(Tick(step, item, val, train))
    found.reverse()
    return found


def _before(db: sqlite3.Connection, part: Segment, step: int) -> tuple[int, float | None]:
    """The item that trained up to `step`, and the mean of its losses in the steps before it, None
    where those are too few."""
    rows = db.execute(
        "SELECT item, loss FROM steps WHERE run = ? AND step > ? AND step <= ? ORDER BY step DESC",
        (part.run, max(part.low, step - max(1, steps_before(step))), step),
    ).fetchall()
    if not rows:
        return 0, None
    item = int(rows[0][0])
    losses = [row[1] for row in rows if row[0] == item and row[1] is not None]
    enough = losses and steps_before(step)
    return item, sum(losses) / len(losses) if enough else None
