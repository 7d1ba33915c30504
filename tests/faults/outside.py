"""Files of a home read from outside: manifests, digests of bytes and of tensors, the two databases.

Written anew from the storage contract, for the checker alone: only the standard library, sqlite3
and blake3. Must never import the code that it checks.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3

BLOCK = 1 << 20
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def digest(path: Path) -> str:
    """BLAKE3 of a file's bytes."""
    hasher = blake3()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            hasher.update(block)
    return str(hasher.hexdigest())


def weights(folder: Path) -> str:
    """The digest of the tensors in a folder, computed from the safetensors bytes themselves:
    sorted names, each with dtype and shape and the BLAKE3 of its bytes."""
    found: dict[str, tuple[str, list[int], bytes]] = {}
    for path in [*folder.glob("model*.safetensors"), *folder.glob("adapter_model.safetensors")]:
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = (8 + length + n for n in entry["data_offsets"])
                if end > len(data):
                    raise ValueError(f"{path.name} is cut")
                found[name] = (entry["dtype"], entry["shape"], blake3(data[start:end]).digest())
    hasher = blake3()
    for name in sorted(found):
        dtype, shape, of = found[name]
        hasher.update(json.dumps([name, dtype, shape]).encode())
        hasher.update(of)
    return str(hasher.hexdigest())


def folder_problems(folder: Path, manifest_digest: str, weights_digest: str) -> list[str]:
    """How a published folder differs from its manifest, and that from the database's row."""
    if not folder.is_dir():
        return ["no folder"]
    path = folder / "manifest.json"
    try:
        raw = path.read_bytes()
        listed = {f["name"]: f for f in json.loads(raw)["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"no usable manifest: {error}"]
    wrong = []
    if blake3(raw).hexdigest() != manifest_digest:
        wrong.append("the manifest is not the recorded one")
    there = {
        str((Path(place) / name).relative_to(folder))
        for place, _, names in os.walk(folder)
        for name in names
    } - {"manifest.json"}
    wrong += [f"{name} is missing" for name in sorted(listed.keys() - there)]
    wrong += [f"{name} is in no manifest" for name in sorted(there - listed.keys())]
    for name in sorted(listed.keys() & there):
        if digest(folder / name) != listed[name]["blake3"]:
            wrong.append(f"{name} has other bytes than written")
    if not wrong and any(name.endswith(".safetensors") for name in listed):
        try:
            if weights(folder) != weights_digest:
                wrong.append("its tensors are not those recorded")
        except (ValueError, KeyError, TypeError, struct.error) as error:
            wrong.append(f"its weights cannot be read: {error}")
    return wrong


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """A copy of a database with its log: looking must not finish what a kill left undone."""
    with tempfile.TemporaryDirectory(prefix="checker-", dir=MEMORY) as place:
        copy = Path(place) / path.name
        for ending in ("", "-wal"):
            source = path.with_name(path.name + ending)
            if source.exists():
                shutil.copyfile(source, copy.with_name(copy.name + ending))
        with closing(sqlite3.connect(copy)) as db:
            db.row_factory = sqlite3.Row
            yield db


def parse_ranges(text: str) -> set[int]:
    """ "1-3,7" as {1, 2, 3, 7}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def picture(root: Path) -> dict[str, Any]:
    """All that a home is: every row that does not only say when, and every file by its digest.
    Two pictures are equal where nothing was done in between."""
    store = root / "store"
    told: dict[str, Any] = {}
    for name in ("state.db", "metrics.db"):
        if (store / name).exists():
            with database(store / name) as db:
                tables = [
                    row[0]
                    for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                ]
                for table in tables:
                    rows = [tuple(row) for row in db.execute(f"SELECT * FROM {table}")]
                    told[f"{name}/{table}"] = rows
    for folder in ("items", "checkpoints", "versions", "trash", "quarantine", "tmp"):
        for place, folders, names in os.walk(store / folder):
            told |= {str(Path(place) / n): None for n in folders}
            told |= {str(Path(place) / n): digest(Path(place) / n) for n in names}
    return told
