"""What lies along the line of the present model: metrics, marks, branches left, one step's facts.

Part of Views. Reads only. The cost of everything here but `series` grows with the number of runs
and items, never with the number of steps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from engine import lines
from engine.lines import EVERY_STEP, Segment
from engine.messages import known, unknown
from engine.reading import shapes
from queue_store import records
from queue_store.database import State
from queue_store.metrics import VAL_LOSS

FAILURES = ("item.failed", "item.retry", "engine.crashed")
"""Kinds of events that are shown as failures."""
FAILURES_SHOWN = 500
LEFT_SHOWN = 8
"""Branches left that are read, the newest."""


@dataclass(frozen=True)
class Left:
    """A stretch of steps that the present line does not have: it leaves it after step `fork` and
    went on to step `last` in `parts`, oldest first."""

    branch: int
    fork: int
    last: int
    parts: tuple[Segment, ...]


class History:
    """The part of Views that looks along the line."""

    def __init__(self) -> None:
        self._left_read: dict[object, dict[str, Any]] = {}
        """What `left_branches` read the last time."""

    @cached_property
    def state(self) -> State:
        raise NotImplementedError

    @cached_property
    def metrics(self) -> sqlite3.Connection:
        raise NotImplementedError

    def line(self) -> list[Segment]:
        """The steps that made the present model, oldest first."""
        raise NotImplementedError

    def series(
        self,
        metric: str,
        width: int = 1000,
        start: int | None = None,
        end: int | None = None,
        version: str | None = None,
    ) -> dict[str, Any]:
        """A metric along the present line (or a version's), reduced; see lines.series."""
        if version is None:
            head = records.head(self.state)
            branch, line = (head.branch if head else None), self.line()
        else:
            from snapshots import versions

            found = versions.get(self.state, version)
            branch = found.branch
            line = lines.line_of(self.state, found.checkpoint)
        reduced = lines.series(self.metrics, line, metric, width=width, start=start, end=end)
        return {**reduced, "branch": known(branch, "no head yet")}

    def left_branches(
        self, metric: str, width: int = 1000, start: int | None = None, end: int | None = None
    ) -> list[dict[str, Any]]:
        """The branches that the present line left, the newest first, each as `series` is, with
        `name` of the newest version that was made of it ("" without one), `fork`, the last step
        that it shares with the present line, and `tip`, its last one."""
        found = []
        read: dict[object, dict[str, Any]] = {}
        for left in left_behind(self.state, self.metrics, self.line())[:LEFT_SHOWN]:
            # Steps that were left never change, and this is asked with every event.
            key = (left.parts, metric, width, start, end)
            read[key] = self._left_read.get(key) or lines.series(
                self.metrics, list(left.parts), metric, width=width, start=start, end=end
            )
            name = _kept_as(self.state, left)
            more = {"branch": left.branch, "name": name, "fork": left.fork, "tip": left.last}
            found.append({**read[key], **more})
        self._left_read = read
        return found

    def marks(self) -> list[dict[str, Any]]:
        """What happened along the line, in the order of steps: {kind, step, name, text}.

        Kinds: `item` (its first step; `item` is its id), `version`, `rollback` (the head was moved
        back: by hand or to undo an item), `failure` (an item's or the engine's; where the steps
        since were taken back, at the step that they began from), `restart`.
        """
        line = self.line()
        found = [
            *_items(self.state, self.metrics, line),
            *_versions(self.state, line),
            *_failures(self.state, self.metrics, line),
        ]
        found += _starts(self.state, line, {m["step"] for m in found if m["kind"] == "failure"})
        return sorted(found, key=lambda mark: int(mark["step"]))

    def step_facts(self, step: int) -> dict[str, Any]:
        """The line's newest step at or before `step`, as in `history`, with `name` of its item and
        `validation`: {step, loss, sets{name: loss}} of the newest tick until then. A `step` before
        the first one has {"unknown": why} for everything."""
        line = [Segment(p.run, p.low, min(p.high, step)) for p in self.line() if p.low < step]
        row = lines.newest_row(self.metrics, line)
        if row is None:
            return unknown("no step before this one")
        names = _names(self.state, (row["item"],))
        return {
            **shapes.step(row, taken_back=False),
            "name": known(names.get(row["item"]), "the item is gone"),
            "validation": self._validation(line),
        }

    def _validation(self, line: list[Segment]) -> dict[str, Any]:
        for part in reversed(line):
            rows = self.metrics.execute(
                "SELECT step, name, loss FROM validations WHERE run = :run AND step = ("
                "SELECT MAX(step) FROM validations WHERE run = :run AND step > :low"
                " AND step <= :high) ORDER BY id",
                {"run": part.run, "low": part.low, "high": part.high},
            ).fetchall()
            if rows:
                losses = {row["name"]: known(row["loss"], shapes.NOT_A_NUMBER) for row in rows}
                whole = losses.pop(VAL_LOSS, unknown("not measured"))
                return {"step": rows[0]["step"], "loss": whole, "sets": losses}
        return unknown("no validation before this step")


# -- which steps are not on the line -----------------------------------------------------------


def left_behind(state: State, metrics: sqlite3.Connection, line: list[Segment]) -> list[Left]:
    """Every stretch of steps that is not on `line`, the newest first; a stretch that forks from
    another one has only its own steps."""
    runs = {row["id"]: row for row in state.db.execute("SELECT * FROM runs")}
    points = _points(state)
    taken = {part.run: part.high for part in line}
    found: list[Left] = []
    for number in sorted(runs, reverse=True):
        last = metrics.execute("SELECT MAX(step) FROM steps WHERE run = ?", (number,)).fetchone()[0]
        if last is None or last <= taken.get(number, -1):
            continue
        chain: list[tuple[int, int]] = [(number, last)]
        while chain[-1][0] not in taken:
            at = _saved_at(points, runs[chain[-1][0]]["checkpoint"])
            if at is None:
                break
            if at[1] <= taken.get(at[0], -1):
                break
            chain.append(at)
        oldest = chain[-1][0]
        fork = taken.get(oldest, int(runs[oldest]["step"]))
        parts = []
        low = fork
        for run, high in reversed(chain):
            parts.append(Segment(run, low, high))
            taken[run] = low = high
        found.append(Left(runs[number]["branch"], fork, last, tuple(parts)))
    return found


def _points(state: State) -> dict[int, sqlite3.Row]:
    """Every checkpoint, those whose files are gone too, by id."""
    rows = state.db.execute("SELECT id, run, step, parent FROM checkpoints")
    return {row["id"]: row for row in rows}


def _saved_at(points: Mapping[int, sqlite3.Row], checkpoint: int) -> tuple[int, int] | None:
    """The run that a checkpoint's state was trained in, and the step at which."""
    at: int | None = checkpoint
    while at is not None and at in points:
        point = points[at]
        if point["run"] is not None:
            return int(point["run"]), int(point["step"])
        at = point["parent"]
    return None


def _kept_as(state: State, left: Left) -> str:
    """The newest version that was made of these steps, "" without one."""
    for part in reversed(left.parts):
        row = state.db.execute(
            "SELECT v.name FROM versions v JOIN checkpoints c ON c.id = v.checkpoint"
            " WHERE c.run = ? AND c.step > ? AND c.step <= ? ORDER BY v.id DESC LIMIT 1",
            (part.run, part.low, part.high),
        ).fetchone()
        if row is not None:
            return str(row[0])
    return ""


# -- marks -------------------------------------------------------------------------------------


def _mark(kind: str, step: int, name: str, text: str) -> dict[str, Any]:
    return {"kind": kind, "step": step, "name": name, "text": text}


def _on(line: list[Segment]) -> dict[int, Segment]:
    return {part.run: part for part in line}


def _names(state: State, items: Iterable[int]) -> dict[int, str]:
    sql = "SELECT id, name FROM items WHERE id IN (SELECT value FROM json_each(?))"
    return dict(state.db.execute(sql, (orjson.dumps(list(items)).decode(),)).fetchall())


def _items(
    state: State, metrics: sqlite3.Connection, line: list[Segment]
) -> Iterable[dict[str, Any]]:
    """The first step of every item on the line."""
    on = _on(line)
    # From one (item, run) of the index to the next one, past all the steps between them.
    rows = metrics.execute(
        "WITH RECURSIVE begun(item, run, step) AS ("
        "SELECT * FROM (SELECT item, run, step FROM steps ORDER BY item, run, step LIMIT 1)"
        " UNION ALL SELECT s.item, s.run, s.step FROM begun b JOIN steps s ON s.id = COALESCE("
        "(SELECT id FROM steps WHERE item = b.item AND run > b.run ORDER BY run, step LIMIT 1),"
        "(SELECT id FROM steps WHERE item > b.item ORDER BY item, run, step LIMIT 1)))"
        " SELECT item, run, step FROM begun"
    )
    first: dict[int, int] = {}
    for item, run, step in rows:
        part = on.get(run)
        if part is not None and part.low < step <= part.high:
            first[item] = min(step, first.get(item, EVERY_STEP))
    names = _names(state, first)
    for item, step in first.items():
        name = names.get(item, f"item {item}")
        yield {**_mark("item", step, name, f"{name} begins"), "item": item}


def _versions(state: State, line: list[Segment]) -> Iterable[dict[str, Any]]:
    on, points = _on(line), _points(state)
    for name, text, checkpoint in state.db.execute(
        "SELECT name, description, checkpoint FROM versions ORDER BY id"
    ):
        run, step = _saved_at(points, checkpoint) or (0, 0)
        if run in on and step <= on[run].high:
            yield _mark("version", step, name, f"version {name}" + (f": {text}" if text else ""))


def _failures(
    state: State, metrics: sqlite3.Connection, line: list[Segment]
) -> Iterable[dict[str, Any]]:
    """The newest failures, where they lie on the line."""
    holes = ",".join("?" * len(FAILURES))
    events = state.db.execute(
        f"SELECT time, text, item FROM events WHERE kind IN ({holes}) ORDER BY seq DESC LIMIT ?",
        (*FAILURES, FAILURES_SHOWN),
    ).fetchall()
    if not events or not line:
        return
    names = _names(state, {event["item"] for event in events if event["item"] is not None})
    runs = state.db.execute("SELECT * FROM runs ORDER BY id").fetchall()
    by_id = {row["id"]: row for row in runs}
    points = _points(state)
    on = _on(line)
    for event in events:
        run = next((r for r in reversed(runs) if r["started"] <= event["time"]), None)
        if run is None:
            continue  # it failed before there was anything to train on
        number, step = int(run["id"]), _step_at(metrics, run, event["time"])
        while number not in on:
            at = _saved_at(points, by_id[number]["checkpoint"])
            if at is None:
                number, step = line[0].run, int(run["step"])
                break
            number, step = at
        step = min(step, on[number].high)
        yield _mark("failure", step, names.get(event["item"], "engine"), event["text"])


def _step_at(metrics: sqlite3.Connection, run: sqlite3.Row, time: float) -> int:
    """The last step of a run until a time, by halving: times grow with the steps of a run."""
    low = int(run["step"])
    last = metrics.execute("SELECT MAX(step) FROM steps WHERE run = ?", (run["id"],)).fetchone()[0]
    high = low if last is None else int(last)
    while low < high:
        middle = (low + high + 1) // 2
        row = metrics.execute(
            "SELECT time FROM steps WHERE run = ? AND step >= ? ORDER BY step LIMIT 1",
            (run["id"], middle),
        ).fetchone()
        if row is not None and row[0] <= time:
            low = middle
        else:
            high = middle - 1
    return low


def _starts(state: State, line: list[Segment], failed: set[int]) -> Iterable[dict[str, Any]]:
    """Where one run of the line goes over into the next: the head was moved back there, or the
    engine started again. What a failure at that step says already is not said twice."""
    branches = {row["id"]: row for row in state.db.execute("SELECT * FROM branches")}
    runs = {row["id"]: row for row in state.db.execute("SELECT id, branch, step FROM runs")}
    before = runs[line[0].run]["branch"] if line else None
    for part in line[1:]:
        run = runs[part.run]
        branch, step = branches[run["branch"]], int(run["step"])
        asked = "rolled back" in branch["why"] or branch["why"].endswith("undone")
        if run["branch"] != before and (asked or step not in failed):
            yield _mark("rollback", step, "", branch["why"])
        elif run["branch"] == before and step not in failed:
            yield _mark("restart", step, "", "training went on in a new run")
        before = run["branch"]
