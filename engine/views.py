"""What faces read: the store as the JSON shapes that the design promises.

Used by the server's threads, by commands and by consoles, with an engine or without. An object
belongs to the thread that uses it first. Reads only, and never waits for an engine. Imports
little: `trainctl status` answers in 200 ms, so what only versions need is imported there.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import orjson

from engine import lines, shapes
from engine.messages import EngineState, Mode, known, unknown
from engine.status import disk_status, engine_status, free_limit, item_status, model_status, status
from queue_store import config, journal, lineage, lock, queue, records
from queue_store.database import (
    State,
    open_metrics,
    open_state,
    read_only,
    read_only_metrics,
)
from queue_store.errors import NotFound
from queue_store.failures import advice
from queue_store.home import Home
from queue_store.items import ENDED, RUNNABLE, Item, ItemState

_NO_ENGINE = "no engine is running"
_SILENT = "the engine does not answer yet"


class Views:
    """Reads one home's store. `close` it, from the same thread."""

    def __init__(
        self, home: Home, closing: threading.Event | None = None, *, read_only: bool = False
    ) -> None:
        self.home = home
        self.read_only = read_only
        """The disk fails: nothing may be written to it, not even a database's index."""
        self.closing = closing or threading.Event()
        """Set when who asks ends: what takes long breaks off."""

    @cached_property
    def state(self) -> State:
        """This object's connection to state.db."""
        return read_only(self.home) if self.read_only else open_state(self.home)

    @cached_property
    def metrics(self) -> sqlite3.Connection:
        return read_only_metrics(self.home) if self.read_only else open_metrics(self.home)

    def close(self) -> None:
        """Close what was opened. Idempotent."""
        for name in ("state", "metrics"):
            opened = self.__dict__.pop(name, None)
            if opened is not None:
                opened.close()

    def __enter__(self) -> Views:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- status --------------------------------------------------------------------------------

    def live(self) -> bool:
        """Whether an engine runs for this home (the lock of a command does not count)."""
        who = lock.holder(self.home)
        return who is not None and who.get("mode") in set(Mode)

    def line(self) -> list[lines.Segment]:
        """The steps that made the present model, oldest first."""
        return lines.segments(records.line(self.state, live=self.live()))

    def status(self) -> dict[str, Any]:
        """The status as far as the store knows it, the rest unknown with the reason: `stopped`, or
        `starting` where an engine holds the home and its socket does not answer yet."""
        who = lock.holder(self.home) if self.live() else None
        why = _SILENT if who else _NO_ENGINE
        settings = config.load(self.home.config)
        head = records.head(self.state)
        row = lines.newest_row(self.metrics, self.line())
        point = head.checkpoint if head else None
        size = point.size_bytes if point else None
        item = self._unfinished()
        return status(
            state=EngineState.STARTING if who else EngineState.STOPPED,
            branch=head.branch if head else None,
            global_step=point.step if point else 0,
            loss=None if row is None else known(row["loss"], shapes.NOT_A_NUMBER),
            val_loss=point.val_loss if point else None,
            learning_rate=None if row is None else row["learning_rate"],
            tokens_per_second=unknown(why),
            eta_seconds=unknown(why),
            monitoring_share=unknown(why),
            item=item,
            queue=queue.waiting_by_priority(self.state),
            head_checkpoint=point.name if point else None,
            head_version=records.version_name(self.state, point.id) if point else None,
            model=model_status(name=settings.model.name, method=settings.model.method, why=why),
            gpus=unknown(why),
            ram=unknown(why),
            cpu=unknown(why),
            process=unknown(why),
            disk=disk_status(
                self.home.store, size, free_limit(settings.snapshots.stop_free, size or 0)
            ),
            engine=who
            and engine_status(
                pid=who["pid"],
                supervisor_pid=who.get("supervisor_pid"),
                mode=who["mode"],
                started=who["started"],
            ),
            events_seq=journal.last_seq(self.state),
            samples_step=self._newest_sample_step(self.line()),
            paused=bool(self.state.meta_get("paused", False)),
            hint=self._hint(settings) if settings.backups else "",
        )

    def _hint(self, settings: config.Config) -> str:
        """What the last engine could not do and a person can mend."""
        from snapshots import backup

        return next(iter(backup.hints(self.state, settings)), "")

    def _unfinished(self) -> dict[str, Any] | None:
        """The item that goes on when an engine starts, if one was begun."""
        for of in (ItemState.TRAINING, ItemState.PREPARING, ItemState.PAUSED):
            for item in queue.items(self.state, of, limit=1):
                return item_status(
                    id=item.id,
                    name=item.name,
                    priority=item.priority.word,
                    step=item.step,
                    steps=item.steps,
                    rows=item.rows,
                    cursor=item.cursor,
                )
        return None

    # -- the queue -----------------------------------------------------------------------------

    def queue(
        self, state: str | None = None, limit: int | None = None, offset: int = 0
    ) -> list[dict[str, Any]]:
        """Items in the order in which they train, what waits in the inbox after them, then the
        ended ones, newest first. A page of `limit` from `offset` on costs the same at any length
        of the queue."""
        found: list[dict[str, Any]] = []
        for bucket in _buckets(ItemState(state) if state else None):
            left = -1 if limit is None else limit - len(found)
            if left == 0:
                break
            if bucket is None:
                waiting = queue.waiting(self.state)
                found += [shapes.waiting(f) for f in waiting[offset:][: None if left < 0 else left]]
                offset = max(0, offset - len(waiting))
                continue
            where, values = bucket
            if offset:
                sql = f"SELECT COUNT(*) FROM items WHERE {where.partition(' ORDER ')[0]}"
                count = self.state.db.execute(sql, values).fetchone()[0]
                if offset >= count:
                    offset -= count
                    continue
            # What the offset passes over is counted in the index alone, without reading its rows.
            chosen = f"SELECT id FROM items WHERE {where} LIMIT ? OFFSET ?"
            order = where.partition(" ORDER ")[2]
            rows = self.state.db.execute(
                f"SELECT * FROM items WHERE id IN ({chosen}) ORDER {order}",
                (*values, left, offset),
            )
            offset = 0
            found += self._items([Item.of(row) for row in rows])
        return found

    def item(self, item: int) -> dict[str, Any]:
        """One item, as in `queue`, with every rejected line and its preparation's report.

        Raises NotFound.
        """
        found = queue.get(self.state, item)
        return {
            **self._items([found])[0],
            "report": known(found.report, "not prepared yet"),
            "settings": known(found.settings, "not prepared yet"),
            "lineage": lineage.shown(self.state, found),
        }

    def _items(self, items: list[Item]) -> list[dict[str, Any]]:
        attempts: dict[int, list[dict[str, Any]]] = {item.id: [] for item in items}
        ids = orjson.dumps(list(attempts)).decode()
        for row in self.state.db.execute(
            "SELECT item, n, started, ended, cause, error FROM attempts"
            " WHERE item IN (SELECT value FROM json_each(?)) ORDER BY item, n",
            (ids,),
        ):
            entry = dict(row)
            attempts[entry.pop("item")].append(
                {
                    **entry,
                    "ended": known(entry["ended"], "still under way"),
                    "advice": advice(entry["cause"]),
                }
            )
        return [shapes.item(item, attempts[item.id]) for item in items]

    # -- checkpoints, versions, rollback --------------------------------------------------------

    def checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints on disk, oldest first."""
        from snapshots import listing

        rows = listing.checkpoints_json(self.state)
        return [{**row, "item": known(row["item"], "no item was training")} for row in rows]

    def versions(self) -> list[dict[str, Any]]:
        """The versions, oldest first, each with why it is kept and its samples."""
        from engine import versionrows

        return versionrows.rows(self.home, self.state, self.metrics)

    def rollback_plan(self, version: str | None = None) -> dict[str, Any]:
        """What a rollback would lose and keep; see plans. Raises NotFound, Refused."""
        from engine import plans

        return plans.rollback_plan(self.state, self.metrics, version, self.line())

    # -- history -------------------------------------------------------------------------------

    def history(
        self,
        item: int | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> list[dict[str, Any]]:
        """Every step measured, in the order in which they ran, those taken back included; of one
        item, or from step `start` to `end`, where given."""
        return list(self.steps(item, start, end))

    def steps(
        self,
        item: int | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """`history`, a row at a time."""
        spans = {part.run: part for part in self.line()}
        where, values = ["1"], []
        for column, sign, value in (
            ("item", "=", item),
            ("step", ">=", start),
            ("step", "<=", end),
        ):
            if value is not None:
                where.append(f"{column} {sign} ?")
                values.append(value)
        for row in self.metrics.execute(
            f"SELECT * FROM steps WHERE {' AND '.join(where)} ORDER BY id", values
        ):
            span = spans.get(row["run"])
            taken_back = span is None or row["step"] > span.high
            yield shapes.step(row, taken_back)

    def events(
        self,
        after: int = 0,
        limit: int = 500,
        kinds: Iterable[str] | None = None,
        item: int | None = None,
    ) -> dict[str, Any]:
        """{events: those after a sequence number, oldest first; last: the newest number}."""
        found = journal.events(self.state, after, limit, kinds, item)
        return {"events": [shapes.event(e) for e in found], "last": journal.last_seq(self.state)}

    def latest_events(self, count: int = 200) -> dict[str, Any]:
        """The newest `count` events, oldest first, as `events`."""
        found = journal.latest(self.state, count)
        return {"events": [shapes.event(e) for e in found], "last": journal.last_seq(self.state)}

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
            from engine import plans
            from snapshots import versions

            found = versions.get(self.state, version)
            branch = found.branch
            point = records.checkpoint(self.state, found.checkpoint)
            line = lines.segments(plans.checkpoint_line(self.state, point))
        reduced = lines.series(self.metrics, line, metric, width=width, start=start, end=end)
        return {**reduced, "branch": known(branch, "no head yet")}

    def samples(
        self, step: int | None = None, example: str | None = None, limit: int = 500
    ) -> dict[str, Any]:
        """What the model answered, on the present line: {step, steps, exact, total, samples}.

        All examples at the newest tick (at or before `step`), or one example at all ticks.
        `steps` are those of all ticks; `exact` counts the right answers among `samples`.
        """
        line = self.line()
        if example is not None:
            found = self._answers(line, "example = ?", (example,), limit)
            if not found and not self._example(example):
                raise NotFound(f"no example {example!r}", mend="trainctl samples lists them")
            at: Any = found[-1]["step"] if found else None
        else:
            at = self._newest_sample_step(line, step)
            found = [] if at is None else self._answers(line, "s.step = ?", (at,), limit)
        return {
            "step": known(at, "no samples yet"),
            "steps": self._sample_steps(line),
            "exact": sum(one["exact"] for one in found),
            "total": len(found),
            "samples": found,
        }

    def _newest_sample_step(self, line: list[lines.Segment], step: int | None = None) -> int | None:
        for part in reversed(line):
            high = part.high if step is None else min(part.high, step)
            row = self.metrics.execute(
                "SELECT MAX(step) FROM samples WHERE run = ? AND step > ? AND step <= ?",
                (part.run, part.low, high),
            ).fetchone()
            if row[0] is not None:
                return int(row[0])
        return None

    def _sample_steps(self, line: list[lines.Segment]) -> list[int]:
        sql = "SELECT DISTINCT step FROM samples WHERE run = ? AND step > ? AND step <= ?"
        found = (self.metrics.execute(sql, (p.run, p.low, p.high)) for p in line)
        return sorted(row[0] for rows in found for row in rows)

    def _answers(
        self, line: list[lines.Segment], where: str, values: tuple[Any, ...], limit: int
    ) -> list[dict[str, Any]]:
        sql = (
            "SELECT s.branch, s.step, s.example, e.set_name AS set_name, e.position, e.prompt,"
            " e.expected, e.skill, e.level, s.answer, s.exact, s.similarity, s.tokens, s.seconds,"
            " s.time FROM samples s JOIN examples e ON e.id = s.example"
            f" WHERE {where} AND s.run = ? AND s.step > ? AND s.step <= ?"
            " ORDER BY s.step, e.position LIMIT ?"
        )
        found: list[dict[str, Any]] = []
        for part in line:
            for row in self.metrics.execute(sql, (*values, part.run, part.low, part.high, limit)):
                answer = dict(row)
                answer["set"] = answer.pop("set_name")
                answer["level"] = known(answer["level"], "the set names no level")
                found.append({**answer, "exact": bool(answer["exact"])})
        return found[-limit:]

    def _example(self, example: str) -> bool:
        sql = "SELECT 1 FROM examples WHERE id = ?"
        return self.metrics.execute(sql, (example,)).fetchone() is not None


def _buckets(
    state: ItemState | None,
) -> Iterator[tuple[str, tuple[Any, ...]] | None]:
    """The queue's order as conditions that the index (state, priority, position) answers; None
    stands for what waits in the inbox."""
    one = "state = ? AND priority = ? ORDER BY position"
    if state in ENDED:
        yield "+state = ? ORDER BY id DESC", (state,)
    elif state is ItemState.WAITING:
        yield None
    elif state is not None:
        yield from ((one, (state, priority)) for priority in range(3))
    else:
        for busy in (ItemState.TRAINING, ItemState.PREPARING):
            yield from ((one, (busy, priority)) for priority in range(3))
        for priority in range(3):
            yield from ((one, (of, priority)) for of in RUNNABLE)
        yield None
        yield from ((one, (ItemState.TRAINED, priority)) for priority in range(3))
        # By id, not by the index: a page of the newest of many ended items needs no sort.
        yield "+state IN (?, ?, ?, ?) ORDER BY id DESC", ENDED
