"""How a version goes: the one function that deletes one, by hand or by rule.

What would remain is read back first; then an event and the mark `deleting`, one transaction; then
the folder moves to the trash; then its row leaves the list. Its bytes go only when its time in the
trash is over. A damaged one goes to the quarantine, where nothing ever goes by itself.
Must never take the head, a pinned version, the last two verified ones, the last two verified that
a person or the demo made, or the only good copy.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from queue_store import durable, journal, records, trash
from queue_store.database import State, now
from queue_store.errors import Refused, VerificationFailed
from queue_store.trash import Trashed
from snapshots import inuse, versions
from snapshots.upkeep import quarantine
from snapshots.versions import (
    DELETING,
    FRESH_SECONDS,
    MERGED,
    WEIGHTS,
    WHOLE,
    Version,
    version_folder,
)

PERSON = ("manual", "demo")
"""Kinds that somebody made on purpose; automatic ones do not stand in for them."""

LATEST = 2
"""Verified versions that always stay, of all kinds and of those that a person made."""


@dataclass(frozen=True)
class RemovalPlan:
    """What deleting a version means. `freed_bytes`: what no other name on this disk holds;
    `shares` the checkpoints and versions whose files are the same; `copies` [{target,
    verified_at}] elsewhere; `goes` says it in lines; `refused` why it stays, "" if it may go."""

    version: str
    step: int
    description: str
    size_bytes: int
    freed_bytes: int
    shares: list[str]
    copies: list[dict[str, Any]]
    goes: list[str]
    refused: str


def plan(state: State, name: str, *, days: float) -> RemovalPlan:
    """Look, read no bytes, change nothing. Raises NotFound."""
    version = versions.get(state, name)
    folder = version_folder(state.home, version)
    freed = durable.freed_bytes(folder)
    shares = _shares(state, version)
    rows = state.db.execute(
        "SELECT target, verified_at FROM copies WHERE version = ? AND state = 'verified'",
        (version.id,),
    )
    copies = [dict(row) for row in rows]
    goes = [f"{version.name}, step {version.step}, {version.size_bytes / 1e6:.1f} MB"]
    if version.tags:
        goes.append(f"its tags: {', '.join(version.tags)}")
    where = "quarantine, and stays there" if version.state == "corrupt" else "trash"
    goes.append(
        f"its files go to the {where}" + ("" if where != "trash" else f" for {days:g} days")
    )
    goes.append(
        f"truly freed then: {freed / 1e6:.1f} MB"
        + (f"; the rest is shared with {', '.join(shares)}" if shares else "")
    )
    if copies:
        goes.append(f"copies stay at {', '.join(str(c['target']) for c in copies)}")
    return RemovalPlan(
        version=version.name,
        step=version.step,
        description=version.description,
        size_bytes=version.size_bytes,
        freed_bytes=freed,
        shares=shares,
        copies=copies,
        goes=goes,
        refused=refusal(state, version),
    )


def refusal(state: State, version: Version) -> str:
    """Why a version may not go, "" where it may. Reads the database alone."""
    if version.state == DELETING:
        return "it is on its way already"
    if version.pinned:
        return "it is pinned (trainctl pin --off lets it go)"
    if version.kind == MERGED:
        return ""  # its adapter's version is what the home relies on
    head = records.head(state)
    if head is not None and version.checkpoint in (head.checkpoint.id, head.checkpoint.parent):
        at = version.checkpoint == head.checkpoint.id
        return "training stands on it" if at else "it is what the head came from"
    if version.state == "corrupt":
        return ""
    good = alike(state, version)
    theirs = [v for v in good if v.kind in PERSON]
    if version.id in {v.id for v in theirs[-LATEST:]}:
        return f"it is one of the last {LATEST} verified versions that somebody made"
    if version.id in {v.id for v in good[-LATEST:]}:
        return f"it is one of the last {LATEST} verified versions"
    if version.scope == WEIGHTS:
        return ""  # no training goes on from it
    if len([v for v in good if v.id != version.id]) < LATEST:
        return f"fewer than {LATEST} verified versions would remain"
    return ""


def alike(state: State, version: Version) -> list[Version]:
    """The verified versions that can stand in for this one, oldest first, itself among them where
    it is verified: weights alone do not stand in for a whole state, nor a merged model for an
    adapter."""
    wanted = _stands_for(version)
    found = versions.versions(state)
    return [v for v in found if v.state == "verified" and _stands_for(v) == wanted]


def _stands_for(version: Version) -> str:
    if version.kind == MERGED:
        return MERGED
    return WEIGHTS if version.scope == WEIGHTS else WHOLE


def delete(
    state: State,
    name: str,
    *,
    why: str,
    days: float,
    stop: threading.Event | None = None,
) -> Trashed | None:
    """Delete a version: to the trash for `days` days (a damaged one to the quarantine: None).

    The versions that would remain as the last verified ones are read back first, unless they were
    within a day and are untouched. Raises NotFound, Refused, VerificationFailed (a survivor could
    not be read to its end), OSError.
    """
    version = versions.get(state, name)
    _refuse(state, version)
    if version.state != "corrupt":
        verify_survivors(state, version, stop=stop)
    with inuse.claimed(version.name) as alone:
        if not alone:
            raise Refused(f"{version.name} is being read", mend="try again when that is over")
        if version.state == "corrupt":
            _set_apart(state, version, why)
            return None
        return _to_trash(state, version, why, days)


def verify_survivors(state: State, version: Version, *, stop: threading.Event | None) -> None:
    """Make sure that the versions on which one relies without this one are good now.

    Raises Refused where they are not: then this one is the only good copy.
    """
    good = [v for v in alike(state, version) if v.id != version.id]
    # Automatic ones that are good say nothing of those that a person relies on.
    theirs = [v for v in good if v.kind in PERSON] if version.kind in PERSON else []
    relied = {v.id: v for v in (*good[-LATEST:], *theirs[-LATEST:])}
    for survivor in relied.values():
        if versions.untouched(state, survivor):
            continue
        try:
            versions.verify(state, survivor.name, stop=stop)
        except VerificationFailed as error:
            if versions.get(state, survivor.name).state == "verified":
                raise  # broken off: nothing is known
            raise Refused(
                f"{version.name} stays: {survivor.name}, which would have to do, is damaged"
                f" ({error.what})",
                mend="look at trainctl versions",
            ) from None
    _refuse(state, versions.get(state, version.name))


def recently_verified_after(state: State, version: Version) -> bool:
    """Whether a newer version was verified within a day and is untouched since: what a rule asks
    for before it lets one go."""
    return any(
        v.id > version.id
        and v.verified_at is not None
        and 0 <= now() - v.verified_at <= FRESH_SECONDS
        and versions.untouched(state, v)
        for v in versions.versions(state)
    )


def _refuse(state: State, version: Version) -> None:
    why = refusal(state, version)
    if why:
        raise Refused(f"{version.name} stays: {why}")


def _to_trash(state: State, version: Version, why: str, days: float) -> Trashed:
    home = state.home
    durable.make_folder(home.trash)
    with state.transaction() as db:
        # Asked again inside: a pin, a rollback or another deletion may have come meanwhile.
        version = versions.get(state, version.name)
        _refuse(state, version)
        row = dict(db.execute("SELECT * FROM versions WHERE id = ?", (version.id,)).fetchone())
        place = trash.free_place(state, version.name)
        thrown = trash.insert(
            state,
            "version",
            version.name,
            place,
            row,
            why=why,
            size_bytes=version.size_bytes,
            days=days,
        )
        db.execute("UPDATE versions SET state = ? WHERE id = ?", (DELETING, version.id))
        _event(state, version, "version.deleting", f"{version.name} goes to the trash: {why}")
        durable.crash_point("delete.before_mark")
    durable.crash_point("delete.marked")
    durable.move_tree(version_folder(home, version), home.trash / place)
    durable.crash_point("delete.moved")
    finish(state, thrown)
    durable.crash_point("delete.committed")
    return thrown


def finish(state: State, thrown: Trashed) -> None:
    """The folder is in the trash: the version leaves the list."""
    with state.transaction() as db:
        db.execute("DELETE FROM versions WHERE name = ?", (thrown.name,))
        until = (thrown.expires - thrown.deleted) / trash.DAY
        text = f"{thrown.name} is in the trash for {until:g} days"
        journal.record(state, "version.deleted", text, data={"version": thrown.name})


def _set_apart(state: State, version: Version, why: str) -> None:
    """A damaged version leaves the list; its files stay in the quarantine, for a person."""
    with state.transaction() as db:
        _refuse(state, versions.get(state, version.name))
        db.execute("UPDATE versions SET state = ? WHERE id = ?", (DELETING, version.id))
        text = f"{version.name} is damaged and goes to the quarantine: {why}"
        _event(state, version, "version.deleting", text, quarantine=True)
    durable.crash_point("apart.marked")
    finish_apart(state, version)


def finish_apart(state: State, version: Version) -> None:
    """Move what is left to the quarantine and forget the row."""
    quarantine(state.home, version_folder(state.home, version))
    durable.crash_point("apart.version_moved")
    with state.transaction() as db:
        db.execute("DELETE FROM versions WHERE id = ?", (version.id,))
        text = f"{version.name} is in the quarantine"
        journal.record(state, "version.deleted", text, data={"version": version.name})


def recover(state: State) -> list[str]:
    """After a kill inside a deletion: what had moved goes on, what had not stays, to be verified
    anew. Under the home's lock, before `recover_versions`. Idempotent."""
    told = []
    thrown = {one.name: one for one in trash.listed(state) if one.kind == "version"}
    for version in versions.versions(state):
        if version.state != DELETING:
            continue
        one = thrown.get(version.name)
        moved = one is not None and one.folder(state).exists()
        if one is None:
            finish_apart(state, version)
            told.append(f"{version.name}: its move to the quarantine is finished")
        elif moved:
            finish(state, one)
            told.append(f"{version.name}: its move to the trash is finished")
        else:
            text = f"{version.name} stays: the engine ended before it was moved"
            with state.transaction() as db:
                trash.forget(state, one)
                db.execute("UPDATE versions SET state = 'unverified' WHERE id = ?", (version.id,))
                _event(state, version, "recovered", text)
            told.append(text)
    return told


def _event(state: State, version: Version, kind: str, text: str, **data: Any) -> None:
    journal.record(
        state,
        kind,
        text,
        branch=version.branch,
        step=version.step,
        data={"version": version.name, **data},
    )


def _shares(state: State, version: Version) -> list[str]:
    """Names of checkpoints and versions of this home that hold the same bytes by hard links."""
    mine = set(durable.inodes(version_folder(state.home, version)))
    found = []
    for parent in (state.home.checkpoints, state.home.versions):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
            if folder.name != version.name and mine & set(durable.inodes(folder)):
                found.append(folder.name)
    return found


def columns(row: dict[str, Any]) -> dict[str, Any]:
    """A version's row of the trash as it can stand in the table again: to be verified anew."""
    return {**row, "state": "unverified", "verified_at": None, "seen": "", "tags": row["tags"]}
