"""Which files of a model go to a host, and what they are: SHA-256 of each, one digest of all.

A host has no BLAKE3, so a file's SHA-256 is taken here in the same pass that compares its bytes
with the BLAKE3 of the version's manifest. From there on the host can prove what it holds.
Weights, index, configurations, tokenizer, template; never the optimizer, never code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from evaluation.host.shipped.store import digest_of
from queue_store.errors import NotFound, VerificationFailed
from queue_store.programs import BrokenOff, Cancelled, never

WANTED = re.compile(
    r"model[A-Za-z0-9._-]*\.safetensors|adapter_model\.safetensors|model\.safetensors\.index\.json"
    r"|(adapter_|generation_)?config\.json|tokenizer(_config)?\.json|tokenizer\.model"
    r"|vocab\.(json|txt)|merges\.txt|special_tokens_map\.json|added_tokens\.json"
    r"|chat_template\.(jinja|json)"
)
ADAPTER = "adapter_config.json"
BLOCK = 4 << 20


@dataclass(frozen=True)
class Weights:
    """A model on this machine. `name` is a version's or a folder's; `files` by name; `blake3` what
    was recorded of them (a name may lack); `weights_digest` is the version's own, which every
    answer will carry; `base` the model that an adapter is of."""

    name: str
    files: Mapping[str, Path]
    weights_digest: str
    blake3: Mapping[str, str] = field(default_factory=dict)
    base: Weights | None = None


@dataclass(frozen=True)
class Shipment:
    """Weights with the digest that a host knows them by. `files` as in frames: name, size,
    sha256, and the path here."""

    weights: Weights
    files: list[dict[str, Any]]
    digest: str
    base: Shipment | None = None

    @property
    def bytes(self) -> int:
        return sum(file["size"] for file in self.files)

    def listed(self, *, paths: bool) -> list[dict[str, Any]]:
        """The files as a frame tells them; the paths are only for a worker on this machine."""
        keys = ("name", "size", "sha256", *(("path",) if paths else ()))
        return [{key: file[key] for key in keys} for file in self.files]


def of_folder(
    folder: Path,
    *,
    name: str,
    weights_digest: str,
    blake3: Mapping[str, str] | None = None,
    base: Weights | None = None,
) -> Weights:
    """The weights in a version's, a checkpoint's or a base model's folder. Raises NotFound where
    the folder has none, or where it is an adapter and nothing is said of its base."""
    files = {
        path.name: path
        for path in sorted(folder.iterdir())
        if WANTED.fullmatch(path.name) and path.is_file()
    }
    if not any(file.endswith(".safetensors") for file in files):
        raise NotFound("no safetensors weights here", where=str(folder))
    if ADAPTER in files and base is None:
        raise NotFound("an adapter, and its base model is not named", where=str(folder))
    return Weights(name, files, weights_digest, blake3 or {}, base)


def pack(
    weights: Weights,
    known: MutableMapping[str, str] | None = None,
    *,
    cancelled: Cancelled = never,
    seen: Callable[[int], None] | None = None,
) -> Shipment:
    """Read the weights' files once and say what they are. `known` maps a file's BLAKE3 to its
    SHA-256: what stands there is not read, what was read is added. `seen` hears bytes read.

    Raises VerificationFailed where a file is not what was recorded, BrokenOff, OSError.
    """
    known = {} if known is None else known
    base = pack(weights.base, known, cancelled=cancelled, seen=seen) if weights.base else None
    files = []
    for name, path in weights.files.items():
        recorded = weights.blake3.get(name, "")
        sha = known.get(recorded, "") if recorded else ""
        if not sha:
            found, sha = _digests(path, cancelled, seen)
            if recorded and found != recorded:
                raise VerificationFailed(
                    f"{name} differs from what was written",
                    where=str(path),
                    mend="use another version; see trainctl verify",
                )
            known[found] = sha
        size = path.stat().st_size
        files.append({"name": name, "size": size, "sha256": sha, "path": str(path.absolute())})
    return Shipment(weights, files, digest_of(files, base.digest if base else ""), base)


def _digests(
    path: Path, cancelled: Cancelled, seen: Callable[[int], None] | None
) -> tuple[str, str]:
    """BLAKE3 and SHA-256 of a file's bytes."""
    ours, theirs = blake3(), hashlib.sha256()
    block = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            if cancelled():
                raise BrokenOff("broken off while the weights were read")
            ours.update(block[:count])
            theirs.update(block[:count])
            if seen is not None:
                seen(count)
    return ours.hexdigest(), theirs.hexdigest()
