"""Rollback and restore: stand on a version again, without losing the state that one leaves.

`plan` says what would be lost; `apply` does it, if nothing that the plan was shown for changed:
the target is verified (unless it was within a day, and its files are untouched), what is current
becomes a version, the target's files become a new checkpoint by hard links, and one transaction
moves the head and starts a branch. The version of what is left is verified afterwards, by the
caller: its bytes were digested while they were written.
Works without an engine; whoever calls holds the home's lock. Must never delete, overwrite or
load anything: what was is still there, under its own name.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from queue_store import config, durable, queue, records
from queue_store.database import CommitUnknown, State, now, open_metrics
from queue_store.errors import NotFound, Refused
from queue_store.head import ROLLED_BACK, move_head
from queue_store.records import Checkpoint, Head, Progress
from snapshots import fits, ledger_line, manifest, versions
from snapshots.checkpoints import LEDGER, Ledger, free_name, line, made_by, seal
from snapshots.versions import (
    BASE,
    DELETING,
    IMPORTED,
    INFO,
    MERGED,
    WEIGHTS,
    Version,
    version_folder,
)


@dataclass(frozen=True)
class RollbackPlan:
    """What a rollback would do. `step` is where training stands, `target_step` where it would;
    `steps_lost` steps of the present line are no longer part of the model, which took
    `hours_lost` of training; `items` [{id, name, becomes}] change; `token` tells a plan from
    one made before something changed."""

    version: str
    description: str
    target_step: int
    branch: int
    step: int
    steps_lost: int
    hours_lost: float
    items: tuple[dict[str, Any], ...]
    keeps: str
    token: str


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did: the version that holds the state it left (not read back yet), and the
    new head."""

    saved: Version
    head: Head
    target: Version


def plan(
    state: State,
    version: str | None = None,
    *,
    live_step: int | None = None,
    live_progress: Progress | None = None,
) -> RollbackPlan:
    """What going back to `version` means; without a name, to the newest verified version of the
    head's line with an earlier step. `live_step` and `live_progress` are those of a running
    engine, which is ahead of its head.

    Raises NotFound (no such version, nothing to go back to) and Refused (it cannot train on).
    """
    head = _head(state)
    step = head.checkpoint.step if live_step is None else live_step
    target = _default(state, head, step) if version is None else versions.get(state, version)
    _usable(state, target)
    then = records.checkpoint(state, target.checkpoint)
    lost = _lost_steps(state, target, live_step is not None)
    return RollbackPlan(
        version=target.name,
        description=target.description,
        target_step=target.step,
        branch=head.branch,
        step=step,
        steps_lost=lost[0],
        hours_lost=round(lost[1] / 3600, 3),
        items=tuple(_changes(state, live_progress or head.checkpoint.progress, then.progress)),
        keeps=f"the present state becomes a version of its own, step {step}; nothing is deleted",
        token=token(state, target),
    )


def token(state: State, target: Version) -> str:
    """What a plan was made for: the target, the branch, and the newest version.

    The head's checkpoint is not in it: a running engine saves every minute, and a plan that a
    person reads must not go stale by that. Another rollback changes the branch.
    """
    newest = max((version.id for version in versions.versions(state)), default=0)
    text = f"{target.name} {target.manifest_digest} {_head(state).branch} {newest}"
    return blake3(text.encode()).hexdigest()[:16]


def check(state: State, made: RollbackPlan) -> Version:
    """The target of a plan that still holds. Raises Refused for a stale one, NotFound."""
    target = versions.get(state, made.version)
    _usable(state, target)
    if token(state, target) != made.token:
        raise Refused(
            "the rollback was planned for another state: head or versions changed since",
            mend="look at the plan again",
        )
    return target


def apply(state: State, made: RollbackPlan) -> RolledBack:
    """Do what the plan says. The head holds the present state (a running engine saves first).
    Reads no version that `versions.untouched` vouches for; whoever calls verifies `saved`.

    Raises Refused (stale), VerificationFailed (the target is damaged, then nothing changed; or
    files of the present state are missing or cut), OSError.
    """
    target = check(state, made)
    # A damaged target must be known before anything else happens.
    if not versions.untouched(state, target):
        target = versions.verify(state, target.name)
    saved = versions.create(
        state,
        description=f"before rollback to {target.name}",
        kind="before_rollback",
        verified=False,
    )
    durable.crash_point("rollback.saved")
    then = records.checkpoint(state, target.checkpoint)
    if target.scope == BASE:
        head = _move(state, target, then, None, None)
        return RolledBack(saved, head, target)
    ledger, sealed = _materialise(state, target, then)
    try:
        head = _move(state, target, then, ledger, sealed)
    except CommitUnknown:
        raise  # the head may stand on it: the next start judges
    except BaseException:
        durable.discard(state.home.checkpoints / ledger.canonical_name, state.home)
        raise
    durable.crash_point("rollback.committed")
    return RolledBack(saved, head, target)


def _move(
    state: State,
    target: Version,
    then: Checkpoint,
    ledger: Ledger | None,
    sealed: manifest.Manifest | None,
) -> Head:
    """The one transaction: branch, the new checkpoint's row, head, items, events."""
    with state.transaction():
        before = _head(state)
        why = f"rolled back to {target.name} (step {target.step})"
        branch = records.new_branch(state, before.branch, then.id, target.step, why)
        standing = then
        if ledger is not None and sealed is not None:
            row = records.insert_checkpoint(
                state,
                name=ledger.canonical_name,
                kind="restored",
                branch=branch,
                step=then.step,
                progress=then.progress,
                parent=then.id,
                item=then.item,
                cursor=then.cursor,
                size_bytes=sealed.size_bytes,
                loss=then.loss,
                val_loss=then.val_loss,
                learning_rate=then.learning_rate,
                manifest_digest=sealed.digest,
                weights_digest=sealed.weights_digest,
            )
            standing = records.checkpoint(state, row)
        head = move_head(
            state,
            standing,
            why=why,
            branch=branch,
            rolled_back=True,
            kind="rollback",
            data={"version": target.name, "from_step": before.checkpoint.step},
        )
        durable.crash_point("rollback.before_commit")
    return head


def _materialise(
    state: State, target: Version, then: Checkpoint
) -> tuple[Ledger, manifest.Manifest]:
    """A new checkpoint folder with the version's files: other names for the same bytes."""
    home = state.home
    source = version_folder(home, target)
    entries = [
        entry for entry in manifest.read_manifest(source).files if entry.name not in (INFO, LEDGER)
    ]
    checkpoint_id = records.next_checkpoint_id(state)
    ledger = Ledger(
        id=checkpoint_id,
        kind="restored",
        canonical_name=free_name(state, then.step, checkpoint_id),
        timestamp=time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(now())),
        branch=then.branch,
        step=then.step,
        run=None,
        parent=then.id,
        item=then.item,
        item_cursor=then.cursor,
        cursors=then.progress.cursors,
        train_loss=then.loss,
        val_loss=then.val_loss,
        learning_rate=then.learning_rate,
        training_file="",
        total_examples_trained=0,
        size_bytes=sum(entry.size for entry in entries),
        has_optimizer=any(entry.name.startswith("optimizer") for entry in entries),
        weights_digest=target.weights_digest,
        files={entry.name: {"size": entry.size, "blake3": entry.blake3} for entry in entries},
        created_by=made_by(),
        **ledger_line.of_checkpoint(state, then),
    )
    digests = {entry.name: entry.blake3 for entry in entries}
    tmp = durable.new_tmp(home, "rollback")
    try:
        durable.link_tree(source, tmp, digests)
        sealed = seal(tmp, ledger, digests)
        synced = [*digests, LEDGER, manifest.MANIFEST]
        durable.publish(tmp, home.checkpoints / ledger.canonical_name, synced=synced)
    except BaseException:
        durable.discard(tmp, home)
        raise
    durable.crash_point("rollback.published")
    return ledger, sealed


def _head(state: State) -> Head:
    head = records.head(state)
    if head is None:
        raise NotFound("nothing has trained here yet, so there is nothing to go back from")
    return head


def _default(state: State, head: Head, step: int) -> Version:
    mine = {checkpoint.id for checkpoint in line(state, head.checkpoint)}
    for version in reversed(versions.versions(state)):
        usable = version.state == "verified" and version.scope != WEIGHTS
        if usable and version.checkpoint in mine and version.step < step:
            return version
    raise NotFound(
        f"no verified version of this line with a step before {step}",
        mend="name one (trainctl versions lists them), or make them with trainctl snapshot",
    )


def _usable(state: State, target: Version) -> None:
    if target.kind == IMPORTED:
        folder = version_folder(state.home, target)
        if why := fits.misfit(folder, state.home, config.load(state.home.config)):
            raise Refused(
                f"{target.name} does not fit this home: {why}",
                mend="make a home for it: trainctl init",
            )
    elif target.kind == MERGED:
        raise Refused(
            f"{target.name} is a full model, merged from an adapter, and this home trains the"
            " adapter",
            mend="restore the adapter's version, or make a home with model.base ="
            f" {str(version_folder(state.home, target))!r}",
        )
    elif target.scope == WEIGHTS:
        raise Refused(
            f"{target.name} holds weights only, without optimizer and cursors: "
            "training cannot go on from it",
            mend="roll back to a whole version, or start a home with its folder as model.base",
        )
    if target.state == DELETING:
        raise Refused(
            f"{target.name} is on its way to the trash", mend="trainctl trash restores it"
        )
    if target.state == "corrupt":
        raise Refused(
            f"{target.name} is damaged", mend="use another version; see trainctl versions"
        )
    theirs, ours = _model(state, target), versions.model_of(state)
    for key, what in (("method", "model.method"), ("base_digest", "the base model")):
        if key == "method" and target.kind == IMPORTED:
            continue  # an older system's adapter says nothing of its base's precision; see misfit
        # Unknown in versions made before this was written down, and before the first step.
        if theirs.get(key) and ours[key] and theirs[key] != ours[key]:
            shown = [
                value[:12] if key == "base_digest" else value for value in (theirs[key], ours[key])
            ]
            raise Refused(
                f"{target.name} was trained with another model: {what} was {shown[0]},"
                f" here it is {shown[1]}",
                mend=f"make a home for it with model.base = {theirs.get('base', '')!r} and"
                f" model.method = {theirs.get('method', '')!r}",
            )


def _model(state: State, target: Version) -> dict[str, str]:
    """What the version's own version.json says of its model; {} where it says nothing."""
    try:
        info = json.loads((version_folder(state.home, target) / INFO).read_bytes())
        return {str(key): str(value) for key, value in info.get("model", {}).items()}
    except (OSError, ValueError, AttributeError):
        return {}  # whatever is wrong with its files, the verification says it


def _lost_steps(state: State, target: Version, live: bool) -> tuple[int, float]:
    """Steps of the present line that the target has not, and the seconds that they took."""
    then = records.checkpoint(state, target.checkpoint)
    ours = dict(records.line(state, live=live))
    kept = _runs_of(state, then)
    steps, seconds = 0, 0.0
    with closing(open_metrics(state.home)) as db:
        for run, last in ours.items():
            # Of a run that both lines share only what comes after the target's step is lost.
            first = kept.get(run, -1)
            row = db.execute(
                "SELECT COUNT(*), COALESCE(SUM(seconds), 0) FROM steps"
                " WHERE run = ? AND step > ? AND step <= ?",
                (run, first, 1 << 62 if last is None else last),
            ).fetchone()
            steps, seconds = steps + int(row[0]), seconds + float(row[1])
    return steps, seconds


def _runs_of(state: State, checkpoint: Checkpoint) -> dict[int, int]:
    """The runs that made a checkpoint, each with the last of its steps that is part of it."""
    found: dict[int, int] = {}
    at: Checkpoint | None = checkpoint
    while at is not None:
        following = at.parent
        if at.run:
            found.setdefault(at.run, at.step)
            row = state.db.execute("SELECT checkpoint FROM runs WHERE id = ?", (at.run,)).fetchone()
            following = row[0] if row is not None else at.parent
        at = None if following is None else records.checkpoint(state, following)
    return found


def _changes(state: State, present: Progress, then: Progress) -> list[dict[str, Any]]:
    """The items that go back: what each becomes."""
    changes = []
    for item_id in sorted(present.finished | present.cursors.keys()):
        same = item_id not in present.finished and (
            present.cursors[item_id] == then.cursors.get(item_id)
        )
        if same or item_id in then.finished:
            continue
        at = then.cursors.get(item_id, (0, 0))[0]
        item = queue.get(state, item_id)
        becomes = f"paused at row {at}" if at else f"skipped ({ROLLED_BACK})"
        changes.append({"id": item_id, "name": item.name, "becomes": becomes})
    return changes
