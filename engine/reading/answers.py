"""What the model answered to the fixed examples, on the line of the present model.

Reads metrics.db for Views. Answers of steps that were taken back (a crash, a rollback) stay on
record and are not given here.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from engine import lines
from engine.messages import known
from queue_store import config as configuration
from queue_store.errors import NotFound, TrainctlError
from queue_store.heldout import set_files
from queue_store.home import Home

Mark = tuple[int, str, bool, float]
"""(step, example, exact, similarity)."""

_WITHIN = "s.run = ? AND s.step > ? AND s.step <= ?"


def samples(
    home: Home,
    metrics: sqlite3.Connection,
    line: list[lines.Segment],
    step: int | None = None,
    example: str | None = None,
    limit: int = 500,
) -> dict[str, Any]:
    """{step, steps, exact, total, samples}: all examples at the newest tick (at or before `step`),
    or one example at all ticks, the newest `limit` of them.

    `steps` are those of all ticks; `exact` counts the right answers among `samples`. Without any
    tick, `step` is unknown with what would have to be done. Raises NotFound.
    """
    if example is not None:
        found = _answers(metrics, line, "s.example = ?", (example,), limit)
        if not found and not _is_known(metrics, example):
            raise NotFound(f"no example {example!r}", mend="trainctl samples lists them")
        at: Any = found[-1]["step"] if found else None
    else:
        at = newest_step(metrics, line, step)
        found = [] if at is None else _answers(metrics, line, "s.step = ?", (at,), limit)
    return {
        "step": known(at, "" if at is not None else why_none(home)),
        "steps": _steps(metrics, line),
        "exact": sum(one["exact"] for one in found),
        "total": len(found),
        "samples": found,
    }


def newest_step(
    metrics: sqlite3.Connection, line: list[lines.Segment], step: int | None = None
) -> int | None:
    """The step of the newest tick, at or before `step` where given; None without any."""
    for part in reversed(line):
        high = part.high if step is None else min(part.high, step)
        row = metrics.execute(
            f"SELECT MAX(s.step) FROM samples s WHERE {_WITHIN}", (part.run, part.low, high)
        ).fetchone()
        if row[0] is not None:
            return int(row[0])
    return None


def marks(metrics: sqlite3.Connection, line: list[lines.Segment], after: int = -1) -> list[Mark]:
    """How right every answer of every tick after step `after` was, by step."""
    sql = f"SELECT s.step, s.example, s.exact, s.similarity FROM samples s WHERE {_WITHIN}"
    found = [
        (int(row[0]), str(row[1]), bool(row[2]), float(row[3]))
        for part in line
        if part.high > after
        for row in metrics.execute(sql, (part.run, max(part.low, after), part.high))
    ]
    return sorted(found, key=lambda mark: mark[0])


def why_none(home: Home) -> str:
    """Why there are no samples, and what to do; as far as the home's files tell."""
    try:
        config = configuration.load(home.config)
        files = set_files(home)
    except (TrainctlError, OSError) as error:
        return f"no samples yet ({error})"
    chosen = set(config.evaluation.sets) or set(files)
    for off, key in (
        (not config.samples.count, "samples.count"),
        (not config.training.sample_steps, "training.sample_steps"),
        (not config.training.monitoring_budget, "training.monitoring_budget"),
    ):
        if off:
            return f"samples are switched off: {key} = 0 in config.toml"
    if not files:
        return (
            "no held-out examples: put JSONL files into the home's evaluation/ folder, for example"
            " trainctl data make syllo --level 1 --count 50 --held-out -o evaluation/syllo.jsonl"
        )
    if not chosen & set(files):
        named = ", ".join(sorted(chosen))
        return f"evaluation.sets in config.toml names {named}, and evaluation/ has no such file"
    every = config.training.sample_steps
    return (
        f"no samples yet: the next comes at a step that {every} divides (training.sample_steps),"
        f" once {config.training.monitoring_budget:.0%} of the training time (monitoring_budget)"
        " leaves room for it"
    )


def _steps(metrics: sqlite3.Connection, line: list[lines.Segment]) -> list[int]:
    sql = f"SELECT DISTINCT s.step FROM samples s WHERE {_WITHIN}"
    found = (metrics.execute(sql, (p.run, p.low, p.high)) for p in line)
    return sorted(row[0] for rows in found for row in rows)


def _answers(
    metrics: sqlite3.Connection,
    line: list[lines.Segment],
    where: str,
    values: tuple[Any, ...],
    limit: int,
) -> list[dict[str, Any]]:
    sql = (
        "SELECT s.branch, s.step, s.example, e.set_name AS set_name, e.position, e.prompt,"
        " e.expected, e.skill, e.level, s.answer, s.exact, s.similarity, s.expected_loss, s.tokens,"
        " s.seconds, s.time FROM samples s JOIN examples e ON e.id = s.example"
        f" WHERE {where} AND {_WITHIN} ORDER BY s.step DESC, e.position DESC LIMIT ?"
    )
    found: list[dict[str, Any]] = []
    for part in line:
        rows = metrics.execute(sql, (*values, part.run, part.low, part.high, limit)).fetchall()
        for row in reversed(rows):
            answer = dict(row)
            answer["set"] = answer.pop("set_name")
            answer["level"] = known(answer["level"], "the set names no level")
            answer["expected_loss"] = known(answer["expected_loss"], "not measured at this tick")
            found.append({**answer, "exact": bool(answer["exact"])})
    return found[-limit:]


def _is_known(metrics: sqlite3.Connection, example: str) -> bool:
    sql = "SELECT 1 FROM examples WHERE id = ?"
    return metrics.execute(sql, (example,)).fetchone() is not None
