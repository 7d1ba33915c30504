"""What a person writes on a version: its pin, its tags, its description.

Rows of the database, each change with its event. The description that a version was made with
also stands in its version.json, which is part of the manifest and never changes: a database
rebuilt from manifests knows that one, and neither tags nor later words (they are in the copies
of state.db and in the journal). Must never touch a version's files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from queue_store import journal
from queue_store.database import State
from queue_store.errors import NotFound, Refused, UsageError
from snapshots.versions import BASE, BEST, Version, get, versions

DESCRIPTION_LIMIT = 4000
"""Characters of the longest description."""

_RESERVED = {
    BEST: ("moves by a paired test alone", "trainctl evaluate VERSION asks for one; pin keeps it"),
    BASE: ("is the name of the base model", "give another name"),
}
"""Tags that nobody gives by hand: what they do, and what to do instead."""

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_NAME = re.compile(r"v\d{3,}")


def pin(state: State, name: str, pinned: bool = True) -> Version:
    """Keep a version for ever, whatever the rules say (or no longer so)."""
    with state.transaction() as db:
        version = get(state, name)
        db.execute("UPDATE versions SET pinned = ? WHERE id = ?", (int(pinned), version.id))
        _tell(state, "version.pinned", version, "pinned" if pinned else "no longer pinned")
        return get(state, version.name)


def tag(state: State, name: str, tag_name: str) -> Version:
    """Give a version a name of one's own. Raises UsageError, NotFound, Refused (another one has
    it, or it is one that moves by itself)."""
    if not _TAG.fullmatch(tag_name) or _NAME.fullmatch(tag_name) or tag_name.isdecimal():
        raise UsageError(
            f"{tag_name!r} is no tag",
            mend="up to 60 letters, digits, dots, dashes, underscores; not v001",
        )
    if tag_name in _RESERVED:
        why, mend = _RESERVED[tag_name]
        raise Refused(f"{tag_name} {why}: it is no tag to give by hand", mend=mend)
    with state.transaction():
        version = get(state, name)
        for other in versions(state):
            if tag_name in other.tags and other.id != version.id:
                raise Refused(
                    f"the tag {tag_name} is on {other.name} already",
                    mend=f"trainctl tag {other.name} {tag_name} --off takes it off",
                )
        if tag_name not in version.tags:
            _set_tags(state, version, {*version.tags, tag_name}, f"is tagged {tag_name}")
        return get(state, version.name)


def move_best(state: State, name: str, why: str, data: Mapping[str, object]) -> Version:
    """Put the tag best on a version and take it off the one that has it, in one transaction with
    `why` and its `data` in the journal: what a paired test decided. A person can take it off,
    with `untag`, and not give it. Raises NotFound."""
    with state.transaction() as db:
        version = get(state, name)
        if BEST in version.tags:
            return version
        left = ""
        for other in versions(state):
            if BEST in other.tags:
                left = other.name
                tags = json.dumps(sorted({*other.tags} - {BEST}))
                db.execute("UPDATE versions SET tags = ? WHERE id = ?", (tags, other.id))
        tags = json.dumps(sorted({*version.tags, BEST}))
        db.execute("UPDATE versions SET tags = ? WHERE id = ?", (tags, version.id))
        _tell(state, "best.moved", version, f"is the best version: {why}", left=left, **data)
        return get(state, version.name)


def best(state: State) -> Version | None:
    """The version that is tagged best; None where none is."""
    return next((one for one in versions(state) if BEST in one.tags), None)


def untag(state: State, name: str, tag_name: str) -> Version:
    """Take a tag off a version. Raises NotFound (no such version, or not its tag)."""
    with state.transaction():
        version = get(state, name)
        if tag_name not in version.tags:
            has = f"it has {', '.join(version.tags)}" if version.tags else "it has none"
            raise NotFound(f"{version.name} has no tag {tag_name}", mend=has)
        left = {*version.tags} - {tag_name}
        _set_tags(state, version, left, f"is no longer tagged {tag_name}")
        return get(state, version.name)


def describe(state: State, name: str, text: str) -> Version:
    """Say anew what a version is; "" for nothing. Raises NotFound, UsageError (too long)."""
    if len(text) > DESCRIPTION_LIMIT:
        raise UsageError(
            f"a description has at most {DESCRIPTION_LIMIT} characters, this has {len(text)}"
        )
    with state.transaction() as db:
        version = get(state, name)
        if text != version.description:
            db.execute("UPDATE versions SET description = ? WHERE id = ?", (text, version.id))
            said = f"described: {text}" if text else "has no description now"
            _tell(state, "version.described", version, said, before=version.description)
        return get(state, version.name)


def _set_tags(state: State, version: Version, tags: set[str], said: str, **data: object) -> None:
    state.db.execute(
        "UPDATE versions SET tags = ? WHERE id = ?", (json.dumps(sorted(tags)), version.id)
    )
    _tell(state, "version.tagged", version, said, tags=sorted(tags), **data)


def _tell(state: State, kind: str, version: Version, said: str, **data: object) -> None:
    journal.record(
        state,
        kind,
        f"{version.name} {said}",
        branch=version.branch,
        step=version.step,
        data={"version": version.name, **data},
    )
