"""manifest.json: what a folder of ours must hold, file by file, so that damage cannot pass.

Every file's name, size and BLAKE3, the weights' digest, and who made it. A folder that differs
from its manifest by a byte, a missing file or one too many is not complete.

Must never repair anything: it says what is wrong, and whoever asked decides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from queue_store import durable
from queue_store.errors import VerificationFailed
from snapshots.digest import file_digest, file_digests, weights_digest

MANIFEST = "manifest.json"
FORMAT = 1
SIZE_LIMIT = 64 << 20
"""Bytes of the largest manifest that is read; a larger one is damage."""


@dataclass(frozen=True)
class FileEntry:
    """A file of the folder: relative name with slashes, size in bytes, BLAKE3 in hex."""

    name: str
    size: int
    blake3: str


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.json. `id` is the row's, `kind` "checkpoint" or "version"."""

    kind: str
    id: int
    made_by: str
    created: str
    weights_digest: str
    files: tuple[FileEntry, ...]
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """BLAKE3 of the manifest itself; the database keeps it, so that a manifest exchanged
        together with its files is noticed too."""
        return blake3(self.to_json()).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.files)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"


@dataclass(frozen=True)
class Problem:
    """A way in which a folder differs from its manifest.

    `kind`: "missing", "size" (cut or grown), "digest" (bytes differ), "extra",
    "manifest" (unreadable or not the recorded one), "unreadable".
    """

    kind: str
    name: str
    text: str


def file_names(folder: Path) -> list[str]:
    """Relative names of all that is in the folder and no folder itself, the manifest left out.

    Links and other odd things are named too: they are not what a manifest lists.
    """
    return sorted(name for name in _walk(folder, "") if name != MANIFEST)


def build(
    folder: Path,
    *,
    kind: str,
    id: int,
    made_by: str,
    created: str,
    digests: Mapping[str, str] | None = None,
    weights: str | None = None,
) -> Manifest:
    """The manifest of what the folder holds now; `digests` (name -> hex) and `weights` spare
    reading what the caller has hashed already. Raises OSError, VerificationFailed, NotFound."""
    names = file_names(folder)
    known = dict(digests or {})
    unknown = [name for name in names if name not in known]
    hashed = file_digests([folder / name for name in unknown])
    known.update(zip(unknown, hashed, strict=True))
    entries = tuple(FileEntry(n, (folder / n).lstat().st_size, known[n]) for n in names)
    return Manifest(
        kind=kind,
        id=id,
        made_by=made_by,
        created=created,
        weights_digest=weights if weights is not None else weights_digest(folder),
        files=entries,
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into the folder and sync it. Raises OSError."""
    durable.write_atomic(folder / MANIFEST, manifest.to_json(), mode=0o600)


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest. Raises VerificationFailed where it is missing or makes no sense."""
    path = folder / MANIFEST
    try:
        if path.lstat().st_size > SIZE_LIMIT:
            raise ValueError("it is far too large")
        data: dict[str, Any] = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']}, this trainctl knows {FORMAT}")
        files = tuple(
            FileEntry(_safe(str(f["name"])), int(f["size"]), str(f["blake3"]))
            for f in data["files"]
        )
        return Manifest(
            kind=str(data["kind"]),
            id=int(data["id"]),
            made_by=str(data["made_by"]),
            created=str(data["created"]),
            weights_digest=str(data["weights_digest"]),
            files=files,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = "it is missing" if isinstance(error, FileNotFoundError) else str(error)
        raise VerificationFailed(
            f"no usable manifest: {reason}", where=str(path), mend="use another version"
        ) from None


def check(
    folder: Path,
    *,
    deep: bool = True,
    from_medium: bool = False,
    expected: str | None = None,
    seen: Callable[[int], None] | None = None,
) -> list[Problem]:
    """How the folder differs from its manifest; an empty list means that it is complete.

    Shallow compares names and sizes. `deep` reads every byte (which the weights' digest follows
    from, so it is not computed again); `from_medium` reads from the disk and not from the page
    cache. `expected` is the digest of the manifest that the database recorded; `seen` hears of
    every block of bytes read. Raises nothing for damage.
    """
    try:
        manifest = read_manifest(folder)
    except VerificationFailed as error:
        return [Problem("manifest", MANIFEST, error.what)]
    if expected and manifest.digest != expected:
        return [Problem("manifest", MANIFEST, "the manifest is not the one that was recorded")]
    problems = []
    listed = {entry.name for entry in manifest.files}
    for name in file_names(folder):
        if name not in listed:
            problems.append(Problem("extra", name, f"{name} is not in the manifest"))
    for entry in manifest.files:
        problem = _check_file(folder / entry.name, entry, deep, from_medium, seen)
        if problem:
            problems.append(problem)
    return problems


def seen_now(folder: Path) -> str:
    """Which files lie in the folder now, as 64 hex digits: of every one its name, inode, size and
    the time of its last write. The same again later means that none was written or exchanged.

    The inode's change time is left out: it moves with every link that is made or taken away, so
    with each snapshot and each removed checkpoint, while the bytes stay. Raises nothing: what is
    not there, or cannot be looked at, gives another value.
    """
    found = []
    try:
        for name in [*file_names(folder), MANIFEST]:
            info = (folder / name).lstat()
            found.append([name, info.st_ino, info.st_size, info.st_mtime_ns])
    except OSError as error:
        found.append([str(error), 0, 0, 0])
    return blake3(json.dumps(found).encode()).hexdigest()


def refuse(problems: list[Problem], folder: Path, mend: str) -> None:
    """Raise VerificationFailed with the first of the problems, if there are any."""
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise VerificationFailed(problems[0].text + more, where=str(folder), mend=mend)


def _check_file(
    path: Path,
    entry: FileEntry,
    deep: bool,
    from_medium: bool,
    seen: Callable[[int], None] | None,
) -> Problem | None:
    try:
        size = path.lstat().st_size
        if size != entry.size:
            text = f"{entry.name} has {size:,} bytes, not {entry.size:,}"
            return Problem("size", entry.name, text)
        if deep and file_digest(path, from_medium=from_medium, seen=seen) != entry.blake3:
            return Problem("digest", entry.name, f"{entry.name} differs from what was written")
    except FileNotFoundError:
        return Problem("missing", entry.name, f"{entry.name} is missing")
    except OSError as error:
        reason = error.strerror or str(error)
        return Problem("unreadable", entry.name, f"{entry.name} cannot be read: {reason}")
    return None


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def _safe(name: str) -> str:
    """A name that stays inside the folder; anything else is damage or malice."""
    parts = name.split("/")
    if not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"the file name {name!r} is not allowed")
    return name
