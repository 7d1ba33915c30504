"""Every model on the host in one list: base models, checkpoints, versions and their copies.

What the database recorded is not read again. A base model that nothing recorded is hashed once;
its digest is remembered for as long as its files keep size, time and inode.
Must never change a model's folder, nor follow a link out of models/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from queue_store import durable, records
from queue_store.database import State
from queue_store.errors import TrainctlError
from snapshots.checkpoints import folder_of
from snapshots.digest import weight_files, weights_digest
from snapshots.versions import BASE, version_folder, versions

_REMEMBERED = "models.digests"
Json = dict[str, Any]


def models(state: State) -> list[Json]:
    """One object a model, base models first: {name, kind, step, branch, created, size_bytes,
    weights_digest, folder, target, use}. `kind`: base, checkpoint, version, copy; `target` is the
    backup target of a copy, else ""; `use` says what it is to the home ("head", "base", "").
    Unknowns are {"unknown": why}."""
    head = records.head(state)
    at = head.checkpoint if head else None
    known = {c.id: c for c in records.checkpoints(state, deleted=True)}
    trained_on = known[0].weights_digest if 0 in known else ""
    found = [_base(state, folder, trained_on) for folder in _base_folders(state.home.models)]
    for checkpoint in records.checkpoints(state):
        if checkpoint.kind == "base":
            continue
        found.append(
            {
                **_moment(checkpoint.name, "checkpoint", checkpoint),
                "folder": str(folder_of(state.home, checkpoint)),
                "use": "head" if at and at.id == checkpoint.id else "",
            }
        )
    ours = {version.id: version for version in versions(state)}
    for version in ours.values():
        folder = str(version_folder(state.home, version))
        use = "the base model, by digest" if version.scope == BASE else ""
        found.append({**_moment(version.name, "version", version), "folder": folder, "use": use})
    for row in state.db.execute("SELECT * FROM copies WHERE state = 'verified' ORDER BY 1, 2"):
        of = ours.get(row["version"])
        if of is not None:
            place = {"folder": {"unknown": "it is at the target"}, "target": row["target"]}
            found.append({**_moment(of.name, "copy", of), **place, "use": ""})
    return found


def _moment(name: str, kind: str, of: Any) -> Json:
    return {
        "name": name,
        "kind": kind,
        "step": of.step,
        "branch": of.branch,
        "created": of.created,
        "size_bytes": of.size_bytes,
        "weights_digest": of.weights_digest,
        "target": "",
    }


def _base_folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and (p / "config.json").is_file())


def _base(state: State, folder: Path, trained_on: str) -> Json:
    no_moment = {"unknown": "a base model has not trained here"}
    try:
        digest: Any = _digest(state, folder)
    except (TrainctlError, OSError) as error:
        digest = {"unknown": str(error)}
    return {
        "name": folder.name,
        "kind": "base",
        "step": no_moment,
        "branch": no_moment,
        "created": folder.stat().st_mtime,
        "size_bytes": durable.size_of(folder),
        "weights_digest": digest,
        "target": "",
        "folder": str(folder),
        "use": "base" if digest == trained_on else "",
    }


def _digest(state: State, folder: Path) -> str:
    """The weights' digest, remembered while the files are the same by inode, size and time."""
    stats = [(p.name, p.stat()) for p in weight_files(folder)]
    seen = [[name, s.st_ino, s.st_size, s.st_mtime_ns] for name, s in stats]
    remembered = state.meta_get(_REMEMBERED, {})
    entry = remembered.get(folder.name)
    if entry is not None and entry["files"] == seen:
        return str(entry["digest"])
    digest = weights_digest(folder)
    with state.transaction():
        remembered = state.meta_get(_REMEMBERED, {})
        state.meta_set(_REMEMBERED, {**remembered, folder.name: {"files": seen, "digest": digest}})
    return digest
