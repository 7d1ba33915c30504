"""The whole queue as a list shows it: read once, and then only what changed.

A queue of 10,000 items takes tens of milliseconds to read. A console looks 4 times a second, so
it asks SQLite first whether anything was written at all, then the journal which items it was: all
that changes an item records an event that names it. Where the journal does not tell enough (a
checkpoint moves the cursors of several items, a move may number a priority anew) all is read
again, at most for a tenth of the time; so it is where something changed and the last whole
reading is a minute old, for what no event told. Reads only.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import orjson

from engine.messages import unknown
from engine.reading import shapes
from queue_store import queue
from queue_store.database import State
from queue_store.items import ENDED, RUNNABLE, ItemState, Priority

Record = dict[str, Any]
Rank = tuple[int, int, int, float, int]
"""What orders the list; the last number is the item's id, negative where the newest comes first."""

Unsaved = tuple[int, int]
"""The highest cursor and the number of steps since the newest checkpoint; see Views.unsaved."""

REST = 10.0
"""Reading everything rests this many times as long as it took."""
WHOLE_SECONDS = 60.0
MANY = 500
"""Events from which on reading everything is no dearer than reading what they name."""

_COLUMNS = (
    "id, name, state, priority, position, lines, rows, steps, step, cursor, reason, error, size,"
    " created, updated, epochs"
)
_UNPREPARED = unknown("not prepared yet")
_WORDS = {int(priority): priority.word for priority in Priority}
_ACTIVE = (ItemState.TRAINING, ItemState.PREPARING)
_WAITING = (ItemState.PAUSED, ItemState.QUEUED)
_INBOX: Rank = (2, 0, 0, 0.0, 0)


class QueueList:
    """Follows the queue of one home. Belongs to the thread of its connection."""

    def __init__(self, state: State, unsaved: Callable[[int], Unsaved] = lambda item: (0, 0)):
        """`unsaved` tells of a paused item how far it came since the newest checkpoint."""
        self._state = state
        self._unsaved = unsaved
        self._version = -1
        self._seq = -1
        self._rest_until = 0.0
        self._whole_at = 0.0
        self._items: dict[int, Record] = {}
        self._ranks: dict[int, Rank] = {}
        self._order: list[Rank] = []
        self._inbox: list[dict[str, Any]] = []
        self._shown: Sequence[Record] = ()

    def read(self) -> Sequence[Record]:
        """All items in the order in which they train, what lies in the inbox after them, then what
        waits for a checkpoint to contain it, the ended ones last, the newest first: the fields of
        `queue` that a row shows. The same object as before where nothing changed, and then without
        reading a row.
        """
        db = self._state.db
        # Counts what other connections committed; this one only reads.
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return self._shown
        db.execute("BEGIN")
        try:
            if self._catch_up():
                self._version = version
        finally:
            db.execute("ROLLBACK")
        return self._shown

    def _catch_up(self) -> bool:
        """Read what is new; False where that has to wait a little."""
        found = self._changed()
        if found is None and time.monotonic() < self._rest_until:
            return False
        inbox = [shapes.waiting(file) for file in queue.waiting(self._state)]
        if not found and found is not None and inbox == self._inbox:
            return True
        if found is None:
            self._read_all()
        else:
            self._read_some(found)
        self._inbox = inbox
        at = bisect_left(self._order, _INBOX)
        listed = [self._items[abs(rank[-1])] for rank in self._order]
        self._shown = (*listed[:at], *inbox, *listed[at:])
        return True

    def _changed(self) -> set[int] | None:
        """The items that events name since the last look; None where all are to be read."""
        if self._seq < 0 or time.monotonic() - self._whole_at > WHOLE_SECONDS:
            return None
        db = self._state.db
        events = db.execute(
            "SELECT seq, kind, item, data FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
            (self._seq, MANY),
        ).fetchall()
        if len(events) == MANY:
            return None
        changed: set[int] = set()
        for _, kind, item, data in events:
            if item is None or not kind.startswith("item."):
                return None
            named = orjson.loads(data).get("moved") if kind == "item.moved" else [item]
            if named is None:  # positions were numbered anew
                return None
            changed.update(named)
        if events:
            self._seq = events[-1][0]
        return changed

    def _read_all(self) -> None:
        started = time.monotonic()
        db = self._state.db
        self._seq = db.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()[0]
        self._items, self._ranks = {}, {}
        for row in db.execute(f"SELECT {_COLUMNS} FROM items"):
            self._put(row)
        self._order = sorted(self._ranks.values())
        ended = time.monotonic()
        self._whole_at = ended
        self._rest_until = ended + REST * (ended - started)

    def _read_some(self, changed: Iterable[int]) -> None:
        ids = sorted(changed)
        for number in ids:
            old = self._ranks.pop(number, None)
            self._items.pop(number, None)
            if old is not None:
                del self._order[bisect_left(self._order, old)]
        for row in self._state.db.execute(
            f"SELECT {_COLUMNS} FROM items WHERE id IN (SELECT value FROM json_each(?))",
            (orjson.dumps(ids).decode(),),
        ):
            insort(self._order, self._put(row))

    def _put(self, row: Sequence[Any]) -> Rank:
        """Keep a row of the table; where it stands."""
        (number, name, state, priority, position, lines, rows, steps, step, cursor, reason) = row[
            :11
        ]
        step, cursor = shapes.whole(state, row[15], rows, steps) or (step, cursor)
        if state == ItemState.PAUSED:
            step, cursor = shapes.further(step, cursor, self._unsaved(number))
        self._items[number] = {
            "id": number,
            "name": name,
            "state": state,
            "priority": _WORDS[priority],
            "position": position,
            "lines": lines,
            "rows": _UNPREPARED if rows is None else rows,
            "steps": _UNPREPARED if steps is None else steps,
            "step": step,
            "cursor": cursor,
            "reason": reason,
            "error": row[11],
            "size": row[12],
            "created": row[13],
            "updated": row[14],
        }
        rank: Rank
        if state in _ACTIVE:
            rank = (0, _ACTIVE.index(state), 0, position, number)
        elif state in _WAITING:
            rank = (1, priority, _WAITING.index(state), position, number)
        elif state == ItemState.TRAINED:  # as many as a checkpoint contains: not above what waits
            rank = (3, priority, 0, position, number)
        else:
            rank = (4, 0, 0, -row[14], -number)
        self._ranks[number] = rank
        return rank


def buckets(
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
