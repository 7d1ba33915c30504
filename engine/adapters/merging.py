"""The verb `merge`: an adapter's version made into a full model, a version of its own.

The adapter and the disk are looked at first; a child of the lowest priority adds up, tensor by
tensor, and digests; what it wrote is published, read back, and only then called verified. A kill
or a full disk at any moment leaves nothing that counts. Imports no torch: the child does.
Used by the command line without an engine, under the home's lock, and by an engine's threads.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from engine.reading.status import free_limit
from engine.training.base import base_here
from queue_store import durable, records
from queue_store.config import Config
from queue_store.database import State
from queue_store.errors import Refused, VerificationFailed
from snapshots import child, inuse, manifest, merged, upkeep, versions
from snapshots.child import Progress
from snapshots.digest import weight_files
from snapshots.fits import ADAPTER
from snapshots.merged import Written
from snapshots.method import beside_4_bit
from snapshots.versions import BASE, DELETING, Version, version_folder

MERGED_WORDS = "merged into its base model"
OTHER_BASE = "merged into the full-precision base; it trained beside the 4-bit one"
"""A merge into the 4-bit base would round the sum to 4 bits again, and lose what was learned."""

MARGIN = 64 << 20
"""Bytes beside the weights: tokenizer, manifest, and what a filesystem takes."""


def merge(
    state: State,
    config: Config,
    name: str,
    *,
    description: str = "",
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Version:
    """A verified version with the weights of the adapter's version `name` added to its base's.

    `progress` hears how many bytes are done, of how many. Raises NotFound, Refused (no adapter, no
    room, an adapter that is no plain sum, broken off), VerificationFailed (adapter, base, or what
    was written is not as recorded), OSError.
    """
    source = versions.get(state, name)
    _usable(state, source)
    base_digest = merged.base_digest(state, source)
    base = base_here(state.home, config.model.base, config.training.seed)
    if base is None or not base_digest:
        raise Refused(
            f"the base model of {source.name} is not known here"
            if base is not None
            else f"the base model {config.model.base} is not on this machine",
            where="model.base",
            mend="training fetches and records it; so does trainctl restore of an imported version",
        )
    upkeep.sweep_tmp(state.home, "merge-")  # what a killed merge left takes the room of this one
    needed = sum(path.stat().st_size for path in weight_files(base)) + MARGIN
    require_room(state, config, needed)
    home, folder = state.home, version_folder(state.home, source)
    with inuse.reading(source.name, stop, progress) as told:
        problems = manifest.check(folder, deep=True, expected=source.manifest_digest)
        manifest.refuse(problems, folder, "merge another version; see `trainctl versions`")
        tmp = durable.new_tmp(home, "merge")
        try:
            words = {
                **{"base": str(base), "adapter": str(folder), "out": str(tmp)},
                **{"base_digest": base_digest, "adapter_digest": source.weights_digest},
            }
            written = _written(words, source, stop, told)
            durable.crash_point("merge.written")
            made = merged.publish(
                state,
                source,
                written,
                description=description or f"{source.name} {_how(folder)}",
                base=base_digest,
            )
        finally:
            durable.discard(tmp, home)  # published, it is no longer there
    return versions.verify(state, made.name, stop=stop)


def _how(folder: Path) -> str:
    return OTHER_BASE if beside_4_bit(folder) else MERGED_WORDS


def require_room(state: State, config: Config, needed: int) -> None:
    """Raise Refused, with the numbers, where `needed` bytes more would leave less than
    snapshots.stop_free. Nothing is removed for a merge: what training keeps is worth more."""
    head = records.head(state)
    limit = free_limit(config.snapshots.stop_free, head.checkpoint.size_bytes if head else 0)
    free = durable.free_bytes(state.home.store)
    if free - needed < limit:
        raise Refused(
            f"not enough disk for the merge: it takes {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB"
            f" are free, and {limit / 1e9:.2f} GB are to stay free",
            where=str(state.home.store),
            mend="free some, or lower snapshots.stop_free; nothing was changed",
        )


def _usable(state: State, source: Version) -> None:
    if source.state in ("corrupt", DELETING):
        what = "damaged" if source.state == "corrupt" else "on its way to the trash"
        raise Refused(f"{source.name} is {what}", mend="trainctl versions lists others")
    if source.scope == BASE:
        raise Refused(f"{source.name} is the base model: there is nothing to merge")
    if not (version_folder(state.home, source) / ADAPTER).is_file():
        raise Refused(f"{source.name} is a full model already: there is nothing to merge")
    before = merged.made_of(state, source)
    if before is not None:
        raise Refused(
            f"{source.name} was merged already: {before.name}",
            where=str(version_folder(state.home, before)),
            mend=f"use it, or delete it first: trainctl delete {before.name}",
        )


def _written(
    words: dict[str, str], source: Version, stop: threading.Event | None, told: Progress
) -> Written:
    """What the child wrote into the folder `out`. Raises Refused, VerificationFailed."""
    try:
        answer = child.run(
            "engine.adapters.write",
            (),
            where=words["adapter"],
            stop=stop,
            progress=told,
            stdin=json.dumps(words).encode(),
            environment={"HF_HUB_OFFLINE": "1"},
            what=f"the merge of {source.name}",
            mend="merge it again; nothing of it is left",
        )
    except child.Unfinished as error:
        raise Refused(error.what, where=error.where, mend=error.mend) from None
    if answer["ok"]:
        return Written(Path(words["out"]), answer["digests"], answer["weights"])
    if answer["kind"] == "full":
        raise Refused(
            f"the disk ran full while {source.name} was merged; nothing of it is left",
            where=words["out"],
            mend="free some and merge it again",
        )
    if answer["kind"] == "damaged":
        raise VerificationFailed(f"{source.name} was not merged: {answer['why']}")
    raise Refused(
        f"{source.name} cannot be merged: {answer['why']}",
        mend="it answers and is evaluated as the adapter that it is",
    )
