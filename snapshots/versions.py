"""Versions: numbered, read-only, verified snapshots, made of hard links to a checkpoint's files.

A link costs no disk and no time, and it is no second copy: a version and the checkpoint that it
was made of share their bytes until one of them goes. A version is `unverified` until a process
of its own has read every byte of it from the disk.
Must never call a version verified without that, give a number twice, or delete one.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queue_store import durable, journal, records
from queue_store.database import CommitUnknown, State, now
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.home import Home
from queue_store.records import Checkpoint
from snapshots import inuse, manifest
from snapshots.checkpoints import LEDGER, made_by, open_checkpoint, using
from snapshots.child import Progress
from snapshots.upkeep import quarantine
from snapshots.verify import Outcome, read_back

INFO = "version.json"
WHOLE, WEIGHTS, BASE = "whole", "weights", "base"
IMPORTED = "imported"
"""The kind of a version that trained elsewhere: weights alone, and `restore` trains on from it."""

MERGED = "merged"
"""The kind of a version that is a base model and an adapter's weights in one: a full model to
evaluate, to answer and to take elsewhere. The adapter's version is what training goes on from."""

TRAINING_ONLY = re.compile(r"optimizer.*|rng.*\.json|training_state\.json|" + re.escape(LEDGER))
"""Files that a version of the weights alone leaves out."""

FRESH_SECONDS = 24 * 3600.0
"""How long a verification is trusted of files that nothing has written or exchanged since."""

BEST = "best"
"""The tag of the version that no later one was shown to be better than."""

DELETING = "deleting"
"""The state of a version from the decision that it goes until it is in the trash."""

_NUMBER = "versions.last"


@dataclass(frozen=True)
class Version:
    """A version's row. `kind`: why it was made (manual, before_rollback, daily, imported,
    merged);
    `scope`: whole, weights, or base (the model as it came, by digest, without files); `state`:
    unverified, verified, corrupt; `created` and `verified_at` in seconds since the epoch."""

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
    manifest_digest: str
    weights_digest: str
    deep_verified_at: float | None = None
    seen: str = ""
    """Which files the last good verification read (manifest.seen_now)."""


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
    version_id = reserve(state)
    name = f"v{version_id:03}"
    info = {
        "id": version_id,
        "name": name,
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
        "model": model_of(state),
        "rendering": checkpoint.progress.rendering,
    }
    with using(checkpoint):
        sealed = _write(state, checkpoint, info)
    try:
        _insert(state, info, sealed)
    except CommitUnknown:
        raise  # its row may be there: the next start judges
    except BaseException:
        # A full disk, say: what has no row must not turn up as a version at the next start.
        durable.discard(state.home.versions / name, state.home)
        raise
    durable.crash_point("version.committed")
    return verify(state, name) if verified else get(state, name)


def verify(
    state: State,
    name: str,
    *,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Version:
    """Read every byte of a version from the disk, in a child process, and record the outcome.
    `stop` breaks it off; `progress` hears how far it is. One thread at a time reads a version.

    Raises NotFound; VerificationFailed, after the version was marked corrupt. A verification
    that could not finish (the child was killed, broken off) changes nothing and raises
    child.Unfinished.
    """
    version = get(state, name)
    folder = version_folder(state.home, version)
    with inuse.reading(version.name, stop, progress) as told:
        outcome = read_back(folder, version.manifest_digest, stop=stop, progress=told)
    return record(state, version, outcome)


def record(state: State, version: Version, outcome: Outcome, *, deep: bool = False) -> Version:
    """Write down what a verification found. Raises VerificationFailed where it is damaged, after
    that was recorded, and NotFound where the version was deleted meanwhile."""
    problems = outcome.problems
    with state.transaction() as db:
        # What was read may be gone by now, or on its way: then nothing is known of it. Another
        # state would hide from the recovery that its folder is in the trash.
        if get(state, version.name).state == DELETING:
            raise NotFound(f"{version.name} is being deleted", mend="see trainctl trash")
        if problems:
            db.execute("UPDATE versions SET state = 'corrupt' WHERE id = ?", (version.id,))
            text = f"{version.name} is damaged: {problems[0].text}"
            kind = "version.corrupt"
        else:
            at = now()
            db.execute(
                "UPDATE versions SET state = 'verified', verified_at = ?, seen = ? WHERE id = ?",
                (at, outcome.seen, version.id),
            )
            text = f"{version.name} verified: every byte as written"
            kind = "version.verified"
            if deep:
                db.execute(
                    "UPDATE versions SET deep_verified_at = ? WHERE id = ?", (at, version.id)
                )
                text = f"{version.name} verified deep: it loads and computes"
                kind = "version.deep_verified"
        data: dict[str, Any] = {"version": version.name, "problems": [vars(p) for p in problems]}
        if outcome.checks:
            data["checks"] = outcome.checks
        journal.record(state, kind, text, branch=version.branch, step=version.step, data=data)
    durable.crash_point("version.verified")
    folder = version_folder(state.home, version)
    manifest.refuse(problems, folder, "use another version; see `trainctl versions`")
    return get(state, version.name)


def adopt(state: State, info: dict[str, Any], sealed: manifest.Manifest) -> None:
    """A row, unverified, for a complete folder in store/versions; `info` is its version.json."""
    _insert(state, info, sealed)


def untouched(state: State, version: Version) -> bool:
    """Whether the version was verified within FRESH_SECONDS, and its files are those that were
    read then: none written, exchanged, taken away or added since. Looks at them, reads none."""
    at = version.verified_at
    if version.state != "verified" or at is None or not version.seen:
        return False
    if not 0 <= now() - at <= FRESH_SECONDS:  # a clock that went back says nothing
        return False
    return manifest.seen_now(version_folder(state.home, version)) == version.seen


def model_of(state: State) -> dict[str, str]:
    """What this home trains: `base` and `method` of config.toml, and `base_digest`, the weights'
    digest of its checkpoint 0. A version carries it: it goes on only from the same."""
    locked = state.meta_get("locked") or {}
    found = {"base": locked.get("model.base", ""), "method": locked.get("model.method", "")}
    row = state.db.execute("SELECT weights_digest FROM checkpoints WHERE kind = 'base'").fetchone()
    return {**found, "base_digest": "" if row is None else str(row[0])}


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


def reserve(state: State) -> int:
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
    del row["scores"]  # never written: how a model answers stands in metrics.db, by its digest
    row["pinned"] = bool(row["pinned"])
    return Version(**row)
