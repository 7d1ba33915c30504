"""A version back from a target: checked against its manifest, then published like a new one.

Also the way back for a lost home: `trainctl init`, the same [backups.NAME] in its config.toml,
`trainctl backup NAME --fetch`: the new home goes on as the lost one, with the versions of the
target and the checkpoints that they were made of as rows. Items, journal and metrics of the lost
home are not part of a version. What is in the way here is damaged, and goes to the quarantine.
Must never overwrite, nor put into store/versions what it did not read back whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from queue_store import durable, journal, programs, records
from queue_store.database import State
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.programs import Cancelled
from queue_store.records import Progress as Trained
from snapshots import copies, manifest, versions
from snapshots.checkpoints import LEDGER, Ledger, require_space
from snapshots.copies import VERIFIED, Copy
from snapshots.targets import VERSION, Target
from snapshots.transfer import Progress, verify
from snapshots.upkeep import quarantine
from snapshots.verify import verify_in_child
from snapshots.versions import BASE, INFO, WEIGHTS, Version

_NEEDED = (
    *("kind", "scope", "checkpoint", "checkpoint_name", "branch", "step", "created"),
    *("description", "pinned", "loss", "val_loss"),
)


def fetchable(target: Target) -> list[str]:
    """The versions that lie at a target, oldest first."""
    found = [name for name in target.names() if VERSION.fullmatch(name)]
    return sorted(found, key=lambda name: int(name[1:]))


def fetch(
    state: State,
    target: Target,
    name: str,
    progress: Progress,
    *,
    alone: bool,
    cancelled: Cancelled = programs.never,
) -> str:
    """Bring a version back from a target; returns what was done, for a person. `alone`: no engine
    runs, so rows of checkpoints may be made anew.

    Raises NotFound, Refused, VerificationFailed (the copy is damaged: nothing changed here).
    """
    home, row = state.home, _known(state, name)
    if row is None and alone and (home.versions / name).exists():
        versions.recover_versions(state)  # a kill came between the folder and its row
        row = _known(state, name)
    if row is not None and not verify_here(state, row):
        if row.state != "verified":
            versions.verify(state, name)
        _note(state, target, row, cancelled)
        return f"{name} is here, every byte as written"
    found = copies.copies(state, target.place.name, int(name[1:]))
    copy = found[0] if found else None
    if name not in target.names():
        raise NotFound(f"no copy of {name} at {target.place.name}", mend="trainctl backup --list")
    require_space(home, copy.size_bytes if copy else 0, f"{name} from {target.place.name}")
    tmp = durable.new_tmp(home, "fetch")
    try:
        total = copy.size_bytes if copy else 0
        target.fetch(name, tmp, lambda done: progress(name, done, max(done, total)), cancelled)
        durable.crash_point("fetch.copied")
        sealed, info = _checked(tmp, name, row, copy)
        durable.make_read_only(tmp)
        _checkpoint(state, tmp, info, alone)
        if row is not None and (home.versions / name).exists():
            with state.transaction():
                text = f"{name} is damaged here: set apart, and brought back from {target}"
                journal.record(state, "quarantine", text, data={"version": name})
            durable.crash_point("fetch.journaled")
            quarantine(home, home.versions / name)
            durable.crash_point("fetch.apart")
        durable.publish(tmp, home.versions / name)
    except BaseException:
        durable.discard(tmp, home)
        raise
    durable.crash_point("fetch.published")
    with state.transaction():
        if row is None:
            versions.adopt(state, info, sealed)
        text = f"{name} came back from {target.place.name}"
        data = {"version": name, "target": target.place.name}
        journal.record(state, "backup.fetched", text, step=info["step"], data=data)
        if copy is None or copy.state != VERIFIED:
            copies.put(
                state,
                target.place.name,
                int(name[1:]),
                as_state=VERIFIED,
                created=info["created"],
                size_bytes=sealed.size_bytes,
                digest=sealed.digest,
            )
    durable.crash_point("fetch.committed")
    versions.verify(state, name)
    return text


def _note(state: State, target: Target, version: Version, cancelled: Cancelled) -> None:
    """A copy that lies at the target without a row (a kill came between) is read and noted."""
    name, place = version.name, target.place.name
    if copies.copies(state, place, version.id) or name not in target.names():
        return
    with state.transaction():
        copies.put(
            state,
            place,
            version.id,
            as_state=copies.FAILED,
            created=version.created,
            size_bytes=version.size_bytes,
            digest=version.manifest_digest,
            error="not read back yet",
        )
    verify(state, target, copies.copies(state, place, version.id)[0], cancelled)


def verify_here(state: State, version: Version) -> list[manifest.Problem]:
    """What is wrong with a version's files in the store; [] for nothing."""
    folder = versions.version_folder(state.home, version)
    return verify_in_child(folder, version.manifest_digest)


def _known(state: State, name: str) -> Version | None:
    if not VERSION.fullmatch(name):
        raise NotFound(f"{name!r} is no version's name", mend="v001, as trainctl backup --list")
    try:
        return versions.get(state, name)
    except NotFound:
        return None


def _checked(
    folder: Path, name: str, row: Version | None, copy: Copy | None
) -> tuple[manifest.Manifest, dict[str, Any]]:
    """The manifest and version.json of what came back, if every byte is as recorded."""
    expected = copy.manifest_digest if copy and copy.manifest_digest else None
    problems = manifest.check(folder, deep=True, expected=expected)
    manifest.refuse(problems, folder, "the copy is damaged; use another target")
    sealed = manifest.read_manifest(folder)
    try:
        info = json.loads((folder / INFO).read_bytes())
        fits = info["name"] == name and info["id"] == sealed.id == int(name[1:])
        fits = fits and all(key in info for key in _NEEDED)
    except (OSError, ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise VerificationFailed(f"the copy is not {name}", mend="use another target")
    if row is not None and sealed.digest != row.manifest_digest:
        if info["scope"] == WEIGHTS and row.scope != WEIGHTS:
            raise Refused(
                f"the copy of {name} holds its weights only, and the version is whole",
                mend="use another target",
            )
        raise VerificationFailed(f"the copy is another {name} than the one of this home")
    return sealed, info


def _checkpoint(state: State, folder: Path, info: dict[str, Any], alone: bool) -> None:
    """The row of the checkpoint that a version was made of, anew where it is gone; and its branch.

    The row says that its folder was removed: the version has the files.
    """
    try:
        records.checkpoint(state, info["checkpoint"])
        return
    except NotFound:
        pass
    if info["scope"] == BASE:
        raise Refused(
            f"{info['name']} is the base model by digest: there is nothing to bring back",
            mend="it is checkpoint 0 once the engine has started",
        )
    if not alone:
        raise Refused(
            f"{info['name']} needs rows of its own here, and the engine is numbering checkpoints",
            mend="trainctl stop, then again",
        )
    sealed = manifest.read_manifest(folder)
    rate = None
    if (folder / LEDGER).exists():
        rate = Ledger.read(folder).learning_rate
    with state.transaction() as db:
        # The items of a lost home are not here, so no cursor of theirs means anything.
        db.execute(
            "INSERT OR IGNORE INTO branches(id, parent, checkpoint, step, why, created)"
            " VALUES(?, NULL, NULL, ?, 'came back from a backup', ?)",
            (info["branch"], info["step"], info["created"]),
        )
        db.execute(
            "INSERT INTO checkpoints(id, name, kind, branch, step, progress, created, size_bytes,"
            " loss, val_loss, learning_rate, manifest_digest, weights_digest, deleted)"
            " VALUES(?,?,'saved',?,?,?,?,?,?,?,?,'',?,?)",
            (
                info["checkpoint"],
                info["checkpoint_name"],
                info["branch"],
                info["step"],
                Trained({}, frozenset(), info.get("rendering", {})).dumps(),
                info["created"],
                sealed.size_bytes,
                info.get("loss"),
                info.get("val_loss"),
                rate,
                sealed.weights_digest,
                info["created"],
            ),
        )
        text = f"checkpoint {info['checkpoint_name']} had been removed before its version came back"
        journal.record(state, "checkpoint.removed", text, branch=info["branch"], step=info["step"])
    durable.crash_point("fetch.checkpoint")
