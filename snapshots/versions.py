"""Versions: numbered, read-only, verified snapshots, made of hard links to a checkpoint's files.

A link costs no disk and no time, and it is no second copy: a version and the checkpoint that it
was made of share their bytes until one of them goes. A version is `unverified` until a process
of its own has read every byte of it from the disk.
Must never call a version verified without that, give a number twice, or delete one.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queue_store import durable, journal, records
from queue_store.database import State, now
from queue_store.errors import NotFound, Refused, UsageError, VerificationFailed
from queue_store.home import Home
from queue_store.records import Checkpoint
from snapshots import manifest
from snapshots.checkpoints import LEDGER, made_by, open_checkpoint, using
from snapshots.upkeep import quarantine
from snapshots.verify import verify_in_child

INFO = "version.json"
WHOLE, WEIGHTS, BASE = "whole", "weights", "base"
TRAINING_ONLY = re.compile(r"optimizer.*|rng.*\.json|training_state\.json|" + re.escape(LEDGER))
"""Files that a version of the weights alone leaves out."""

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_NAME = re.compile(r"v\d{3,}")
_NUMBER = "versions.last"


@dataclass(frozen=True)
class Version:
    """A version's row. `kind`: why it was made (manual, before_rollback, daily); `scope`: whole,
    weights, or base (the model as it came, by digest, without files); `state`: unverified,
    verified, corrupt; `created` and `verified_at` in seconds since the epoch."""

    id: int
    name: str
    kind: str
    scope: str
    state: str
    checkpoint: int
    branch: int
    step: int
    created: float
    description: str
    size_bytes: int
    verified_at: float | None
    pinned: bool
    tags: tuple[str, ...]
    loss: float | None
    val_loss: float | None
    scores: dict[str, Any]
    manifest_digest: str
    weights_digest: str


def create(
    state: State,
    checkpoint: Checkpoint | None = None,
    *,
    description: str = "",
    scope: str = WHOLE,
    kind: str = "manual",
    pinned: bool = False,
    verified: bool = True,
) -> Version:
    """Make a version of a checkpoint (the head by default) and, unless told otherwise, verify it.

    Raises NotFound (nothing trained, checkpoint gone), Refused (the base model has no weights of
    its own here), VerificationFailed (the version stays, marked corrupt), OSError.
    """
    if checkpoint is None:
        head = records.head(state)
        if head is None:
            raise NotFound("nothing has trained here yet, so there is nothing to keep")
        checkpoint = head.checkpoint
    if checkpoint.kind == "base":
        if scope == WEIGHTS:
            raise Refused("checkpoint 0 is the base model itself", mend="it is in models/ already")
        scope = BASE
    version_id = _reserve(state)
    info = {
        "id": version_id,
        "name": f"v{version_id:03}",
        "kind": kind,
        "scope": scope,
        "checkpoint": checkpoint.id,
        "checkpoint_name": checkpoint.name,
        "branch": checkpoint.branch,
        "step": checkpoint.step,
        "created": now(),
        "description": description,
        "pinned": pinned,
        "loss": checkpoint.loss,
        "val_loss": checkpoint.val_loss,
        "weights_digest": checkpoint.weights_digest,
    }
    with using(checkpoint):
        sealed = _write(state, checkpoint, info)
    _insert(state, info, sealed)
    durable.crash_point("version.committed")
    name = f"v{version_id:03}"
    return verify(state, name) if verified else get(state, name)


def verify(state: State, name: str) -> Version:
    """Read every byte of a version from the disk, in a child process, and record the outcome.

    Raises NotFound; VerificationFailed, after the version was marked corrupt. A verification
    that could not finish (the child was killed) changes nothing and raises it too.
    """
    version = get(state, name)
    folder = version_folder(state.home, version)
    problems = verify_in_child(folder, version.manifest_digest)
    with state.transaction() as db:
        if problems:
            db.execute("UPDATE versions SET state = 'corrupt' WHERE id = ?", (version.id,))
            text = f"{version.name} is damaged: {problems[0].text}"
            kind = "version.corrupt"
        else:
            db.execute(
                "UPDATE versions SET state = 'verified', verified_at = ? WHERE id = ?",
                (now(), version.id),
            )
            text = f"{version.name} verified: every byte as written"
            kind = "version.verified"
        data = {"version": version.name, "problems": [vars(p) for p in problems]}
        journal.record(state, kind, text, branch=version.branch, step=version.step, data=data)
    durable.crash_point("version.verified")
    manifest.refuse(problems, folder, "use another version; see `trainctl versions`")
    return get(state, name)


def version_folder(home: Home, version: Version) -> Path:
    """Where a version's files are."""
    return home.versions / version.name


def get(state: State, name: str) -> Version:
    """The version of that name (v012, also 12) or tag. Raises NotFound."""
    wanted = f"v{int(name):03}" if name.isdecimal() else name
    for version in versions(state):
        if wanted == version.name or name in version.tags:
            return version
    raise NotFound(f"no version {name}", mend="trainctl versions lists them")


def versions(state: State) -> list[Version]:
    """All versions, oldest first."""
    return [_version(dict(row)) for row in state.db.execute("SELECT * FROM versions ORDER BY id")]


def pin(state: State, name: str, pinned: bool = True) -> Version:
    """Keep a version for ever, whatever the rules say (or no longer so)."""
    with state.transaction() as db:
        version = get(state, name)
        db.execute("UPDATE versions SET pinned = ? WHERE id = ?", (int(pinned), version.id))
        text = f"{version.name} {'pinned' if pinned else 'no longer pinned'}"
        journal.record(state, "version.pinned", text, data={"version": version.name})
        return get(state, version.name)


def tag(state: State, name: str, tag_name: str) -> Version:
    """Give a version a name of one's own. Raises UsageError, Refused (another one has it)."""
    if not _TAG.fullmatch(tag_name) or _NAME.fullmatch(tag_name) or tag_name.isdecimal():
        raise UsageError(
            f"{tag_name!r} is no tag", mend="letters, digits, dot, dash and underscore, not v001"
        )
    with state.transaction() as db:
        version = get(state, name)
        for other in versions(state):
            if tag_name in other.tags and other.id != version.id:
                raise Refused(f"the tag {tag_name} is on {other.name} already")
        tags = sorted({*version.tags, tag_name})
        db.execute("UPDATE versions SET tags = ? WHERE id = ?", (json.dumps(tags), version.id))
        text = f"{version.name} is tagged {tag_name}"
        journal.record(state, "version.tagged", text, data={"version": version.name})
        return get(state, version.name)


def recover_versions(state: State) -> list[str]:
    """After a kill: a complete folder without a row gets one (unverified), an incomplete one is
    set apart. Under the home's lock, after `upkeep.recover`. Idempotent."""
    durable.make_folder(state.home.versions)
    known = {version.name for version in versions(state)}
    told = []
    for place in sorted(p for p in state.home.versions.iterdir() if p.is_dir()):
        if place.name in known:
            continue
        try:
            manifest.refuse(manifest.check(place, deep=False), place, "")
            info = json.loads((place / INFO).read_bytes())
            if info["name"] != place.name:
                raise ValueError("its name is another one")
            records.checkpoint(state, info["checkpoint"])
            with state.transaction():
                _insert(state, info, manifest.read_manifest(place))
                text = f"{place.name} was complete: it is in the list now, unverified"
                journal.record(state, "recovered", text)
        except (VerificationFailed, NotFound, OSError, ValueError, KeyError) as error:
            text = f"version folder {place.name} was never finished, set apart: {error}"
            with state.transaction():
                journal.record(state, "recovered", text)
            quarantine(state.home, place)
        told.append(text)
    return told


def _reserve(state: State) -> int:
    """The next number; it is used up even when making the version fails."""
    with state.transaction() as db:
        highest = db.execute("SELECT COALESCE(MAX(id), 0) FROM versions").fetchone()[0]
        number = max(int(state.meta_get(_NUMBER, 0)), int(highest)) + 1
        state.meta_set(_NUMBER, number)
        return number


def _write(state: State, checkpoint: Checkpoint, info: dict[str, Any]) -> manifest.Manifest:
    """The version's folder under its final name, complete and synced; its manifest."""
    home = state.home
    digests: dict[str, str] = {}
    source = None
    if info["scope"] != BASE:
        source = open_checkpoint(state, checkpoint, deep=False)
        for entry in manifest.read_manifest(source).files:
            if info["scope"] == WHOLE or not TRAINING_ONLY.fullmatch(entry.name):
                digests[entry.name] = entry.blake3
    tmp = durable.new_tmp(home, "version")
    try:
        if source is not None:
            durable.link_tree(source, tmp, digests)
        durable.write_new(tmp / INFO, json.dumps(info, indent=1, sort_keys=True).encode() + b"\n")
        sealed = manifest.build(
            tmp,
            kind="version",
            id=info["id"],
            made_by=made_by(),
            created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            digests=digests,
            weights=checkpoint.weights_digest,
        )
        durable.write_new(tmp / manifest.MANIFEST, sealed.to_json())
        # The inodes are the checkpoint's too: its files become read-only with them, as they should.
        durable.make_read_only(tmp)
        durable.crash_point("version.sealed")
        durable.publish(tmp, home.versions / info["name"], synced=[*digests, INFO])
    except BaseException:
        durable.discard(tmp, home)
        raise
    return sealed


def _insert(state: State, info: dict[str, Any], sealed: manifest.Manifest) -> None:
    with state.transaction() as db:
        db.execute(
            "INSERT INTO versions(id, name, kind, scope, state, checkpoint, branch, step, created,"
            " description, size_bytes, pinned, loss, val_loss, manifest_digest, weights_digest)"
            " VALUES(?,?,?,?,'unverified',?,?,?,?,?,?,?,?,?,?,?)",
            (
                info["id"],
                info["name"],
                info["kind"],
                info["scope"],
                info["checkpoint"],
                info["branch"],
                info["step"],
                info["created"],
                info["description"],
                sealed.size_bytes,
                int(info["pinned"]),
                info["loss"],
                info["val_loss"],
                sealed.digest,
                sealed.weights_digest,
            ),
        )
        said = f": {info['description']}" if info["description"] else ""
        journal.record(
            state,
            "version",
            f"{info['name']} made of {info['checkpoint_name']}{said}",
            branch=info["branch"],
            step=info["step"],
            data={"version": info["name"], "scope": info["scope"]},
        )


def _version(row: dict[str, Any]) -> Version:
    row["tags"] = tuple(json.loads(row["tags"]))
    row["scores"] = json.loads(row["scores"])
    row["pinned"] = bool(row["pinned"])
    return Version(**row)
