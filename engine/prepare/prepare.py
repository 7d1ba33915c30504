"""A file to prepared data on disk: made once, found again by its key, published when complete.

The pass over the file itself is `run.Run`. Nothing appears under `root` before it is complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import orjson
from blake3 import blake3

from engine import checks
from engine.prepare import profiles
from engine.prepare.prepared import FORMAT, Prepared
from engine.prepare.run import Cancelled, PrepareSettings, Run
from engine.prepare.template import ModelText
from queue_store import durable
from queue_store.errors import DataError, VerificationFailed
from queue_store.heldout import NOTHING, HeldOut
from queue_store.home import Home
from snapshots.upkeep import quarantine

__all__ = ["Cancelled", "PrepareSettings", "prepare"]


def prepare(
    source: Path,
    *,
    model_folder: Path,
    settings: PrepareSettings,
    held_out: frozenset[str],
    root: Path,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
    called: str = "",
    accepted: str = "",
    near: HeldOut = NOTHING,
    ahead: str = "",
) -> Prepared:
    """The prepared data of `source` for the model in `model_folder`, under `root` (a home's
    store/prepared), made or found there.

    `called`: the file's name as a person knows it, for what is wrong with it (by default that
    of `source`). `held_out`: prompt digests that never train. `progress(done, total)` counts
    bytes of the file. `accepted`: the digest that the file must have (BLAKE3, "" for any).
    `near`: the sets that rows are compared with for near duplicates (a warning in the report).
    `ahead`: a key whose folder another process of ours has just made or read for that digest; where
    it is the right one, neither the file nor the folder is read again.
    A damaged folder that is found is set apart and made anew. Raises DataError where the file
    cannot train or fails a mask check, ConfigError for an unknown profile, Cancelled when
    `cancelled()` is true.
    """
    profile = profiles.find(settings.profile)
    model = ModelText(model_folder)
    if ahead and accepted and ahead == _key(accepted, model, settings, profile, held_out):
        with contextlib.suppress(VerificationFailed):
            return Prepared.open(root / ahead)
    source_digest, size = _digest(source)
    if accepted and source_digest != accepted:
        raise DataError(
            "its bytes are not those that were accepted",
            where=called or source.name,
            mend="add the file anew; the damaged one stays where it is",
        )
    key = _key(source_digest, model, settings, profile, held_out)
    folder = root / key
    home = Home(root.parent.parent)
    if home.prepared != root:
        raise ValueError(f"{root} is not the store/prepared folder of a home")
    if folder.exists():
        try:
            prepared = Prepared.open(folder, verify=True)
            progress(size, size)
            return prepared
        except VerificationFailed:
            quarantine(home, folder)
    durable.make_folder(root)
    tmp = durable.new_tmp(home, "prepared")
    try:
        name = called or source.name
        run = Run(source, name, source_digest, size, settings, held_out, progress, cancelled, near)
        run.write(model, profile, tmp, key)
        try:
            durable.publish(tmp, folder)
        except FileExistsError:
            durable.discard(tmp, home)  # another run of the same key was first
    except BaseException:
        durable.discard(tmp, home)
        raise
    return Prepared.open(folder)


def _digest(source: Path) -> tuple[str, int]:
    try:
        hasher = blake3()
        with source.open("rb") as file:
            size = 0
            while chunk := file.read(1 << 22):
                hasher.update(chunk)
                size += len(chunk)
        return hasher.hexdigest(), size
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(source)) from None


def _key(
    source_digest: str,
    model: ModelText,
    settings: PrepareSettings,
    profile: profiles.Profile,
    held_out: frozenset[str],
) -> str:
    """blake3 hex over everything that decides the arrays."""
    parts = {
        "format": FORMAT,
        "source": source_digest,
        "tokenizer": model.fingerprint.tokenizer,
        "template": model.fingerprint.template,
        "profile": profiles.digest(profile),
        "settings": asdict(settings),
        "checks": checks.versions(settings.level),
        "held_out": sorted(held_out),
    }
    return blake3(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
