"""Which copies of versions lie at which target: their rows, why each stays, how they are told.

A row outlives its version: a copy of a version that is gone here stays by its target's rules.
Must never touch a target: `transfer` does, and records here what it saw.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from queue_store.config import Backup
from queue_store.database import State, now
from snapshots.versions import versions

VERIFIED, DAMAGED, FAILED, DELETING = "verified", "damaged", "failed", "deleting"
LATEST = 2
"""Verified copies at a target that no rule takes away."""
HARD_LINKS = "versions are hard links to checkpoints: not a second copy"
SAME_DISK = "same disk: protects against deletion, not against a broken disk"
Json = dict[str, Any]


@dataclass(frozen=True)
class Copy:
    """A row: `version` its id, `created` when the version was made, `state` verified (read back
    by digest), damaged, failed (not there, `error` says why), deleting. Seconds since the epoch."""

    version: int
    target: str
    state: str
    created: float
    verified_at: float | None
    size_bytes: int
    manifest_digest: str
    error: str

    @property
    def name(self) -> str:
        return f"v{self.version:03}"


def copies(state: State, target: str | None = None, version: int | None = None) -> list[Copy]:
    """The rows, by version and target; of one target or one version where given."""
    rows = state.db.execute("SELECT * FROM copies ORDER BY version, target").fetchall()
    found = [Copy(**dict(row)) for row in rows]
    if target is not None:
        found = [copy for copy in found if copy.target == target]
    return [copy for copy in found if version is None or copy.version == version]


def put(
    state: State,
    target: str,
    version: int,
    *,
    as_state: str,
    created: float,
    size_bytes: int,
    digest: str,
    error: str = "",
) -> None:
    """Write a row; call it inside the transaction of its event."""
    state.db.execute(
        "INSERT INTO copies VALUES(?,?,?,?,?,?,?,?) ON CONFLICT(version, target) DO UPDATE SET"
        " state = excluded.state, created = excluded.created, verified_at ="
        " COALESCE(excluded.verified_at, verified_at), size_bytes = excluded.size_bytes,"
        " manifest_digest = excluded.manifest_digest, error = excluded.error",
        (
            *(version, target, as_state, created, now() if as_state == VERIFIED else None),
            *(size_bytes, digest, error),
        ),
    )


def mark(state: State, copy: Copy, as_state: str, error: str = "") -> None:
    """Another state of a row; call it inside the transaction of its event."""
    state.db.execute(
        "UPDATE copies SET state = ?, error = ?, verified_at = CASE ? WHEN 'verified' THEN ?"
        " ELSE verified_at END WHERE version = ? AND target = ?",
        (as_state, error, as_state, now(), copy.version, copy.target),
    )


def drop(state: State, copy: Copy) -> None:
    """Forget a copy that is gone; inside a transaction."""
    state.db.execute(
        "DELETE FROM copies WHERE version = ? AND target = ?", (copy.version, copy.target)
    )


def kept(
    moments: Iterable[tuple[int, float]], rules: Backup, pinned: Collection[int]
) -> dict[int, list[str]]:
    """Why each copy of a target stays, by version id; [] for one that no rule keeps. `moments`:
    (version id, when it was made); rules are ORed, the order is that of the ids, and times in the
    future count for no day."""
    newest = sorted(moments, reverse=True)
    reasons: dict[int, list[str]] = {version: [] for version, _ in newest}

    def keep(ids: Iterable[int], why: str) -> None:
        for version in ids:
            reasons[version].append(why)

    keep([v for v, _ in newest if v in pinned], "pinned")
    keep([v for v, _ in newest[:LATEST]], f"latest {LATEST}")
    keep([v for v, _ in newest[: rules.keep_last]], f"last {rules.keep_last}")
    for period, count, word in (
        ("%Y-%m-%d", rules.keep_daily, "daily"),
        ("%G-W%V", rules.keep_weekly, "weekly"),
    ):
        chosen: dict[str, int] = {}
        for version, made in newest:
            if made <= time.time():
                chosen.setdefault(time.strftime(period, time.localtime(made)), version)
        keep(list(chosen.values())[:count], word)
    return reasons


def facts(state: State, targets: Collection[str], ids: Iterable[int]) -> dict[int, Json]:
    """For each version: {copies: [{target, state, verified_at, error}], mirror_verified_at,
    second_copy}; `second_copy` says "" or why there is none."""
    of: dict[int, list[Copy]] = {version: [] for version in ids}
    for copy in copies(state):
        of.setdefault(copy.version, []).append(copy)
    return {version: _facts(found, targets) for version, found in of.items()}


def _facts(found: list[Copy], targets: Collection[str]) -> Json:
    times = [c.verified_at for c in found if c.state == VERIFIED and c.verified_at]
    if times:
        newest: Any = max(times)
    elif not targets:
        newest = {"unknown": "no backup target is configured"}
    elif errors := [copy.error for copy in found if copy.error]:
        newest = {"unknown": f"not copied: {errors[0]}"}
    else:
        newest = {"unknown": "not copied yet"}
    return {
        "copies": [
            {
                "target": copy.target,
                "state": copy.state,
                "verified_at": copy.verified_at or {"unknown": "never verified there"},
                "error": copy.error,
            }
            for copy in found
        ],
        "mirror_verified_at": newest,
        "second_copy": "" if times else HARD_LINKS,
    }


def listing(state: State, backups: dict[str, Backup]) -> list[Json]:
    """`trainctl backup --list`: one object a copy: {version, target, state, verified_at,
    size_bytes, created, error, here, kept_because}. `here`: the version is in this home too."""
    ours = {version.id: version for version in versions(state)}
    pinned = {version.id for version in ours.values() if version.pinned}
    found = copies(state)
    reasons: dict[tuple[str, int], list[str]] = {}
    for name, rules in backups.items():
        at = [(c.version, c.created) for c in found if c.target == name and c.state == VERIFIED]
        for version, why in kept(at, rules, pinned).items():
            reasons[name, version] = why
    return [
        {
            "version": copy.name,
            "target": copy.target,
            "state": copy.state,
            "verified_at": copy.verified_at or {"unknown": "never verified there"},
            "size_bytes": copy.size_bytes,
            "created": copy.created,
            "error": copy.error,
            "here": copy.version in ours,
            "kept_because": reasons.get((copy.target, copy.version), []),
        }
        for copy in found
    ]
