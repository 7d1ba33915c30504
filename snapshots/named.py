"""A model of this home by the name that a person gives it: version, tag, checkpoint, digest, base.

Must never guess between two, nor take another model for one that is gone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from queue_store import records
from queue_store.database import State
from queue_store.errors import NotFound, UsageError
from snapshots import versions

BASE = "base"
SHORTEST = 8
"""Characters of the shortest digest that counts as a name."""

_HEX = re.compile(rf"[0-9a-f]{{{SHORTEST},64}}")


@dataclass(frozen=True)
class Named:
    """`name` as it is told, `digest` of the weights (weights_digest), and what is known of it:
    `val_loss`, `step` and `branch`, or {"unknown": why}."""

    name: str
    digest: str
    val_loss: Any
    step: Any
    branch: Any


def named(state: State, name: str) -> Named:
    """The model that `name` says: v012 (or 12), a tag, a checkpoint's name, "base" (what the home
    started from), or a digest or its first characters, SHORTEST at least. A whole digest need not
    be of a model that is still here: results outlive it. Raises NotFound, UsageError (a digest's
    start that fits several)."""
    if name == BASE:
        return _base(state)
    if _HEX.fullmatch(name):  # so many digits are no version's number
        return _by_digest(state, name)
    for checkpoint in records.checkpoints(state, deleted=True):
        if checkpoint.name == name and checkpoint.kind != "base":
            return _of(checkpoint.name, checkpoint)
    try:
        version = versions.get(state, name)
    except NotFound:
        raise NotFound(
            f"no model {name}", mend="a version, a tag, a checkpoint, a digest, or base"
        ) from None
    return _of(version.name, version)


def _of(name: str, of: Any) -> Named:
    loss = {"unknown": "no validation before it"} if of.val_loss is None else of.val_loss
    return Named(name, of.weights_digest, loss, of.step, of.branch)


def _base(state: State) -> Named:
    found = [c for c in records.checkpoints(state, deleted=True) if c.kind == "base"]
    if not found:
        raise NotFound(
            "the base model's digest is not known yet", mend="nothing has trained in this home"
        )
    return _of(BASE, found[0])


def _by_digest(state: State, start: str) -> Named:
    known: dict[str, Named] = {}
    for checkpoint in records.checkpoints(state, deleted=True):
        told = BASE if checkpoint.kind == "base" else checkpoint.name
        known.setdefault(checkpoint.weights_digest, _of(told, checkpoint))
    for version in versions.versions(state):
        if known.get(version.weights_digest, Named("", "", 0, 0, 0)).name != BASE:
            known[version.weights_digest] = _of(version.name, version)
    fitting = [digest for digest in known if digest.startswith(start)]
    if len(fitting) > 1:
        raise UsageError(f"{start} is the start of {len(fitting)} digests", mend="give more of it")
    if fitting:
        return known[fitting[0]]
    if len(start) == 64:
        why = {"unknown": "the model is not in this home"}
        return Named(start[:12], start, why, why, why)
    raise NotFound(f"no model with a digest {start}…", mend="trainctl models lists them")
