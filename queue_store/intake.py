"""How a file becomes an item: its bytes into store/items, a quick check, one row. And back:
the removal of an item that never trained.

The file is in its place, synced, before its row exists; a file without a row (the process died
between the two) is adopted at the next start.
"""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import orjson

from queue_store import durable, journal, lineage, queue, trash
from queue_store.database import State, now
from queue_store.errors import DataError, NotFound, Refused
from queue_store.heldout import checked
from queue_store.items import Item, ItemState, Priority
from queue_store.lineage import SIDECAR, sidecar_of
from queue_store.rows import QuickCheck, badge

TRASH_DAYS = 7.0
"""Days for which a removed item can come back, where no setting says otherwise."""

_PLACE = re.compile(r"(\d{1,24})-([012])(?:\.(\d{1,15}))?-(.*)", re.DOTALL)
_TAKEN = "inbox.taken"
"""The last file that was copied in from another filesystem, and the item that it became."""

_last_stamp = 0


@dataclass(frozen=True)
class Named:
    """What the name of a file in store/items tells: `stamp` (nanoseconds) orders the files as they
    came, `id` is None in names of before ids stood in them."""

    stamp: int
    priority: Priority
    id: int | None
    name: str


def place_name(stamp: int, priority: Priority, item_id: int, name: str) -> str:
    """The name in store/items that tells, without a row, which item it is and what it was called:
    `{stamp}-{priority}.{id}-{quoted name}`. A dot, for older names have none before the dash."""
    return f"{stamp}-{int(priority)}.{item_id}-{quote(name, safe=' +=@,')[:180]}"


def read_name(file: str) -> Named:
    """The reverse of `place_name`; whatever does not parse is called as its file is."""
    match = _PLACE.fullmatch(file)
    if match is None:
        return Named(0, Priority.NORMAL, None, file)
    number = int(match[3]) if match[3] else None
    return Named(int(match[1]), Priority(int(match[2])), number or None, unquote(match[4]) or file)


def _place(state: State, name: str, priority: Priority) -> tuple[int, Path]:
    """The next item's id and its place in store/items. Inside the transaction of its row."""
    global _last_stamp
    _last_stamp = max(_last_stamp + 1, time.time_ns())
    row = state.db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
    item_id = 1 if row is None else int(row[0]) + 1
    return item_id, state.home.items / place_name(_last_stamp, priority, item_id, name)


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
    try:
        return _take_in(state, path, priority, name, source, take=take)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Refused(
            f"no room on the disk for {name}: it stays where it is",
            where=str(state.home.store),
            mend="free some, then add it again",
        ) from None


def _take_in(
    state: State, path: Path, priority: Priority, name: str, source: str, *, take: bool
) -> Item:
    durable.make_folder(state.home.items)
    # The name in store/items appears inside the transaction of its row, so that an engine that
    # starts right now and looks for files without a row cannot adopt it too. What takes long
    # (reading the file, copying it) is done before: nobody can write meanwhile.
    if take and path.lstat().st_dev == state.home.items.stat().st_dev:
        try:
            return _move_in(state, path, priority, name, source)
        except OSError as error:
            if error.errno != errno.EXDEV:  # a bind mount: the same device, and no renaming
                raise
    if take and not os.access(path.parent, os.W_OK):
        # Copied in, it could not leave: it would come in again at every look.
        raise Refused("its folder cannot be written, so it could not leave", where=str(path.parent))
    before = _mark(path) if take else None
    taken = state.meta_get(_TAKEN)
    if before is not None and taken is not None and taken["file"] == before:
        # It is an item already: the process died before the file left the inbox.
        item = queue.get(state, taken["item"])
        _leave_inbox(state, path, item)
        return item
    staging = durable.new_tmp(state.home, "add")
    try:
        try:
            durable.copy_file(path, staging / "data")
        except PermissionError:
            raise Refused("not readable by this user", where=str(path), mend="chmod it") from None
        if before is not None and _mark(path) != before:
            raise Refused("it was written to while it was copied", where=str(path))
        check = checked(staging / "data", state.home)
        with state.transaction():
            item_id, place = _place(state, name, priority)
            durable.take_file(staging / "data", place)
            durable.crash_point("intake.copied")
            why = lineage.bring(path, place, take=False)
            item = _insert(state, item_id, place, name, priority, source, check, why)
            if before is not None:
                state.meta_set(_TAKEN, {"file": before, "item": item.id})
        durable.crash_point("intake.across")
        if take:
            _leave_inbox(state, path, item)
        return item
    finally:
        durable.discard(staging, state.home)


def _move_in(state: State, path: Path, priority: Priority, name: str, source: str) -> Item:
    """Take a file of the same filesystem: its name moves. Raises OSError."""
    check = checked(path, state.home)
    with state.transaction():
        item_id, place = _place(state, name, priority)
        durable.take_file(path, place)
        durable.crash_point("intake.taken")
        why = lineage.bring(path, place, take=True)
        return _insert(state, item_id, place, name, priority, source, check, why)


def _mark(path: Path) -> list[Any]:
    """What tells a file from another one that is put in its place later."""
    info = path.lstat()
    return [as_text(str(path)), info.st_ino, info.st_size, info.st_mtime_ns]


def _leave_inbox(state: State, path: Path, item: Item) -> None:
    """The bytes of a file of another filesystem are in the store, with their row: it goes."""
    if sidecar_of(state.home.items / item.file).exists():
        durable.remove_file(sidecar_of(path))
    durable.remove_file(path)
    durable.crash_point("intake.left")


def as_text(name: str) -> str:
    """A file name with its bytes that are no UTF-8 replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _insert(
    state: State,
    item_id: int,
    place: Path,
    name: str,
    priority: Priority,
    source: str,
    check: QuickCheck | DataError,
    no_sidecar: str = "",
) -> Item:
    """The item's row and its events; `no_sidecar` says why the one that came is not there."""
    rejected: list[dict[str, object]] = []
    held = 0
    if isinstance(check, QuickCheck):
        spec, lines, accepted, digest = check.spec, check.lines, check.accepted, check.digest
        held = check.held_out
        rejected = [{"line": bad.line, "reason": bad.reason} for bad in check.rejected]
        error = "" if accepted else "no row that trains"
        if rejected and not accepted:
            error = f"line {rejected[0]['line']}: {rejected[0]['reason']}"
        elif accepted and held == accepted:
            error = f"all {accepted} rows are in evaluation sets, which never train"
    else:
        spec, lines, accepted, digest, error = "", 0, 0, "", str(check)
    with state.transaction() as db:
        to = ItemState.REJECTED if error else ItemState.QUEUED
        db.execute(
            "INSERT INTO items(id, name, digest, file, source, size, state, priority, position,"
            " spec, lines, accepted, rejected, badge, reason, error, created, updated)"
            " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                item_id,
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
        text = (
            f"{name} rejected: {error}"
            if error
            else f"{name} queued: {accepted} row{'' if accepted == 1 else 's'}"
        )
        if rejected and not error:
            text += (
                f", {lines - accepted} bad (line {rejected[0]['line']}: {rejected[0]['reason']})"
            )
        if held and not error:
            text += f", {held} of them in an evaluation set (those never train)"
        data = {
            "source": source,
            "held_out": held,
            "validators": dict([lineage.ROW_CHECK]),
        }
        journal.record(state, f"item.{to.value}", text, item=item_id, data=data)
        lineage.record(state, item_id, name, place, no_sidecar)
        return queue.get(state, item_id)


def adopt_orphans(state: State) -> list[Item]:
    """Give a row to every file in store/items that has none: the id that its name tells where
    that is free, else the next one, and then a name that tells it. At the engine's start."""
    durable.make_folder(state.home.items)
    with state.transaction() as db:
        known = {row[0] for row in db.execute("SELECT file FROM items")}
        found = [
            (read_name(path.name), path)
            for path in state.home.items.iterdir()
            if path.name not in known and not path.name.endswith(SIDECAR) and path.is_file()
        ]
        return [
            adopt(state, path, told.id) for told, path in sorted(found, key=lambda f: f[0].stamp)
        ]


def adopt(state: State, path: Path, wanted: int | None) -> Item:
    """A row for a file of store/items, as item `wanted` where that id is free. Inside a
    transaction. A file whose name tells another id is renamed, its sidecar with it."""
    told = read_name(path.name)
    taken = "SELECT 1 FROM items WHERE id = ?"
    if wanted is None or state.db.execute(taken, (wanted,)).fetchone():
        wanted, _ = _place(state, told.name, told.priority)
    if told.id != wanted:
        stamp = told.stamp or time.time_ns()
        place = path.with_name(place_name(stamp, told.priority, wanted, told.name))
        # The sidecar first: a file that has its new name already is found with it.
        if sidecar_of(path).is_file():
            durable.take_file(sidecar_of(path), sidecar_of(place))
        durable.crash_point("adopt.sidecar")
        durable.take_file(path, place)
        durable.crash_point("adopt.renamed")
        path = place
    check = checked(path)
    return _insert(state, wanted, path, told.name, told.priority, "recovered", check)


def remove(state: State, item_id: int, days: float = TRASH_DAYS) -> Item:
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
        tries = [dict(r) for r in db.execute("SELECT * FROM attempts WHERE item = ?", (item_id,))]
        row = dict(db.execute("SELECT * FROM items WHERE id = ?", (item_id,)).fetchone())
        durable.make_folder(state.home.trash)
        place = trash.free_place(state, item.file)
        trash.insert(
            state,
            "item",
            item.name,
            place,
            {"item": row, "attempts": tries},
            why="removed from the queue",
            size_bytes=item.size,
            days=days,
        )
        db.execute("DELETE FROM attempts WHERE item = ?", (item_id,))
        db.execute("DELETE FROM items WHERE id = ?", (item_id,))
        text = f"{item.name} removed; its file is in the trash"
        journal.record(state, "item.removed", text, item=item_id, data={"file": item.file})
        _move(state.home.items / item.file, state.home.trash / place)
        durable.crash_point("remove.moved")
        return item


def untrash(state: State, thrown: trash.Trashed) -> Item:
    """Bring a removed item back: its file, its row under its own number, its attempts."""
    with state.transaction() as db:
        row = thrown.row["item"]
        item_id = int(row["id"])
        target = state.home.items / row["file"]
        db.execute(
            f"INSERT INTO items({', '.join(row)}) VALUES({', '.join('?' * len(row))})",
            tuple(row.values()),
        )
        for attempt in thrown.row["attempts"]:
            db.execute("INSERT INTO attempts VALUES(?,?,?,?,?,?)", tuple(attempt.values()))
        trash.forget(state, thrown)
        text = f"{thrown.name} is back from the trash"
        journal.record(state, "item.restored", text, item=item_id)
        _move(thrown.folder(state), target)
        durable.crash_point("untrash.item_moved")
        return queue.get(state, item_id)


def recover_files(state: State) -> list[str]:
    """After a kill between the move of an item's file and its transaction: the file goes where
    the rows say. Under the home's lock, before `adopt_orphans`. Idempotent."""
    told = []
    for row in state.db.execute("SELECT file, name FROM items").fetchall():
        place, away = state.home.items / row["file"], state.home.trash / row["file"]
        if place.exists() and sidecar_of(away).exists() and not sidecar_of(place).exists():
            # Killed between the two moves: the sidecar goes first.
            durable.move_tree(sidecar_of(away), sidecar_of(place))
            told.append(f"{row['name']}: its sidecar is back, its removal did not happen")
        if not place.exists() and away.exists():
            _move(away, place)
            told.append(f"{row['name']}: its file is back, its removal did not happen")
    for thrown in trash.listed(state):
        if thrown.kind != "item":
            continue
        place = state.home.items / thrown.row["item"]["file"]
        if thrown.folder(state).exists():
            if sidecar_of(place).exists() and not sidecar_of(thrown.folder(state)).exists():
                durable.move_tree(sidecar_of(place), sidecar_of(thrown.folder(state)))
                told.append(f"{thrown.name}: its sidecar is in the trash, as the file is")
            continue
        if place.exists():
            _move(place, thrown.folder(state))
            told.append(f"{thrown.name}: its file is in the trash, its return did not happen")
    return told


def _move(source: Path, target: Path) -> None:
    """An item's file and its sidecar, to another folder of the store."""
    if sidecar_of(source).exists() and not sidecar_of(target).exists():
        durable.move_tree(sidecar_of(source), sidecar_of(target))
    durable.take_file(source, target)


def _trained(state: State, item: Item) -> bool:
    """Whether any checkpoint on record contains a row of the item."""
    found = state.db.execute(
        "SELECT 1 FROM events WHERE item = ? AND kind IN ('item.training', 'item.trained') LIMIT 1",
        (item.id,),
    ).fetchone()
    return found is not None
