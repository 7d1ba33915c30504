"""What faces read: the store as the JSON shapes that the design promises.

Used by the server's threads, by commands and by consoles, with an engine or without. An object
belongs to the thread that uses it first. Reads only, and never waits for an engine. Imports
little: `trainctl status` answers in 200 ms, so what only versions need is imported there.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from engine import lines
from engine.hints.rest import at_rest
from engine.messages import EngineState, Mode, known, unknown
from engine.reading import answers, shapes
from engine.reading.history import History
from engine.reading.queuelist import QueueList, buckets
from engine.reading.status import (
    disk_status,
    engine_status,
    free_limit,
    item_status,
    model_status,
    status,
)
from queue_store import config, journal, lineage, lock, queue, records
from queue_store.database import (
    State,
    open_metrics,
    open_state,
    read_only,
    read_only_metrics,
)
from queue_store.failures import advice
from queue_store.home import Home
from queue_store.items import Item, ItemState

if TYPE_CHECKING:
    from engine.memory.whatif import WhatIf

_NO_ENGINE = "no engine is running"
_SILENT = "the engine does not answer yet"


class Views(History):
    """Reads one home's store. `close` it, from the same thread."""

    def __init__(
        self, home: Home, closing: threading.Event | None = None, *, read_only: bool = False
    ) -> None:
        super().__init__()
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
        self.__dict__.pop("_listing", None)

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
            samples_step=answers.newest_step(self.metrics, self.line()),
            paused=bool(self.state.meta_get("paused", False)),
            hints=at_rest(self.state, settings, point.step if point else 0),
        )

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
        for bucket in buckets(ItemState(state) if state else None):
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

    def queue_list(self) -> Sequence[dict[str, Any]]:
        """Of every item what a row shows; the same object where nothing changed; see queuelist."""
        return self._listing.read()

    @cached_property
    def _listing(self) -> QueueList:
        return QueueList(self.state, self.unsaved)

    def unsaved(self, item: int) -> tuple[int, int]:
        """How far an item came since the newest checkpoint: its highest cursor, and in how many
        steps. The engine holds it; the table has what a checkpoint contains. (0, 0) where no
        engine runs: then it is lost, and trains again."""
        head, line = records.head(self.state), self.line()
        if not line or not self.live():
            return 0, 0
        found = self.metrics.execute(
            "SELECT COALESCE(MAX(cursor_to), 0), COUNT(*) FROM steps"
            " WHERE item = ? AND run = ? AND step > ?",
            (item, line[-1].run, head.checkpoint.step if head else 0),
        ).fetchone()
        return found[0], found[1]

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

    def file_of(self, item: int) -> str:
        """Where the store keeps an item's file. Raises NotFound."""
        return str(self.home.items / queue.get(self.state, item).file)

    def validate(
        self, file: str, stop: threading.Event, progress: Callable[[int, int], None]
    ) -> dict[str, Any]:
        """The deep report of a file; see deepcheck. Blocks; any thread may call it."""
        from engine.inspecting import deepcheck

        return deepcheck.check(self.home, Path(file), stop, progress)

    def what_if(self) -> AbstractContextManager[WhatIf]:
        """What training takes of memory, and would take with other settings; see
        engine.memory.whatif.begin. Any thread may call it."""
        from engine.memory import whatif

        return whatif.begin(self.home)

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
        return [
            shapes.item(
                item,
                attempts[item.id],
                self.unsaved(item.id) if item.state is ItemState.PAUSED else (0, 0),
            )
            for item in items
        ]

    # -- checkpoints, versions, rollback --------------------------------------------------------

    def checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints on disk, oldest first, each with its scores."""
        from engine.reading import versionrows
        from snapshots import listing

        rows = listing.checkpoints_json(self.state)
        rows = [{**row, "item": known(row["item"], "no item was training")} for row in rows]
        return versionrows.with_scores(self.metrics, rows)

    def versions(self) -> list[dict[str, Any]]:
        """The versions, oldest first, each with why it is kept, its samples and scores."""
        from engine.reading import versionrows

        return versionrows.rows(self.home, self.state, self.metrics)

    def rollback_plan(self, version: str | None = None) -> dict[str, Any]:
        """What a rollback would lose and keep; see plans. Raises NotFound, Refused."""
        from engine.reading import plans

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
        group: str = "",
        text: str = "",
    ) -> dict[str, Any]:
        """{events: those after a sequence number, oldest first; last: the newest number}."""
        found = journal.events(self.state, after, limit, kinds, item, group=group, text=text)
        return {"events": [shapes.event(e) for e in found], "last": journal.last_seq(self.state)}

    def latest_events(
        self, count: int = 200, before: int | None = None, group: str = "", text: str = ""
    ) -> dict[str, Any]:
        """The newest `count` events before a sequence number, oldest first, as `events`."""
        found = journal.latest(self.state, count, before=before, group=group, text=text)
        return {"events": [shapes.event(e) for e in found], "last": journal.last_seq(self.state)}

    def samples(
        self, step: int | None = None, example: str | None = None, limit: int = 500
    ) -> dict[str, Any]:
        """What the model answered, on the present line; see answers.samples. Raises NotFound."""
        return answers.samples(self.home, self.metrics, self.line(), step, example, limit)

    def sample_marks(self, after: int = -1) -> list[answers.Mark]:
        """How right every answer of the ticks after a step was; see answers.marks."""
        return answers.marks(self.metrics, self.line(), after)
