"""What happens to checkpoints beside training: recovery at the start, removal by rule.

`recover` runs once, under the home's lock, before the engine looks at the head or the queue.
It is idempotent, and a kill inside it is repaired by the next one. Removal is an event before
it is a deletion. Must never remove the head, what somebody uses, or damaged files (those are
set apart in store/quarantine, for a person to look at).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from queue_store import durable, journal, queue, records
from queue_store.database import State
from queue_store.errors import VerificationFailed
from queue_store.head import move_head
from queue_store.home import Home
from queue_store.items import ItemState
from queue_store.records import Checkpoint
from snapshots import manifest
from snapshots.checkpoints import (
    Ledger,
    claimed_for_removal,
    folder_of,
    line,
    newest_verified,
    register,
)

_TMP = re.compile(r".*?-(\d+)-")


def recover(state: State) -> list[str]:
    """Bring store/tmp and store/checkpoints in agreement with the database, after a kill at any
    moment. Returns what was done, a line each; the journal says the same."""
    sweep_tmp(state.home)
    told = []
    known = {c.name: c for c in records.checkpoints(state, deleted=True)}
    for folder in _folders(state.home.checkpoints):
        row = known.get(folder.name)
        if row is None:
            told.append(_orphan(state, folder))
        elif row.deleted is not None:  # killed between the event and the removal
            durable.discard(folder, state.home)
    return told


def sweep_tmp(home: Home) -> int:
    """Remove what processes that are gone left in store/tmp; returns how many things."""
    durable.make_folder(home.tmp)
    swept = 0
    for path in sorted(home.tmp.iterdir()):
        match = _TMP.match(path.name)
        if match is None or not _alive(int(match[1]), path):
            durable.discard(path, home)
            swept += 1
    return swept


def resume_point(state: State) -> Checkpoint:
    """The checkpoint to go on from: the head, or, where its files are damaged, the newest good
    one before it. Then the damaged ones are set apart and the head moves along its own branch;
    what trained since goes to the front of the queue.

    Raises NotFound (nothing trained yet), VerificationFailed (nothing good is left).
    """
    found, damaged = newest_verified(state)
    for checkpoint, why in damaged:
        set_apart(state, checkpoint, why)
    head = records.head(state)
    if head is not None and head.checkpoint.id != found.id:
        why = f"{head.checkpoint.name} is damaged: going on from {found.name}"
        move_head(state, found, why=why, new=False)
    return found


def set_apart(state: State, checkpoint: Checkpoint, why: str) -> None:
    """Move a damaged checkpoint's folder to the quarantine; its row says since when it is gone."""
    # The folder first: a row marked as removed lets the next start clean its folder away.
    quarantine(state.home, folder_of(state.home, checkpoint))
    durable.crash_point("apart.moved")
    records.mark_deleted(state, checkpoint.id, f"damaged, set apart in quarantine: {why}")


def quarantine(home: Home, folder: Path) -> Path | None:
    """Move a folder of the store to store/quarantine under a free name; None if it is gone."""
    if not folder.exists():
        return None
    durable.make_folder(home.quarantine)
    for n in range(1, 1000):
        target = home.quarantine / (folder.name if n == 1 else f"{folder.name}.{n}")
        if not target.exists():
            break
    durable.rename_no_replace(folder, target)
    durable.fsync_folder(home.quarantine)
    durable.fsync_folder(folder.parent)
    return target


def prune_checkpoints(
    state: State, *, keep: int, keep_best: int = 0, protected: Iterable[int] = ()
) -> list[Checkpoint]:
    """Remove checkpoints by rule: all but the newest `keep`, the `keep_best` of lowest validation
    loss, the head, those `protected` (ids) or in use, and those from which an unfinished item
    started (undoing it goes back there). Returns the removed ones, oldest first.

    Nothing is removed while the head itself is damaged.
    """
    head = records.head(state)
    present = [c for c in records.checkpoints(state) if c.kind != "base"]
    if head is None or not present:
        return []
    if head.checkpoint.kind != "base":
        expected = head.checkpoint.manifest_digest
        folder = folder_of(state.home, head.checkpoint)
        if manifest.check(folder, deep=False, expected=expected):
            return []
    kept = {head.checkpoint.id, *protected, *_starts(state, head.checkpoint)}
    kept |= {c.id for c in present[-max(keep, 1) :]}
    measured = [c for c in present if c.val_loss is not None]
    kept |= {c.id for c in sorted(measured, key=lambda c: (c.val_loss, c.id))[:keep_best]}
    removed = []
    for checkpoint in present:
        if checkpoint.id in kept:
            continue
        with claimed_for_removal(checkpoint) as unused:
            if unused:
                records.mark_deleted(state, checkpoint.id, f"keep {keep}, best {keep_best}")
                durable.crash_point("prune.journaled")
                durable.discard(folder_of(state.home, checkpoint), state.home)
                removed.append(checkpoint)
    return removed


def _starts(state: State, head: Checkpoint) -> set[int]:
    """For every unfinished item the newest checkpoint of the line that has nothing of it."""
    wanted = {
        item.id
        for of in (ItemState.PREPARING, ItemState.TRAINING, ItemState.PAUSED, ItemState.TRAINED)
        for item in queue.items(state, of)
    }
    found: set[int] = set()
    for checkpoint in line(state, head):
        if not wanted:
            break
        if checkpoint.deleted is not None:
            continue
        progress = checkpoint.progress
        free = {i for i in wanted if i not in progress.cursors and i not in progress.finished}
        if free:
            found.add(checkpoint.id)
            wanted -= free
    return found


def _orphan(state: State, folder: Path) -> str:
    """A published folder without a row: finish its commit, or move it out of the way."""
    try:
        sealed = manifest.read_manifest(folder)
        manifest.refuse(manifest.check(folder), folder, "")
        ledger = Ledger.read(folder)
    except VerificationFailed as error:
        return _told(state, f"{folder.name} was never finished, set apart: {error.what}", folder)
    if ledger.kind == "restored":
        # Nothing but links to a version's files, of a rollback that did not happen.
        durable.discard(folder, state.home)
        return f"{folder.name} removed: its rollback did not happen"
    head = records.head(state)
    follows = (
        head is not None
        and ledger.parent == head.checkpoint.id
        and ledger.branch == head.branch
        and ledger.id == records.next_checkpoint_id(state)
        and ledger.canonical_name == folder.name
    )
    if not follows:
        return _told(state, f"{folder.name} does not follow the head, set apart", folder)
    text = f"{folder.name} was complete: its commit is finished now"
    with state.transaction():
        register(state, ledger, sealed)
        journal.record(state, "recovered", text, branch=ledger.branch, step=ledger.step)
    return text


def _told(state: State, text: str, folder: Path) -> str:
    with state.transaction():
        journal.record(state, "recovered", text)
    quarantine(state.home, folder)
    return text


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []


def _alive(pid: int, path: Path) -> bool:
    """Whether the process that made `path` still runs (and is not a later one of its number)."""
    import psutil

    try:
        return bool(psutil.Process(pid).create_time() <= path.lstat().st_ctime + 1)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
