"""Checkpoints and versions as lists for people and scripts, and why each version is kept.

Must never read the files themselves: a list is instant.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from queue_store import records
from queue_store.database import State
from queue_store.records import Checkpoint
from snapshots import copies, tree
from snapshots.checkpoints import folder_of
from snapshots.retention import Rules, kept_because
from snapshots.versions import versions


def versions_json(
    state: State, rules: Rules | None = None, targets: Collection[str] = ()
) -> list[dict[str, Any]]:
    """`trainctl versions --json`: one object a version, oldest first, but for what metrics.db
    knows (engine.reading.versionrows); `targets` are the names of the backup targets."""
    found = versions(state)
    elsewhere = copies.facts(state, targets, [version.id for version in found])
    grown = tree.grow(state, found)
    reasons = kept_because(state, rules or Rules())
    return [
        {
            "name": version.name,
            "branch": version.branch,
            "step": version.step,
            "created": version.created,
            "description": version.description,
            "size_bytes": version.size_bytes,
            "verified_at": version.verified_at or {"unknown": f"it is {version.state}"},
            "kind": version.kind,
            "scope": version.scope,
            "state": version.state,
            "checkpoint": version.checkpoint,
            "pinned": version.pinned,
            "tags": list(version.tags),
            "kept_because": reasons[version.name],
            "loss": _known(version.loss, "none was measured before it"),
            "val_loss": _known(version.val_loss, "no validation before it"),
            "weights_digest": version.weights_digest,
            "rendering": rendering_json(records.checkpoint(state, version.checkpoint)),
            "deep_verified_at": _known(version.deep_verified_at, "never verified deep"),
            **grown.fields(version.name),
            **elsewhere[version.id],
        }
        for version in found
    ]


def checkpoints_json(state: State) -> list[dict[str, Any]]:
    """`trainctl checkpoints --json`: those on disk, oldest first. `complete`: the files are there
    with the recorded manifest; their bytes are read by whoever loads them."""
    return [_checkpoint(state, checkpoint) for checkpoint in records.checkpoints(state)]


def _checkpoint(state: State, checkpoint: Checkpoint) -> dict[str, Any]:
    complete = checkpoint.kind == "base" or folder_of(state.home, checkpoint).is_dir()
    return {
        "id": checkpoint.id,
        "name": checkpoint.name,
        "kind": checkpoint.kind,
        "branch": checkpoint.branch,
        "step": checkpoint.step,
        "item": checkpoint.item,
        "cursor": checkpoint.cursor,
        "created": checkpoint.created,
        "size_bytes": checkpoint.size_bytes,
        "loss": _known(checkpoint.loss, "none was measured before it"),
        "val_loss": _known(checkpoint.val_loss, "no validation before it"),
        "complete": complete,
        "rendering": rendering_json(checkpoint),
        "weights_digest": checkpoint.weights_digest,
    }


def rendering_json(checkpoint: Checkpoint) -> dict[str, str]:
    """What made text of the rows that a checkpoint trained last: {profile, profile_version,
    profile_digest, template_digest, thinking}."""
    if checkpoint.kind == "base":
        return {"unknown": "no row has trained yet"}
    return checkpoint.progress.rendering or {"unknown": "an earlier release did not record it"}


def _known(value: float | None, why: str) -> Any:
    return {"unknown": why} if value is None else value
