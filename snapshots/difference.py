"""What distinguishes two versions, or a version from the present state, as the store knows it:
steps, rows, settings, losses, files.

Reads manifests and small files, never weights: how far tensors moved is a matter of arrays, which
this floor does not have (engine.verify.tensor_diff).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from queue_store import queue, records
from queue_store.database import State
from queue_store.errors import NotFound, VerificationFailed
from queue_store.records import Checkpoint
from snapshots import manifest
from snapshots.checkpoints import folder_of, line
from snapshots.facts import rows_of
from snapshots.versions import BASE, INFO, WHOLE, get, version_folder

TRAINING_STATE = "training_state.json"
OURS = (INFO, ".ledger.json")
"""Files that tell of the version itself, and so differ by nature."""


HEAD = "head"
"""What stands for a version's name where the present state, as it was saved last, is meant."""


@dataclass(frozen=True)
class End:
    """One of the two: a version, or the head. `told` is what `difference` says of it."""

    told: dict[str, Any]
    checkpoint: Checkpoint
    folder: Path


def end(state: State, name: str | None) -> End:
    """The version of that name or tag, the head without one. Raises NotFound."""
    if name is not None:
        version = get(state, name)
        point = records.checkpoint(state, version.checkpoint)
        about = (version.created, version.size_bytes, version.scope, version.weights_digest)
        told = _told(version.name, version.branch, version.step, version.loss, version.val_loss)
        return End({**told, **_about(*about)}, point, version_folder(state.home, version))
    head = records.head(state)
    if head is None:
        raise NotFound("nothing has trained here yet, so there is nothing to compare with")
    point = head.checkpoint
    scope = BASE if point.kind == "base" else WHOLE
    about = (point.created, point.size_bytes, scope, point.weights_digest)
    told = _told(HEAD, head.branch, point.step, point.loss, point.val_loss)
    return End({**told, **_about(*about)}, point, folder_of(state.home, point))


def difference(state: State, first: str, second: str | None = None) -> dict[str, Any]:
    """What distinguishes version `first` (a) from `second` (b), or from the head without one.

    {a, b: {name, branch, step, created, loss, val_loss, size_bytes, scope, weights_digest},
    same_weights, fork: {branch, step, checkpoint} (where their lines part; a version that came
    from the other forks at that one), steps: {a, b} (since the fork), items: [{id, name, fork, a,
    b}] (rows trained at the fork and in each; those that differ), settings: [{key, a, b}] (of the
    item that trained last, and of the saved state; those that differ), files: [{name, state, a,
    b}] (state: equal, differs, only_a, only_b; sizes in bytes)}. Raises NotFound.
    """
    return between(state, end(state, first), end(state, second))


def between(state: State, a: End, b: End) -> dict[str, Any]:
    """`difference` of two ends that were found already."""
    fork = _fork(state, a.checkpoint, b.checkpoint)
    return {
        "a": a.told,
        "b": b.told,
        "same_weights": a.told["weights_digest"] == b.told["weights_digest"],
        "fork": {"branch": fork.branch, "step": fork.step, "checkpoint": fork.name},
        "steps": {"a": a.checkpoint.step - fork.step, "b": b.checkpoint.step - fork.step},
        "items": _items(state, fork, a.checkpoint, b.checkpoint),
        "settings": _settings(state, a, b),
        "files": _files(a, b),
    }


def _told(
    name: str, branch: int, step: int, loss: float | None, val_loss: float | None
) -> dict[str, Any]:
    def known(value: float | None) -> Any:
        return {"unknown": "none was measured before it"} if value is None else value

    return {
        "name": name,
        "branch": branch,
        "step": step,
        "loss": known(loss),
        "val_loss": known(val_loss),
    }


def _about(created: float, size_bytes: int, scope: str, weights_digest: str) -> dict[str, Any]:
    return {
        "created": created,
        "size_bytes": size_bytes,
        "scope": scope,
        "weights_digest": weights_digest,
    }


def _fork(state: State, a: Checkpoint, b: Checkpoint) -> Checkpoint:
    """The newest checkpoint on both lines; all of them begin at the base model."""
    ours = {checkpoint.id for checkpoint in line(state, a)}
    for checkpoint in line(state, b):
        if checkpoint.id in ours:
            return checkpoint
    raise NotFound("the two have no checkpoint in common")


def _items(state: State, fork: Checkpoint, a: Checkpoint, b: Checkpoint) -> list[dict[str, Any]]:
    found = []
    progress = (fork.progress, a.progress, b.progress)
    for item_id in sorted({i for p in progress for i in (*p.finished, *p.cursors)}):
        at_fork, in_a, in_b = (rows_of(state, p, item_id) for p in progress)
        # Equal rows after a fork are not the same rows in the same model: each trained them.
        if in_a != at_fork or in_b != at_fork:
            try:
                name = queue.get(state, item_id).name
            except NotFound:
                name = f"item {item_id}"
            row = {"id": item_id, "name": name, "fork": at_fork, "a": in_a, "b": in_b}
            found.append(row)
    return found


def _settings(state: State, a: End, b: End) -> list[dict[str, Any]]:
    ours, theirs = _frozen(state, a), _frozen(state, b)
    return [
        {"key": key, "a": _said(ours, key), "b": _said(theirs, key)}
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _said(settings: dict[str, Any], key: str) -> Any:
    return settings.get(key, {"unknown": "nothing is recorded of it"})


def _frozen(state: State, end: End) -> dict[str, Any]:
    """The settings under which the last steps of an end were trained, by dotted key: those that
    its item froze, what made text of its rows, and those of the saved state (optimizer, dtype,
    threads, libraries)."""
    found: dict[str, Any] = _flat({"rendering": end.checkpoint.progress.rendering}, "")
    at: Checkpoint | None = end.checkpoint
    while at is not None and at.item is None:
        at = records.checkpoint(state, at.parent) if at.parent is not None else None
    if at is not None and at.item is not None:
        row = state.db.execute("SELECT settings FROM items WHERE id = ?", (at.item,)).fetchone()
        if row is not None and row[0]:
            found |= _flat(orjson.loads(row[0]), "")
    try:
        info = json.loads((end.folder / TRAINING_STATE).read_bytes())
    except (OSError, ValueError):
        return found  # weights only, or the base model
    if isinstance(info, dict):
        kept = ("optimizer", "method", "dtype", "device", "threads", "versions")
        found |= _flat({key: info[key] for key in kept if key in info}, "state.")
    return found


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _files(a: End, b: End) -> Any:
    try:
        ours, theirs = (
            {f.name: f for f in manifest.read_manifest(end.folder).files} for end in (a, b)
        )
    except VerificationFailed as error:
        return {"unknown": str(error)}
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name in OURS:
            continue
        one, other = ours.get(name), theirs.get(name)
        if one is None or other is None:
            how = "only_b" if one is None else "only_a"
        else:
            how = "equal" if one.blake3 == other.blake3 else "differs"
        found.append(
            {
                "name": name,
                "state": how,
                "a": one.size if one else {"unknown": "it has none"},
                "b": other.size if other else {"unknown": "it has none"},
            }
        )
    return found
