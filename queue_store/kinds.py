"""The kinds of events: which group each belongs to, and how grave it is.

One table for all that filters the journal or colours it. A kind that is not in it (written by
another release) counts as "system", and as nothing grave.
"""

from __future__ import annotations

from collections.abc import Mapping

BAD, WARN, GOOD, PLAIN = "bad", "warn", "good", "plain"
"""How grave: a failure; what a person should look at; something achieved; all else."""

QUEUE, TRAINING, VERSIONS, SYSTEM = "queue", "training", "versions", "system"
EVALUATION = "evaluation"
TROUBLE = "trouble"
"""Failures and warnings, of all groups."""

GROUPS: Mapping[str, str] = {
    TROUBLE: "failures and warnings",
    QUEUE: "the queue",
    TRAINING: "training",
    VERSIONS: "versions and copies",
    EVALUATION: "evaluations and hosts",
    SYSTEM: "disk and system",
}
"""The groups that can be asked for, and what they are called."""

KINDS: Mapping[str, tuple[str, str]] = {
    "item.queued": (QUEUE, PLAIN),
    "item.rejected": (QUEUE, BAD),
    "item.failed": (QUEUE, BAD),
    "item.skipped": (QUEUE, WARN),
    "item.retry": (QUEUE, WARN),
    "item.retried": (QUEUE, PLAIN),
    "item.recovered": (QUEUE, WARN),
    "item.priority": (QUEUE, PLAIN),
    "item.moved": (QUEUE, PLAIN),
    "item.removed": (QUEUE, WARN),
    "item.restored": (QUEUE, PLAIN),
    "item.lineage": (QUEUE, PLAIN),
    "item.preparing": (TRAINING, PLAIN),
    "item.prepared": (TRAINING, PLAIN),
    "item.training": (TRAINING, PLAIN),
    "item.paused": (TRAINING, WARN),
    "item.halved": (TRAINING, WARN),
    "item.trained": (TRAINING, GOOD),
    "item.done": (TRAINING, GOOD),
    "paused": (TRAINING, WARN),
    "resumed": (TRAINING, PLAIN),
    "drain": (TRAINING, WARN),
    "samples": (TRAINING, PLAIN),
    "optimizer": (TRAINING, WARN),
    "checkpoint": (TRAINING, PLAIN),
    "checkpoint.failed": (TRAINING, BAD),
    "checkpoint.removed": (TRAINING, PLAIN),
    "start": (TRAINING, PLAIN),
    "head": (TRAINING, WARN),
    "rollback": (VERSIONS, WARN),
    "version": (VERSIONS, GOOD),
    "version.verified": (VERSIONS, GOOD),
    "version.deep_verified": (VERSIONS, GOOD),
    "version.corrupt": (VERSIONS, BAD),
    "version.pinned": (VERSIONS, PLAIN),
    "version.tagged": (VERSIONS, PLAIN),
    "version.described": (VERSIONS, PLAIN),
    "evaluation.regression": (EVALUATION, WARN),
    "evaluation.canary": (EVALUATION, BAD),
    "best.moved": (EVALUATION, GOOD),
    "best.kept": (EVALUATION, PLAIN),
    "best.deployed": (EVALUATION, GOOD),
    "best.undeployed": (EVALUATION, WARN),
    "version.deleting": (VERSIONS, WARN),
    "version.deleted": (VERSIONS, WARN),
    "version.restoring": (VERSIONS, PLAIN),
    "version.restored": (VERSIONS, GOOD),
    "backup.copied": (VERSIONS, GOOD),
    "backup.verified": (VERSIONS, GOOD),
    "backup.fetched": (VERSIONS, GOOD),
    "backup.replaced": (VERSIONS, WARN),
    "backup.removed": (VERSIONS, PLAIN),
    "backup.damaged": (VERSIONS, BAD),
    "backup.failed": (VERSIONS, BAD),
    "backup.back": (VERSIONS, GOOD),
    "backup.target": (VERSIONS, PLAIN),
    "backup.adopted": (VERSIONS, PLAIN),
    "evaluation.waiting": (EVALUATION, PLAIN),
    "evaluation.shipping": (EVALUATION, PLAIN),
    "evaluation.running": (EVALUATION, PLAIN),
    "evaluation.done": (EVALUATION, GOOD),
    "evaluation.failed": (EVALUATION, BAD),
    "evaluation.cancelled": (EVALUATION, WARN),
    "evaluation.superseded": (EVALUATION, PLAIN),
    "backup": (SYSTEM, PLAIN),
    "host.trusted": (EVALUATION, PLAIN),
    "trash.emptied": (VERSIONS, PLAIN),
    "quarantine": (VERSIONS, BAD),
    "engine.crashed": (SYSTEM, BAD),
    "engine.failed": (SYSTEM, BAD),
    "engine.stopped": (SYSTEM, PLAIN),
    "recovered": (SYSTEM, WARN),
    "rebuilt": (SYSTEM, WARN),
    "warning": (SYSTEM, WARN),
    "disk.low": (SYSTEM, WARN),
    "disk.room": (SYSTEM, GOOD),
    "disk.freed": (SYSTEM, WARN),
    "disk.alert": (SYSTEM, BAD),
    "reserve.made": (SYSTEM, PLAIN),
    "reserve.dropped": (SYSTEM, BAD),
    "locked": (SYSTEM, PLAIN),
    "unlocked": (SYSTEM, WARN),
    "imported": (SYSTEM, PLAIN),
}


def gravity(kind: str) -> str:
    """BAD, WARN, GOOD or PLAIN."""
    return KINDS.get(kind, (SYSTEM, PLAIN))[1]


def belongs(kind: str, group: str) -> bool:
    """Whether an event of `kind` is shown where `group` is asked for; "" is all."""
    if group == TROUBLE:
        return gravity(kind) in (BAD, WARN)
    return not group or KINDS.get(kind, (SYSTEM, PLAIN))[0] == group


def where(group: str) -> tuple[str, list[str]]:
    """`belongs` as a condition of SQL on the column `kind`, with its values."""
    if not group:
        return "1", []
    if group == SYSTEM:  # and what this table does not know
        values = [kind for kind, (of, _) in KINDS.items() if of != SYSTEM]
        return f"kind NOT IN ({','.join('?' * len(values))})", values
    values = [kind for kind in KINDS if belongs(kind, group)]
    return f"kind IN ({','.join('?' * len(values))})", values
