"""Full models made of an adapter and its base, published as versions: verified, never pruned by
rule, and deleted by hand like any other.

Such a version is weights alone, of the checkpoint, branch and step of the adapter's version that
it was made of. Under the home's lock. Must never move the head.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queue_store.database import State, now
from snapshots import versions
from snapshots.method import method_of
from snapshots.publishing import publish as publish_version
from snapshots.versions import INFO, MERGED, WEIGHTS, Version


@dataclass(frozen=True)
class Written:
    """What a merge wrote, complete and synced, in a folder under store/tmp: the digest of each
    file, and the weights' digest."""

    folder: Path
    digests: dict[str, str]
    weights_digest: str


def made_of(state: State, source: Version) -> Version | None:
    """The version that this adapter was merged into before, if it is there and good."""
    for version in versions.versions(state):
        if version.kind != MERGED or version.state in ("corrupt", versions.DELETING):
            continue
        if of(state, version).get("weights_digest") == source.weights_digest:
            return version
    return None


def of(state: State, version: Version) -> dict[str, Any]:
    """What a merged version was made of: {version, weights_digest, base_digest, method}; {} where
    its version.json cannot be read, of which its verification tells."""
    return _info(state, version, MERGED)


def base_digest(state: State, source: Version) -> str:
    """The digest of the base that a version was trained from, as it says itself; of one that does
    not say it, this home's; "" where that is not known either."""
    said = str(_info(state, source, "model").get("base_digest") or "")
    return said or versions.model_of(state)["base_digest"]


def _info(state: State, version: Version, key: str) -> dict[str, Any]:
    try:
        info = json.loads((versions.version_folder(state.home, version) / INFO).read_bytes())
        return dict(info[key])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def publish(
    state: State, source: Version, written: Written, *, description: str, base: str
) -> Version:
    """Make a version, not verified yet, of the files of a merge of `source`; `base` is the
    digest of the base model. Raises OSError; then nothing of it counts, and whoever calls discards
    the folder."""
    number = versions.reserve(state)
    name = f"v{number:03}"
    home, tmp = state.home, written.folder
    point = state.db.execute(
        "SELECT name FROM checkpoints WHERE id = ?", (source.checkpoint,)
    ).fetchone()
    info = {
        **{"id": number, "name": name, "kind": MERGED, "scope": WEIGHTS},
        **{"checkpoint": source.checkpoint, "checkpoint_name": point["name"]},
        **{"branch": source.branch, "step": source.step, "created": now(), "pinned": False},
        **{"description": description, "loss": source.loss, "val_loss": source.val_loss},
        "weights_digest": written.weights_digest,
        "model": {**versions.model_of(state), "method": "full", "base_digest": base},
        MERGED: {
            "version": source.name,
            "weights_digest": source.weights_digest,
            "base_digest": base,
            "method": method_of(versions.version_folder(home, source)),
        },
    }
    publish_version(state, tmp, info, written.digests)
    return versions.get(state, name)
