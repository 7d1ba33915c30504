"""The queue as it stands: reading it, its order, and the changes of order that a person makes.

Order: high before normal before low; within a priority paused (unfinished) items first, then
by position. Claims and pages use the one index (state, priority, position).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from queue_store import journal
from queue_store.database import State, now
from queue_store.errors import NotFound, Refused
from queue_store.items import RUNNABLE, Attempt, Item, ItemState, Priority

_ORDER = (
    " ORDER BY CASE state WHEN 'training' THEN 0 WHEN 'preparing' THEN 0 WHEN 'paused' THEN 1"
    " WHEN 'queued' THEN 1 ELSE 2 END, CASE WHEN state IN ('paused', 'queued') THEN priority END,"
    " CASE state WHEN 'paused' THEN 0 ELSE 1 END,"
    " CASE WHEN state IN ('paused', 'queued') THEN position END, updated DESC, id DESC"
)


def get(state: State, item_id: int) -> Item:
    """The item of that id. Raises NotFound."""
    row = state.db.execute("SELECT * FROM items WHERE id = ?", (item_id,)).fetchone()
    if row is None:
        raise NotFound(f"no item {item_id}", mend="trainctl queue lists them")
    return Item.of(row)


def same_content(state: State, added: Mapping[int, str]) -> dict[int, Item]:
    """Of items, id to digest, the newest other one whose file has these bytes; those without one,
    or whose bytes are not known, are left out. One look for all of them: there is no index."""
    wanted = orjson.dumps(sorted(set(filter(None, added.values())))).decode()
    rows = state.db.execute(
        "SELECT * FROM items WHERE digest IN (SELECT value FROM json_each(?)) ORDER BY id DESC",
        (wanted,),
    )
    having: dict[str, list[Item]] = {}
    for item in map(Item.of, rows):
        having.setdefault(item.digest, []).append(item)
    found = {
        id: next((one for one in having.get(digest, ()) if one.id != id), None)
        for id, digest in added.items()
    }
    return {id: item for id, item in found.items() if item is not None}


def items(state: State, of: ItemState | None = None, limit: int = -1) -> list[Item]:
    """Items in the order in which they will train (the running one first), then the ended ones,
    newest first; only those in state `of` where it is given."""
    if of is None:
        rows = state.db.execute(f"SELECT * FROM items {_ORDER} LIMIT ?", (limit,))
    else:
        rows = state.db.execute(
            "SELECT * FROM items WHERE state = ? ORDER BY priority, position LIMIT ?", (of, limit)
        )
    return [Item.of(row) for row in rows]


def page(state: State, limit: int = 100) -> list[Item]:
    """The first `limit` items that will train, in order, the running one first. Uses the index:
    under a millisecond at any length of the queue."""
    result = running(state)
    for priority in Priority:
        for of in RUNNABLE:
            left = limit - len(result)
            if left <= 0:
                return result
            rows = state.db.execute(
                "SELECT * FROM items WHERE state = ? AND priority = ? ORDER BY position LIMIT ?",
                (of, priority, left),
            )
            result += [Item.of(row) for row in rows]
    return result


def running(state: State) -> list[Item]:
    """The item that prepares or trains (a list of none or one)."""
    rows = state.db.execute("SELECT * FROM items WHERE state IN ('preparing', 'training')")
    return [Item.of(row) for row in rows]


def counts(state: State) -> dict[str, int]:
    """How many items are in each state; states without any are 0."""
    found = dict(state.db.execute("SELECT state, COUNT(*) FROM items GROUP BY state").fetchall())
    waiting_count = state.db.execute("SELECT COUNT(*) FROM waiting").fetchone()[0]
    return {s.value: found.get(s.value, 0) for s in ItemState} | {"waiting": waiting_count}


def waiting_by_priority(state: State) -> dict[str, int]:
    """Runnable items per priority: {"high": 0, "normal": 3, "low": 1}."""
    # Six ranges of the index: grouping would sort the whole queue, at every status.
    sql = "SELECT COUNT(*) FROM items WHERE state = ? AND priority = ?"
    return {
        p.word: sum(state.db.execute(sql, (of, p)).fetchone()[0] for of in RUNNABLE)
        for p in Priority
    }


def next_runnable(state: State, *, above: Priority | None = None) -> Item | None:
    """The item that trains next; only of a higher priority than `above` where that is given.

    An item that waits after a transient failure is passed over until its time has come.
    """
    for priority in Priority:
        if above is not None and priority >= above:
            return None
        for of in RUNNABLE:
            row = state.db.execute(
                "SELECT * FROM items WHERE state = ? AND priority = ? AND not_before <= ?"
                " ORDER BY position LIMIT 1",
                (of, priority, time.time()),
            ).fetchone()
            if row is not None:
                return Item.of(row)
    return None


def soonest(state: State) -> float | None:
    """When the next waiting item may run (seconds since the epoch), None if none waits."""
    value = state.db.execute(
        "SELECT MIN(not_before) FROM items WHERE state IN ('paused', 'queued') AND not_before > 0"
    ).fetchone()[0]
    return None if value is None else float(value)


def attempts(state: State, item_id: int) -> list[Attempt]:
    """The tries of an item, oldest first."""
    rows = state.db.execute(
        "SELECT n, started, ended, cause, error FROM attempts WHERE item = ? ORDER BY n", (item_id,)
    )
    return [Attempt(*row) for row in rows]


def last_position(state: State, priority: Priority) -> float:
    """The position of the last runnable item of a priority, 0 if there is none."""
    return _edge(state, priority, "MAX")


def first_position(state: State, priority: Priority) -> float:
    """The position of the first runnable item of a priority, 0 if there is none."""
    return _edge(state, priority, "MIN")


def _edge(state: State, priority: Priority, edge: str) -> float:
    found = [
        row[0]
        for of in RUNNABLE
        for row in state.db.execute(
            f"SELECT {edge}(position) FROM items WHERE state = ? AND priority = ?", (of, priority)
        )
        if row[0] is not None
    ]
    return float((max if edge == "MAX" else min)(found)) if found else 0.0


def set_priority(state: State, item_id: int, priority: Priority) -> Item:
    """Give an item that has not ended another priority; it goes to that priority's end."""
    with state.transaction() as db:
        item = _open_item(state, item_id)
        db.execute(
            "UPDATE items SET priority = ?, position = ?, updated = ? WHERE id = ?",
            (priority, last_position(state, priority) + 1, now(), item_id),
        )
        text = f"{item.name}: priority {item.priority.word} -> {priority.word}"
        journal.record(state, "item.priority", text, item=item_id)
        return get(state, item_id)


def move_first(state: State, item_id: int) -> Item:
    """Put an item before all others of its priority (an unfinished one still goes first)."""
    with state.transaction() as db:
        item = _open_item(state, item_id)
        position = first_position(state, item.priority) - 1
        db.execute(
            "UPDATE items SET position = ?, updated = ? WHERE id = ?", (position, now(), item_id)
        )
        text = f"{item.name} moved to the front"
        journal.record(state, "item.moved", text, item=item_id, data={"moved": [item_id]})
        return get(state, item_id)


def move_before(state: State, item_id: int, other_id: int) -> Item:
    """Put an item right before another one; it takes that one's priority."""
    return _move_before(state, item_id, other_id, {"moved": [item_id]})


def _move_before(state: State, item_id: int, other_id: int, told: dict[str, Any]) -> Item:
    """`told` is what the event says of who moved, {} where more than the item did."""
    with state.transaction() as db:
        item, other = _open_item(state, item_id), _open_item(state, other_id)
        if item.id == other.id:
            raise Refused("an item cannot go before itself")
        previous = state.db.execute(
            "SELECT MAX(position) FROM items WHERE state IN ('queued', 'paused') AND priority = ?"
            " AND position < ? AND id <> ?",
            (other.priority, other.position, item.id),
        ).fetchone()[0]
        low = other.position - 2 if previous is None else float(previous)
        position = (low + other.position) / 2
        if not low < position < other.position:  # halved until floats ran out: number anew
            _renumber(state, other.priority)
            return _move_before(state, item_id, other_id, {})
        db.execute(
            "UPDATE items SET priority = ?, position = ?, updated = ? WHERE id = ?",
            (other.priority, position, now(), item_id),
        )
        text = f"{item.name} moved before {other.name}"
        journal.record(state, "item.moved", text, item=item_id, data=told)
        return get(state, item_id)


def shift(state: State, item_ids: list[int], by: int, among: list[int] | None = None) -> list[int]:
    """Move items by so many places among those of their priority that wait as they do (below 0:
    earlier), on the order as it is now; what meets the end stays there, and items side by side
    stay so. `among`: only these count as places, as where a person sees only some of the queue.
    The ids of those that moved. Raises Refused where none can, NotFound.
    """
    seen = None if among is None else set(among)
    with state.transaction() as db:
        chosen = [_open_item(state, item_id) for item_id in dict.fromkeys(item_ids)]
        running = [item for item in chosen if not item.runnable]
        if running:
            raise Refused(f"item {running[0].id} ({running[0].name}) is {running[0].state}")
        moved: list[int] = []
        touched: list[int] = []
        for of, priority in dict.fromkeys((item.state, item.priority) for item in chosen):
            wanted = {i.id for i in chosen if (i.state, i.priority) == (of, priority)}
            rows = db.execute(
                "SELECT id, position FROM items WHERE state = ? AND priority = ?"
                " ORDER BY position, id",
                (of, priority),
            ).fetchall()
            before = [row[0] for row in rows]
            after = shifted(before, wanted, by, seen)
            places = sorted(row[1] for row in rows)
            if len(set(places)) < len(places):  # two came to stand on one place: number anew
                places = [float(n) for n in range(1, len(places) + 1)]
            old = dict(row[:2] for row in rows)
            changed = [(p, id_) for id_, p in zip(after, places, strict=True) if old[id_] != p]
            db.executemany(
                "UPDATE items SET position = ?, updated = ? WHERE id = ?",
                [(place, now(), id_) for place, id_ in changed],
            )
            touched += [id_ for _, id_ in changed]
            at = {id_: n for n, id_ in enumerate(before)}
            moved += [id_ for n, id_ in enumerate(after) if id_ in wanted and at[id_] != n]
        if not moved:
            who = f"{len(chosen)} items are" if len(chosen) > 1 else f"{chosen[0].name} is"
            edge = f"{who} {'first' if by < 0 else 'last'} already, within the priority"
            raise Refused(edge + ("" if seen is None else " and what is shown"))
        name = next(item.name for item in chosen if item.id == moved[0])
        rest = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        text = f"{name}{rest} moved {abs(by)} {'earlier' if by < 0 else 'later'}"
        journal.record(state, "item.moved", text, item=moved[0], data={"moved": touched})
        return moved


def shifted(
    order: list[int], wanted: set[int], by: int, among: set[int] | None = None
) -> list[int]:
    """`order` with the `wanted` moved `by` places, as far as there is room; `among`: past so many
    of these, each then right beside the last one that it passed."""
    back = by > 0
    line = order[::-1] if back else order
    counted = [one for one in line if among is None or one in among or one in wanted]
    places: dict[int, int] = {}
    free = 0
    for at, item_id in enumerate(counted):
        if item_id in wanted:
            free = max(free, at - abs(by))
            places[free] = item_id
            free += 1
    others = iter(item_id for item_id in counted if item_id not in wanted)
    moved = [places[n] if n in places else next(others) for n in range(len(counted))]
    # Of each that moves, the next other one after it: where it passed none, the one it had.
    was, then, at_first = (_next_other(one, wanted) for one in (counted, moved, line))
    before: dict[int | None, list[int]] = {}
    for item_id in moved:
        if item_id in wanted:
            stays = was[item_id] == then[item_id]
            before.setdefault((at_first if stays else then)[item_id], []).append(item_id)
    rest = [item_id for item_id in line if item_id not in wanted]
    result = [one for other in rest for one in (*before.get(other, ()), other)]
    result += before.get(None, [])
    return result[::-1] if back else result


def _next_other(line: list[int], wanted: set[int]) -> dict[int, int | None]:
    """Of each of the `wanted`, the first one after it that is not, None at the end."""
    found: dict[int, int | None] = {}
    other: int | None = None
    for item_id in reversed(line):
        if item_id in wanted:
            found[item_id] = other
        else:
            other = item_id
    return found


def _renumber(state: State, priority: Priority) -> None:
    rows = state.db.execute(
        "SELECT id FROM items WHERE state IN ('queued', 'paused') AND priority = ?"
        " ORDER BY position",
        (priority,),
    ).fetchall()
    for place, row in enumerate(rows, 1):
        state.db.execute("UPDATE items SET position = ? WHERE id = ?", (float(place), row[0]))


def _open_item(state: State, item_id: int) -> Item:
    item = get(state, item_id)
    if not item.runnable and item.state not in (ItemState.TRAINING, ItemState.PREPARING):
        raise Refused(f"item {item.id} ({item.name}) is {item.state}: it is not in the queue")
    return item


def set_waiting(state: State, files: list[dict[str, Any]]) -> None:
    """What lies in the inbox and is not taken: dicts of path, name, priority, reason, since."""
    with state.transaction() as db:
        db.execute("DELETE FROM waiting")
        db.executemany(
            "INSERT INTO waiting VALUES(:path, :name, :priority, :reason, :since)", files
        )


def waiting(state: State) -> list[dict[str, Any]]:
    """The files in the inbox that are not taken, each with its reason; oldest first."""
    return [dict(r) for r in state.db.execute("SELECT * FROM waiting ORDER BY since, path")]
