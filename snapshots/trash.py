"""What is in the trash: listing, bringing back, and emptying it.

A version comes back under its own number, with its tags and pin, and is verified anew; an item
comes back to the queue. Emptying is an event before a byte goes, and says what was truly freed.
"""

from __future__ import annotations

from typing import Any

import orjson

from queue_store import durable, intake, journal, trash
from queue_store.database import State, now
from queue_store.errors import NotFound, Refused
from queue_store.items import Item
from queue_store.trash import Trashed
from snapshots import removal, versions

Json = dict[str, Any]


def as_json(state: State, thrown: Trashed) -> Json:
    """An object of `trainctl trash --json`; times in seconds since the epoch, sizes in bytes."""
    return {
        "name": thrown.name,
        "kind": thrown.kind,
        "place": thrown.place,
        "why": thrown.why,
        "size_bytes": thrown.size_bytes,
        "freed_bytes": durable.freed_bytes(thrown.folder(state)),
        "deleted": thrown.deleted,
        "expires": thrown.expires,
    }


def listed(state: State) -> list[Json]:
    """What can be brought back or emptied, oldest first."""
    return [as_json(state, one) for one in trash.listed(state) if not _on_its_way(state, one)]


def restore(state: State, name: str) -> Json:
    """Bring back the newest thing of that name. Raises NotFound, Refused."""
    thrown = trash.get(state, name)
    if thrown.expires <= 0 or not thrown.folder(state).exists():
        raise NotFound(f"the bytes of {thrown.name} are gone already")
    told = as_json(state, thrown)
    if thrown.kind == "item":
        item = intake.untrash(state, thrown)
        return {**told, "restored": f"item {item.id}"}
    if any(v.name == thrown.name for v in versions.versions(state)):
        raise Refused(f"there is a version {thrown.name}")
    target = state.home.versions / thrown.name
    with state.transaction():
        text = f"{thrown.name} comes back from the trash"
        journal.record(state, "version.restoring", text, data={"version": thrown.name})
    durable.crash_point("untrash.journaled")
    durable.move_tree(thrown.folder(state), target)
    durable.crash_point("untrash.moved")
    finish_restore(state, thrown)
    return {**told, "restored": thrown.name}


def restore_item(state: State, item_id: int) -> Item:
    """Take back the removal of an item: its file, its place, its priority and its attempts.

    Raises NotFound where it is not in the trash, or its file is gone from there.
    """
    row = state.db.execute(
        "SELECT * FROM trash WHERE kind = 'item' AND json_extract(row, '$.item.id') = ?"
        " ORDER BY id DESC LIMIT 1",
        (item_id,),
    ).fetchone()
    thrown = None if row is None else Trashed.of(row)
    if thrown is None or thrown.expires <= 0 or not thrown.folder(state).exists():
        raise NotFound(f"item {item_id} is not in the trash", mend="trainctl trash lists what is")
    return intake.untrash(state, thrown)


def finish_restore(state: State, thrown: Trashed) -> None:
    """The folder is back under versions/: so is its row, to be verified anew. Tags that another
    version has by now are left out."""
    row = removal.columns(thrown.row)
    with state.transaction() as db:
        taken = {tag for v in versions.versions(state) for tag in v.tags}
        tags = [tag for tag in orjson.loads(row["tags"]) if tag not in taken]
        row["tags"] = orjson.dumps(tags).decode()
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO versions({names}) VALUES({marks})", tuple(row.values()))
        trash.forget(state, thrown)
        text = f"{thrown.name} is back from the trash, to be verified anew"
        journal.record(state, "version.restored", text, data={"version": thrown.name})
        durable.crash_point("untrash.before_commit")


def empty(state: State, name: str | None = None, *, expired_only: bool = False) -> list[Json]:
    """Unlink what is in the trash: all of it, one thing, or what has expired. Returns what went,
    with the bytes truly freed."""
    wanted = [trash.get(state, name)] if name is not None else trash.listed(state)
    gone = []
    for thrown in wanted:
        if _on_its_way(state, thrown) or (expired_only and thrown.expires > now()):
            continue
        gone.append(unlink(state, thrown))
    return gone


def unlink(state: State, thrown: Trashed) -> Json:
    """One thing goes for good: event, bytes, row."""
    told = as_json(state, thrown)
    with state.transaction():
        trash.expire(state, thrown)
        text = f"{thrown.name} goes for good: {told['freed_bytes'] / 1e6:.1f} MB freed"
        journal.record(state, "trash.emptied", text, data={"name": thrown.name, "why": thrown.why})
    durable.crash_point("empty.journaled")
    told["freed_bytes"] = durable.discard(thrown.folder(state), state.home)
    if thrown.kind == "item":
        durable.discard(intake.sidecar_of(thrown.folder(state)), state.home)
    durable.crash_point("empty.unlinked")
    with state.transaction():
        trash.forget(state, thrown)
    return told


def recover(state: State) -> list[str]:
    """After a kill inside a restore or an emptying. Under the home's lock, after
    `removal.recover` and before `recover_versions`. Idempotent."""
    told = []
    known = {v.name for v in versions.versions(state)}
    for thrown in trash.listed(state):
        if thrown.folder(state).exists() or _on_its_way(state, thrown):
            continue
        came_back = (state.home.versions / thrown.name).is_dir() and thrown.name not in known
        if thrown.kind == "version" and came_back:
            finish_restore(state, thrown)
            told.append(f"{thrown.name}: its way back from the trash is finished")
            continue
        with state.transaction():
            trash.forget(state, thrown)
            text = f"{thrown.name} is no longer in the trash"
            journal.record(state, "recovered", text)
        told.append(text)
    return told


def _on_its_way(state: State, thrown: Trashed) -> bool:
    """Whether a version is still marked `deleting`: it has not arrived."""
    row = state.db.execute(
        "SELECT 1 FROM versions WHERE name = ? AND state = ?", (thrown.name, versions.DELETING)
    ).fetchone()
    return thrown.kind == "version" and row is not None
