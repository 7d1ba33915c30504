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

from queue_store import durable, jobs, journal, queue, records
from queue_store.database import State
from queue_store.errors import VerificationFailed
from queue_store.head import move_head
from queue_store.home import Home
from queue_store.items import ItemState
from queue_store.records import Checkpoint
from queue_store.transitions import end_attempt, move_state
from snapshots import ledger_line, manifest
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
    # By id: where several commits are missing, each follows the one before it.
    for folder in sorted(_folders(state.home.checkpoints), key=_id_of):
        row = known.get(folder.name)
        if row is None:
            told.append(_orphan(state, folder))
        elif row.deleted is not None:  # killed between the event and the removal
            durable.discard(folder, state.home)
    return told


def sweep_tmp(home: Home, prefix: str = "") -> int:
    """Remove what processes that are gone left in store/tmp (under names that begin with `prefix`);
    returns how many things."""
    durable.make_folder(home.tmp)
    swept = 0
    for path in sorted(path for path in home.tmp.iterdir() if path.name.startswith(prefix)):
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


def kept_checkpoints(
    state: State, *, keep: int, keep_best: int = 0, protected: Iterable[int] = ()
) -> dict[int, list[str]]:
    """For every checkpoint on disk (by id, oldest first) the reasons for which it stays; without
    one it may go. The rules: the newest `keep`, the `keep_best` of lowest validation loss, the
    head, those `protected` (ids), those that an evaluation job needs, and those from which an
    unfinished item started (undoing it goes back there)."""
    present = [c for c in records.checkpoints(state) if c.kind != "base"]
    reasons: dict[int, list[str]] = {c.id: [] for c in present}
    head = records.head(state)
    if head is None:
        return reasons

    def because(ids: Iterable[int], why: str) -> None:
        for checkpoint_id in ids:
            if checkpoint_id in reasons:
                reasons[checkpoint_id].append(why)

    because([head.checkpoint.id], "head")
    because((c.id for c in present[-max(keep, 1) :]), f"last {max(keep, 1)}")
    measured = [c for c in present if c.val_loss is not None]
    best = sorted(measured, key=lambda c: (c.val_loss, c.id))[:keep_best]
    because((c.id for c in best), f"best {keep_best} by validation loss")
    because(_starts(state, head.checkpoint), "an unfinished item started there")
    asked = jobs.needed(state)
    because((c.id for c in present if c.name in asked), "an evaluation job needs it")
    because(protected, "in use")
    return reasons


def prune_checkpoints(
    state: State, *, keep: int, keep_best: int = 0, protected: Iterable[int] = ()
) -> list[Checkpoint]:
    """Remove checkpoints for which `kept_checkpoints` has no reason and that nobody uses. Returns
    the removed ones, oldest first.

    Nothing is removed while the head itself is damaged.
    """
    head = records.head(state)
    if head is None:
        return []
    if head.checkpoint.kind != "base":
        expected = head.checkpoint.manifest_digest
        folder = folder_of(state.home, head.checkpoint)
        if manifest.check(folder, deep=False, expected=expected):
            return []
    reasons = kept_checkpoints(state, keep=keep, keep_best=keep_best, protected=protected)
    removed = []
    for checkpoint_id, why in reasons.items():
        if why:
            continue
        checkpoint = records.checkpoint(state, checkpoint_id)
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


def _id_of(folder: Path) -> tuple[int, str]:
    try:
        return Ledger.read(folder).id, folder.name
    except VerificationFailed:
        return 0, folder.name


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
        and _knows_items(state, ledger)
    )
    if not follows:
        return _told(state, f"{folder.name} does not follow the head, set apart", folder)
    text = f"{folder.name} was complete: its commit is finished now"
    with state.transaction():
        _as_trained(state, ledger)
        register(state, ledger, sealed)
        journal.record(state, "recovered", text, branch=ledger.branch, step=ledger.step)
    return text


def _knows_items(state: State, ledger: Ledger) -> bool:
    """Whether every item that a checkpoint contains has a row."""
    have = {row[0] for row in state.db.execute("SELECT id FROM items")}
    return {*ledger.cursors, *records.parse_ranges(ledger.finished)} <= have


def _as_trained(state: State, ledger: Ledger) -> None:
    """Items that the checkpoint finished and whose rows are of before (their commits went with a
    lost write-ahead log): trained, so that its transaction makes them done."""
    for number in sorted(records.parse_ranges(ledger.finished)):
        item = queue.get(state, number)
        if item.state in (ItemState.DONE, ItemState.TRAINED, ItemState.REJECTED):
            continue
        if item.state not in (ItemState.PAUSED, ItemState.TRAINING, ItemState.PREPARING):
            text = f"{item.name} has trained"
            move_state(state, number, ItemState.PAUSED, text, reason="recovered")
        end_attempt(state, number, "restart")
        ledger_line.count_rows(state, number, ledger_line.ends(ledger.line, ledger.step))
        move_state(
            state,
            number,
            ItemState.TRAINED,
            f"{item.name} trained, by the ledger of {ledger.canonical_name}",
        )


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
        process = psutil.Process(pid)
        # One that has ended and that nobody waited for, as in a container without an init.
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(process.create_time() <= path.lstat().st_ctime + 1)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
