"""What the model answered to the fixed examples, on the line of the present model.

Reads metrics.db for Views. Answers of steps that were taken back (a crash, a rollback) stay on
record and are not given here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import orjson

from engine import lines
from engine.messages import known, unknown
from engine.reading.courses import Course, counts, courses
from queue_store import config as configuration
from queue_store.config import Config
from queue_store.errors import NotFound, TrainctlError
from queue_store.heldout import set_files
from queue_store.home import Home
from queue_store.metrics import item_of

Mark = tuple[int, str, bool, float]
"""(step, example, exact, similarity)."""

_WITHIN = "s.run = ? AND s.step >= ? AND s.step <= ?"
"""A run's ticks on the line, that at the step where it began included: an item that begins there is
asked before its first step. Two runs may so have a tick at one step, of the same weights."""


def samples(
    home: Home,
    metrics: sqlite3.Connection,
    line: list[lines.Segment],
    step: int | None = None,
    example: str | None = None,
    limit: int = 500,
) -> dict[str, Any]:
    """{step, steps, exact, total, item_exact, item_total, changes, samples}: all examples at the
    newest tick (at or before `step`), or one example at all ticks, the newest `limit` of them.

    `steps` are those of all ticks; `exact` counts the right answers among `samples` that are of
    held-out sets, `item_exact` among those that are rows of the item that trained; `changes` are
    {improving, regressing, stable, new} at that tick, each example against its own tick before
    (see courses). Of each sample `learned`, `lost` and `change` say how its example went. Without
    any tick, `step` is unknown with what would have to be done. Raises NotFound.
    """
    if example is not None:
        found = _answers(metrics, line, "s.example = ?", (example,), limit)
        if not found and not _is_known(metrics, example):
            raise NotFound(f"no example {example!r}", mend="trainctl samples lists them")
        at: Any = found[-1]["step"] if found else None
    else:
        at = newest_step(metrics, line, step)
        found = [] if at is None else _answers(metrics, line, "s.step = ?", (at,), limit)
    told = courses(marks(metrics, line, examples={one["example"] for one in found}))
    for one in found:
        one |= _course(told[one["step"], one["example"]])
    held_out = [one for one in found if isinstance(one["item"], dict)]
    of_item = [one for one in found if not isinstance(one["item"], dict)]
    return {
        "step": known(at, "" if at is not None else why_none(home)),
        "steps": _steps(metrics, line),
        "exact": sum(one["exact"] for one in held_out),
        "total": len(held_out),
        "item_exact": sum(one["exact"] for one in of_item),
        "item_total": len(of_item),
        "changes": counts(told, -1 if at is None else at),
        "samples": found,
    }


def _course(course: Course) -> dict[str, Any]:
    never = "not right so far"
    right = "right at this tick" if course.learned is not None else never
    return {
        "learned": known(course.learned, never),
        "lost": known(course.lost, right),
        "since": known(course.since, "its first tick"),
        "change": course.change,
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


def marks(
    metrics: sqlite3.Connection,
    line: list[lines.Segment],
    after: int = -1,
    examples: Collection[str] | None = None,
) -> list[Mark]:
    """How right every answer of every tick after step `after` was, by step; those of `examples`
    alone where given."""
    sql = f"SELECT s.step, s.example, s.exact, s.similarity FROM samples s WHERE {_WITHIN}"
    chosen = [] if examples is None else [orjson.dumps(list(examples)).decode()]
    if examples is not None:
        sql += " AND s.example IN (SELECT value FROM json_each(?))"
    found = {
        (int(row[0]), str(row[1])): (bool(row[2]), float(row[3]))
        for part in line
        if part.high > after
        for row in metrics.execute(sql, (part.run, max(part.low, after + 1), part.high, *chosen))
    }
    ordered = sorted(found.items(), key=lambda mark: mark[0][0])
    return [(step, example, *right) for (step, example), right in ordered]


def why_none(home: Home) -> str:
    """Why there are no samples, and what to do; as far as the home's files tell."""
    try:
        config = configuration.load(home.config)
        files = set_files(home)
    except (TrainctlError, OSError) as error:
        return f"no samples yet ({error})"
    chosen = set(config.evaluation.sets) or set(files)
    here = not config.samples_on_host
    told, every = config.samples, config.training.sample_steps
    for off, keys in (
        (
            here and not told.count and not told.item_count,
            "samples.count = 0 and samples.item_count = 0",
        ),
        (
            here and not every and not told.schedule,
            "training.sample_steps = 0 and samples.schedule = []",
        ),
        (here and not config.training.monitoring_budget, "training.monitoring_budget = 0"),
        (not here and not told.count, "samples.count = 0, and the rows of items are not asked"),
    ):
        if off:
            return f"samples are switched off: {keys} in config.toml"
    of_items = told.item_count if here else 0
    if not of_items and not files:
        return (
            "no held-out examples: put JSONL files into the home's evaluation/ folder, for example"
            " trainctl data make syllo --level 1 --count 50 --held-out -o evaluation/syllo.jsonl"
        )
    if not of_items and not chosen & set(files):
        named = ", ".join(sorted(chosen))
        return f"evaluation.sets in config.toml names {named}, and evaluation/ has no such file"
    if not here:
        return f"no samples yet: {_from_hosts(config)}"
    when = [f"at a step that {every} divides (training.sample_steps)"] if every else []
    when += ["as a file begins to train (samples.schedule)"] if told.schedule else []
    return (
        f"no samples yet: the next come {' and '.join(when)},"
        f" once {config.training.monitoring_budget:.0%} of the training time (monitoring_budget)"
        " leaves room for it"
    )


def _from_hosts(config: Config) -> str:
    """When the next samples come where a host answers them."""
    rules, hosts = config.evaluation, ", ".join(config.hosts)
    when = [
        *(["after an item (evaluation.after_item)"] if rules.after_item else []),
        *(
            [f"every {rules.checkpoint_steps} steps (evaluation.checkpoint_steps)"]
            if rules.checkpoint_steps
            else []
        ),
        *(["with each version (evaluation.versions)"] if rules.versions else []),
    ]
    asked = " and ".join(when) or "when trainctl evaluate --queue asks for them"
    return f"they are answered by {hosts} (samples.where), {asked}; trainctl jobs shows how far"


def _steps(metrics: sqlite3.Connection, line: list[lines.Segment]) -> list[int]:
    sql = f"SELECT DISTINCT s.step FROM samples s WHERE {_WITHIN}"
    found = (metrics.execute(sql, (p.run, p.low, p.high)) for p in line)
    return sorted({row[0] for rows in found for row in rows})


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
        " s.seconds, s.host, s.time FROM samples s JOIN examples e ON e.id = s.example"
        f" WHERE {where} AND {_WITHIN} ORDER BY s.step DESC, e.position DESC LIMIT ?"
    )
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for part in line:
        rows = metrics.execute(sql, (*values, part.run, part.low, part.high, limit)).fetchall()
        for row in reversed(rows):
            answer = dict(row)
            of, own = answer.pop("set_name"), item_of(answer["example"])
            answer["set"] = unknown(f"a row of the item {of}") if own is not None else of
            answer["item"] = known(own, f"of the set {of}")
            answer["level"] = known(answer["level"], "the set names no level")
            host = answer["host"] or None
            why = f"{host} measures none" if host else "not measured at this tick"
            answer["expected_loss"] = known(answer["expected_loss"], why)
            answer["host"] = known(host, "the training process answered")
            key = answer["step"], answer["example"]
            found[key] = {**answer, "exact": bool(answer["exact"])}
    return list(found.values())[-limit:]


def _is_known(metrics: sqlite3.Connection, example: str) -> bool:
    sql = "SELECT 1 FROM examples WHERE id = ?"
    return metrics.execute(sql, (example,)).fetchone() is not None
