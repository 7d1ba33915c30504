"""Making room on a disk that runs full: by rule only, and never the last two versions.

In this order: leftovers in tmp, what has expired in the trash, old checkpoints (down to two),
versions that no rule keeps (without a time in the trash, or they would free nothing). What a
person deleted keeps its time. Counts the bytes truly freed: what another name still holds frees
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from queue_store import durable, journal
from queue_store.database import State
from snapshots import retention, trash, upkeep
from snapshots.retention import Rules

KEPT_CHECKPOINTS = 2
"""Checkpoints that stay in an emergency, beside the head and those that the items need."""


def make_room(state: State, needed: int, rules: Rules) -> int:
    """Free `needed` bytes, or what the rules allow; the bytes truly freed. What is missing is an
    event, `disk.alert`, for a person to act on."""
    freed = 0
    for what, act in _ways(state, rules):
        before = durable.free_bytes(state.home.store)
        act()
        gained = max(0, durable.free_bytes(state.home.store) - before)
        if gained:
            freed += gained
            with state.transaction():
                text = f"{gained / 1e6:.1f} MB freed: {what}"
                journal.record(state, "disk.freed", text, data={"bytes": gained})
        if freed >= needed:
            return freed
    with state.transaction():
        text = (
            f"the disk is full: {(needed - freed) / 1e9:.2f} GB are missing,"
            " and no rule lets anything more go (trainctl trash empty, trainctl delete)"
        )
        journal.record(state, "disk.alert", text, data={"missing": needed - freed})
    return freed


def _ways(state: State, rules: Rules) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "leftovers in tmp", lambda: upkeep.sweep_tmp(state.home)
    yield "what has expired in the trash", lambda: trash.empty(state, expired_only=True)
    yield (
        "old checkpoints",
        lambda: upkeep.prune_checkpoints(
            state, keep=min(rules.checkpoints, KEPT_CHECKPOINTS), keep_best=rules.best_checkpoints
        ),
    )
    if not rules.empty:
        yield "versions that no rule keeps", lambda: _prune(state, rules)


def _prune(state: State, rules: Rules) -> None:
    for one in retention.prune(state, rules):
        if one["removed"]:
            trash.empty(state, one["name"])
