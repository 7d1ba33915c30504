"""How a file becomes an item: its bytes into store/items, a quick check, one row. And back:
the removal of an item that never trained.

The file is in its place, synced, before its row exists; a file without a row (the process died
between the two) is adopted at the next start.
"""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote, unquote

import orjson

from queue_store import durable, journal, queue
from queue_store.database import State, now
from queue_store.errors import DataError, NotFound, Refused
from queue_store.items import Item, ItemState, Priority
from queue_store.rows import QuickCheck, badge, quick_check

SIDECAR = ".meta.json"
"""Ending of the lineage sidecar that may come with a file; it is kept beside the file's bytes."""

_last_stamp = 0


def _place(state: State, name: str, priority: Priority) -> Path:
    """A new name in store/items that tells, without a row, what the file was called."""
    global _last_stamp
    _last_stamp = max(_last_stamp + 1, time.time_ns())
    return state.home.items / f"{_last_stamp}-{int(priority)}-{quote(name, safe=' +=@,')[:180]}"


def add_file(
    state: State,
    path: Path,
    *,
    priority: Priority = Priority.NORMAL,
    name: str | None = None,
    source: str = "add",
    take: bool = False,
) -> Item:
    """Make an item of the file at `path`: `queued`, or `rejected` with line and reason.

    The bytes are copied; with `take` (the inbox) the file itself moves into the store.
    Raises NotFound, Refused (not a regular file, not readable).
    """
    # A file name is bytes; the database, the journal and JSON hold text.
    name, source = as_text(name or path.name), as_text(source)
    if not path.exists():
        raise NotFound("no such file", where=str(path))
    if not path.is_file() or (path.is_symlink() and take):
        raise Refused("not a regular file", where=str(path), mend="add .jsonl files")
    durable.make_folder(state.home.items)
    # The name in store/items appears inside the transaction of its row, so that an engine that
    # starts right now and looks for files without a row cannot adopt it too. What takes long
    # (reading the file, copying it) is done before: nobody can write meanwhile.
    if take and path.lstat().st_dev == state.home.items.stat().st_dev:
        check = _checked(path)
        with state.transaction():
            place = _place(state, name, priority)
            durable.take_file(path, place)
            durable.crash_point("intake.taken")
            if sidecar_of(path).is_file() and not sidecar_of(path).is_symlink():
                durable.take_file(sidecar_of(path), sidecar_of(place))
            return _insert(state, place, name, priority, source, check)
    staging = durable.new_tmp(state.home, "add")
    try:
        try:
            durable.copy_file(path, staging / "data")
        except PermissionError:
            raise Refused("not readable by this user", where=str(path), mend="chmod it") from None
        check = _checked(staging / "data")
        with state.transaction():
            place = _place(state, name, priority)
            durable.take_file(staging / "data", place)
            durable.crash_point("intake.copied")
            if sidecar_of(path).is_file():
                durable.copy_file(sidecar_of(path), sidecar_of(place))
            item = _insert(state, place, name, priority, source, check)
        if take:  # from another filesystem
            durable.remove_file(path)
            durable.remove_file(sidecar_of(path))
        return item
    finally:
        durable.discard(staging, state.home)


def sidecar_of(path: Path) -> Path:
    """Where a file's lineage sidecar lies: FILE.jsonl.meta.json beside FILE.jsonl."""
    return path.with_name(path.name + SIDECAR)


def as_text(name: str) -> str:
    """A file name with its bytes that are no UTF-8 replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _checked(path: Path) -> QuickCheck | DataError:
    """What a file holds, or why it holds no rows."""
    try:
        return quick_check(path)
    except DataError as problem:
        return problem


def _insert(
    state: State,
    place: Path,
    name: str,
    priority: Priority,
    source: str,
    check: QuickCheck | DataError,
) -> Item:
    rejected: list[dict[str, object]] = []
    if isinstance(check, QuickCheck):
        spec, lines, accepted, digest = check.spec, check.lines, check.accepted, check.digest
        rejected = [{"line": bad.line, "reason": bad.reason} for bad in check.rejected]
        error = "" if accepted else "no row that trains"
        if rejected and not accepted:
            error = f"line {rejected[0]['line']}: {rejected[0]['reason']}"
    else:
        spec, lines, accepted, digest, error = "", 0, 0, "", str(check)
    with state.transaction() as db:
        to = ItemState.REJECTED if error else ItemState.QUEUED
        cursor = db.execute(
            "INSERT INTO items(name, digest, file, source, size, state, priority, position, spec,"
            " lines, accepted, rejected, badge, reason, error, created, updated)"
            " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                name,
                digest,
                place.name,
                source,
                place.stat().st_size,
                to.value,
                priority,
                queue.last_position(state, priority) + 1,
                spec,
                lines,
                accepted,
                orjson.dumps(rejected).decode(),
                orjson.dumps(badge(name) or {}).decode(),
                "no training data" if error else "",
                error,
                now(),
                now(),
            ),
        )
        item_id = int(cursor.lastrowid or 0)
        text = f"{name} rejected: {error}" if error else f"{name} queued: {accepted} rows"
        journal.record(state, f"item.{to.value}", text, item=item_id, data={"source": source})
        return queue.get(state, item_id)


def adopt_orphans(state: State) -> list[Item]:
    """Give a row to every file in store/items that has none. Called at the engine's start."""
    durable.make_folder(state.home.items)
    with state.transaction() as db:
        known = {row[0] for row in db.execute("SELECT file FROM items")}
        adopted = []
        for path in sorted(state.home.items.iterdir()):
            if path.name in known or path.name.endswith(SIDECAR) or not path.is_file():
                continue
            _, _, rest = path.name.partition("-")
            number, _, quoted = rest.partition("-")
            priority = Priority(int(number)) if number in {"0", "1", "2"} else Priority.NORMAL
            called = unquote(quoted) or path.name
            adopted.append(_insert(state, path, called, priority, "recovered", _checked(path)))
        return adopted


def remove(state: State, item_id: int) -> Item:
    """Take an item that has not trained out of the queue; its file goes to the trash folder.

    Raises Refused for one that trains or has trained.
    """
    with state.transaction() as db:
        item = queue.get(state, item_id)
        if item.state in (ItemState.TRAINING, ItemState.PREPARING):
            raise Refused(f"item {item.id} ({item.name}) is {item.state}", mend="skip it instead")
        if (
            item.cursor
            or item.state in (ItemState.TRAINED, ItemState.DONE)
            or _trained(state, item)
        ):
            raise Refused(
                f"item {item.id} ({item.name}) has trained: its file is part of the model's history"
            )
        db.execute("DELETE FROM attempts WHERE item = ?", (item_id,))
        db.execute("DELETE FROM items WHERE id = ?", (item_id,))
        text = f"{item.name} removed; its file is in the trash"
        journal.record(state, "item.removed", text, item=item_id, data={"file": item.file})
        durable.make_folder(state.home.trash)
        source = state.home.items / item.file
        if source.exists():
            durable.take_file(source, state.home.trash / item.file)
        if sidecar_of(source).exists():
            durable.take_file(sidecar_of(source), sidecar_of(state.home.trash / item.file))
        return item


def _trained(state: State, item: Item) -> bool:
    """Whether any checkpoint on record contains a row of the item."""
    found = state.db.execute(
        "SELECT 1 FROM events WHERE item = ? AND kind IN ('item.training', 'item.trained') LIMIT 1",
        (item.id,),
    ).fetchone()
    return found is not None
