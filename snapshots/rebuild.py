"""state.db made anew, where it is gone or unreadable: of its newest sound copy, brought forward
with what is newer in the store, or wholly of the store's ledgers and files.

The new database is made beside, whole and checked, before the old file is set apart in
store/quarantine; a kill at any moment leaves a home that refuses to start and can be rebuilt.
Under the home's lock. Must never delete the old file, nor change what lies in the store.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from queue_store import dbbackup, durable, intake, journal, records
from queue_store.database import State, open_at, open_state
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.home import Home
from snapshots import refill, upkeep
from snapshots.found import Found, look
from snapshots.versions import recover_versions

UNKNOWN = (
    "items skipped, failed or removed since",
    "priorities and the order of the queue",
    "pins, tags and descriptions given to versions later",
)
"""What no file tells, of the time that the copy does not cover."""


@dataclass(frozen=True)
class RebuildPlan:
    """What a rebuild would do. `copy` is the copy of state.db that it starts from, None for the
    manifests alone; `problem` what is wrong with state.db now ("" where nothing is); `head` the
    name of the checkpoint that training would stand on, `step` its global step; the numbers are
    those of checkpoints, versions and item files in the store; `damaged` a line each."""

    copy: str | None
    problem: str
    head: str
    step: int
    checkpoints: int
    versions: int
    items: int
    damaged: tuple[str, ...]


def problem(home: Home) -> str:
    """What is wrong with state.db, "" for a sound one."""
    if not home.state_db.exists():
        return "it is gone"
    wrong = dbbackup.problems(home.state_db)
    return wrong[0] if wrong else ""


def plan(home: Home, source: str = "") -> RebuildPlan:
    """Look, and change nothing. `source`: backup, manifests, or "" for the best there is.

    Raises Refused (the database is sound and no source is named; no sound copy), NotFound.
    """
    wrong = problem(home)
    if not wrong and not source:
        raise Refused(
            "the database is sound: there is nothing to rebuild",
            where=str(home.state_db),
            mend="name a source with --from to go back to it all the same",
        )
    copy, bad = (None, []) if source == "manifests" else dbbackup.newest_good(home)
    if source == "backup" and copy is None:
        raise NotFound(
            "no sound copy of state.db",
            where=str(home.backups),
            mend="--from manifests makes it of the store alone",
        )
    found = look(home)
    head = found.present[-1] if found.present else None
    files = home.items.iterdir() if home.items.is_dir() else ()
    return RebuildPlan(
        copy=copy.path.name if copy else None,
        problem=wrong,
        head=head.canonical_name if head else "the base model",
        step=head.step if head else 0,
        checkpoints=len(found.present),
        versions=len(found.infos),
        items=sum(not p.name.endswith(intake.SIDECAR) for p in files),
        damaged=(
            *(f"{one.path.name}: {why}" for one, why in bad),
            *(f"{path.name}: {why}" for path, why in found.damaged),
        ),
    )


def rebuild(home: Home, made: RebuildPlan) -> list[str]:
    """Do it. Returns what was done and what stays unknown, a line each; the engine starts paused.

    Raises OSError, sqlite3.Error, VerificationFailed: then the old file is where it was, or in
    the quarantine, and another rebuild starts from the beginning.
    """
    home.create()
    upkeep.sweep_tmp(home)
    tmp = durable.new_tmp(home, "rebuild")
    try:
        told = _make(home, made, tmp / "state.db")
        durable.crash_point("rebuild.made")
        apart = set_apart(home, home.state_db)
        if apart is not None:
            told.append(f"the old database is in {apart}")
        durable.crash_point("rebuild.apart")
        durable.take_file(tmp / "state.db", home.state_db)
        durable.crash_point("rebuild.placed")
    finally:
        durable.discard(tmp, home)
    with open_state(home) as state:
        told += [f"adopted {item.name}" for item in intake.adopt_orphans(state)]
        told += upkeep.recover(state)
        if records.head(state) is not None:
            upkeep.resume_point(state)
    return told


def set_apart(home: Home, database: Path) -> Path | None:
    """Move a database and what belongs to it to a folder of the quarantine; None if none is
    there."""
    files = [database.with_name(database.name + end) for end in ("", "-wal", "-shm", "-journal")]
    files = [path for path in files if path.exists()]
    if not files:
        return None
    stem = f"{database.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = next(
        place
        for n in range(1000)
        if not (place := home.quarantine / (f"{stem}.{n}" if n else stem)).exists()
    )
    durable.make_folder(folder)
    # The database first: without it the home refuses to start. A write-ahead log that stays
    # would be played into the new one, so it is looked for again by whoever was killed here.
    for path in files:
        durable.take_file(path, folder / path.name)
        durable.crash_point("rebuild.moved")
    return folder


def _make(home: Home, made: RebuildPlan, path: Path) -> list[str]:
    """The new database as one checked and synced file at `path`."""
    if made.copy is not None:
        durable.copy_file(home.backups / made.copy, path)
    else:
        durable.write_new(path, b"")
    found = look(home)
    with closing(open_at(home, path)) as state:
        told = _fill(state, made, found) + recover_versions(state)
        state.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        state.db.execute("PRAGMA journal_mode = DELETE")
    wrong = dbbackup.problems(path)
    if wrong:
        raise VerificationFailed(f"the rebuilt database is damaged: {wrong[0]}", where=str(path))
    durable.fsync_file(path)
    return told


def _fill(state: State, made: RebuildPlan, found: Found) -> list[str]:
    """Rows of what the store holds, the pause, and the event that says what is unknown."""
    with state.transaction():
        work = refill.Refill(state, found)
        work.fill()
        state.meta_set("paused", True)
        source = f"its copy {made.copy}" if made.copy else "the store's manifests"
        at = records.head(state)
        stands = f"step {at.checkpoint.step} ({at.checkpoint.name})" if at else "the base model"
        unknown = [*UNKNOWN, *dict.fromkeys(work.unknown)]
        text = f"state.db rebuilt from {source}: training stands on {stands} and is paused"
        told = [text, *(f"unknown: {one}" for one in unknown), *made.damaged]
        journal.record(
            state,
            "rebuilt",
            f"{text}; unknown: {'; '.join(unknown)}",
            branch=at.branch if at else None,
            step=at.checkpoint.step if at else None,
            data={"copy": made.copy, "unknown": unknown, "damaged": list(made.damaged)},
        )
    return told
