"""The next item is prepared while this one trains, so that no time lies between two items.

In a process of its own, at the lowest priority, which ends with the engine. What it leaves is
prepared data under the key of all that went into it, and a note on the queued item: if anything
of that changes before the item's turn (the file, config.toml, an evaluation set, the template),
the key is another one, and the item is prepared in line. The same where the process dies: nothing
depends on it. Must never take the engine's thread, nor fail an item.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from engine.loop.prepare_ahead import dump
from engine.prepare.prepare import Cancelled
from engine.training.items import Order, Settings
from evaluation import sets
from queue_store import queue
from queue_store import transitions as moves
from queue_store.database import State
from queue_store.home import Home
from queue_store.items import Item, ItemState
from snapshots import child, upkeep
from snapshots.child import Unfinished

if TYPE_CHECKING:
    from engine.loop.thread import Engine

log = logging.getLogger("trainctl.ahead")
LOOK_SECONDS = 2.0
WAIT_SECONDS = 0.02
PACE = 4e6
"""Bytes/s of a file that preparing in line does at the least. As long as that would take, the
item's turn waits for the process that is at it; a machine busy with other things may keep a
process of the lowest priority waiting for ever."""


class _Work:
    """One process, and how far it is."""

    def __init__(self, item: Item, order: Order, sets_now: object, engine_ends: Event) -> None:
        self.item, self.name = item.id, item.name
        self.order, self.sets_now = order, sets_now
        self.done, self.total = 0, item.size
        self.key = ""
        """Under which it is prepared, "" where it is not."""
        self.ended, self.called_off = Event(), Event()
        self._engine_ends = engine_ends

    def is_set(self) -> bool:
        """As the event that breaks the process off."""
        return self.called_off.is_set() or self._engine_ends.is_set()

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total


class Ahead:
    """What one engine prepares ahead. `look` is for the keeper's thread, `take` for the
    engine's."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._work: _Work | None = None

    @property
    def status(self) -> dict[str, Any] | None:
        """{id, name, progress (0..1)} of the item that is being prepared ahead, or None."""
        work = self._work
        if work is None or work.ended.is_set():
            return None
        share = work.done / work.total if work.total else 0.0
        return {"id": work.item, "name": work.name, "progress": round(share, 3)}

    def look(self, engine: Engine, state: State) -> None:
        """Prepare the item that trains next, if it is not. Blocks while that takes."""
        live = engine.worker.live if engine.worker else None
        if live is None or engine.board.disk_low:
            return  # what fills a disk that is nearly full would stop training
        if not any(item.state is ItemState.TRAINING for item in queue.running(state)):
            return
        item = queue.next_runnable(state)
        if item is None or item.state is not ItemState.QUEUED or item.cursor:
            return
        settings = Settings.of(engine.config_now())
        order = Order.of(self.home, item, settings, live.loaded.folder)
        last, sets_now = self._work, _sets_now(self.home)
        if last is not None and (last.order, last.sets_now) == (order, sets_now):
            return  # done, or it failed: then the item's own turn says why
        work = self._work = _Work(item, order, sets_now, engine.keeper.stopping)
        try:
            answer = self._run(work)
            note(state, item.id, settings, answer)
            work.key = answer["key"]
        except Unfinished as error:
            upkeep.sweep_tmp(self.home, "prepared-")
            if not work.is_set():
                log.warning("%s", error)
        finally:
            work.ended.set()

    def _run(self, work: _Work) -> dict[str, Any]:
        """The answer of the process. Raises Unfinished."""
        threads = max(1, (os.cpu_count() or 1) // 2)
        return child.run(
            "engine.loop.prepare_ahead",
            [],
            where=work.name,
            stop=work,
            progress=work.progress,
            stdin=dump(work.order),
            environment={"RAYON_NUM_THREADS": str(threads)},
            what="preparing ahead",
            mend="it is prepared when its turn comes",
        )

    def take(
        self,
        item: Item,
        settings: Settings,
        folder: Path,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> str:
        """The key under which the item was prepared ahead, "" where it was not; it may be out of
        date. A process that is still at it is waited for, as long as preparing in line would take.

        Raises Cancelled.
        """
        work = self._work
        if work is None or work.order != Order.of(self.home, item, settings, folder):
            return ""
        until = time.monotonic() + 1.0 + item.size / PACE
        while not work.ended.wait(WAIT_SECONDS):
            if cancelled():
                raise Cancelled
            progress(work.done, work.total)
            if time.monotonic() > until:
                work.called_off.set()
        return work.key


def note(state: State, item_id: int, settings: Settings, answer: dict[str, Any]) -> None:
    """Write on the queued item what it will train. Nothing where its turn has come meanwhile: its
    own preparing has written that, and may have frozen other settings."""
    training = settings.training
    with state.transaction():
        item = queue.get(state, item_id)
        if item.state is not ItemState.QUEUED or item.cursor:
            return
        moves.prepared(
            state,
            item_id,
            key=answer["key"],
            settings=settings.dump(),
            rows=answer["rows"],
            epochs=training.epochs,
            steps=-(-answer["packs"] // training.effective_batch) * training.epochs,
            held_out=answer["held_out"],
            report=answer["report"],
            ahead=True,
        )


def _sets_now(home: Home) -> list[tuple[str, int, int]]:
    """What tells that an evaluation set changed, without reading it."""
    found = [(path.name, path.stat()) for path in sets.set_files(home).values()]
    return [(name, info.st_size, info.st_mtime_ns) for name, info in found]
