"""Checkpoints and versions as lists for people and scripts, and why each version is kept.

Nothing deletes a version yet; the reasons are those of the rules in config.toml, so that one
sees today what they would keep. Must never read the files themselves: a list is instant.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from queue_store import records
from queue_store.database import State
from queue_store.records import Checkpoint
from snapshots.checkpoints import folder_of
from snapshots.versions import Version, versions

LATEST_VERIFIED = 2
BEST = 2


@dataclass(frozen=True)
class KeepRules:
    """How many versions the rules keep: the newest, one a day, one a week."""

    last: int = 5
    daily: int = 7
    weekly: int = 4


def kept_because(
    found: list[Version], head: Checkpoint | None, parents: frozenset[int], rules: KeepRules
) -> dict[str, list[str]]:
    """For every version the reasons for which it stays; rules are ORed, and those by number,
    day or week count verified ones only, in the order of their ids."""
    reasons: dict[str, list[str]] = {version.name: [] for version in found}

    def keep(chosen: list[Version], why: str) -> None:
        for version in chosen:
            reasons[version.name].append(why)

    good = [version for version in reversed(found) if version.state == "verified"]
    keep([v for v in found if v.pinned], "pinned")
    keep([v for v in found if head and v.checkpoint == head.id], "head")
    keep([v for v in found if v.checkpoint in parents], "parent of the head")
    keep(good[:LATEST_VERIFIED], f"latest {LATEST_VERIFIED} verified")
    keep(good[: rules.last], f"last {rules.last}")
    keep(_per(good, "%Y-%m-%d", rules.daily), f"daily, {rules.daily} days")
    keep(_per(good, "%G-W%V", rules.weekly), f"weekly, {rules.weekly} weeks")
    measured = [version for version in good if version.val_loss is not None]
    keep(
        sorted(measured, key=lambda v: v.val_loss or 0.0)[:BEST], f"best {BEST} by validation loss"
    )
    return reasons


def versions_json(state: State, rules: KeepRules | None = None) -> list[dict[str, Any]]:
    """`trainctl versions --json`: one object a version, oldest first."""
    found = versions(state)
    head = records.head(state)
    at = head.checkpoint if head else None
    parents = frozenset({at.parent} if at and at.parent is not None else ())
    reasons = kept_because(found, at, parents, rules or KeepRules())
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
            "scores": version.scores,
            "weights_digest": version.weights_digest,
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
        "weights_digest": checkpoint.weights_digest,
    }


def _known(value: float | None, why: str) -> Any:
    return {"unknown": why} if value is None else value


def _per(newest_first: list[Version], period: str, count: int) -> list[Version]:
    """The newest version of each of the `count` latest days or weeks; future times are ignored."""
    chosen: dict[str, Version] = {}
    for version in newest_first:
        if version.created <= time.time():
            chosen.setdefault(time.strftime(period, time.localtime(version.created)), version)
    return list(chosen.values())[:count]
