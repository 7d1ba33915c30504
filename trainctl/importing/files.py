"""The queue and the inbox of an older system (formats F1, F10): which files, in which order.

Order: priority, what was being trained first, then the age of the file, as it was there. What
had trained to its end, or was put aside as stale, is not queued again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queue_store.complete import ignored
from queue_store.errors import DataError
from queue_store.inbox import FLATTENED
from queue_store.items import Priority
from queue_store.lineage import SIDECAR, sidecar_of
from queue_store.rows import quick_check
from trainctl.importing.folder import LeftOut, entries, odd, read_json

QUEUES = {
    "high": Priority.HIGH,
    "normal": Priority.NORMAL,
    "low": Priority.LOW,
    "processing": Priority.NORMAL,
    "failed": Priority.LOW,
}
ENDED = {
    "recently_completed": "it was trained already; trainctl add trains it again",
    "deferred_stale": "it was put aside as stale; trainctl add trains it all the same",
}


@dataclass(frozen=True)
class File:
    """A file to queue. `path` is relative to the folder; `failed` is the old system's last error
    ("" for one that waits); `digest` BLAKE3 of its bytes; `note` what to tell of it."""

    path: str
    name: str
    priority: Priority
    size: int
    rows: int
    digest: str
    failed: str
    note: str
    order: tuple[int, int, float]

    def json(self) -> dict[str, Any]:
        return {
            **{"path": self.path, "name": self.name, "priority": self.priority.word},
            **{"size_bytes": self.size, "rows": self.rows, "digest": self.digest},
            **{"state": "failed" if self.failed else "queued", "note": self.note},
        }


def look(root: Path) -> tuple[list[File], list[LeftOut]]:
    """The files to queue, in the order in which they will train, and what is left out."""
    files: list[File] = []
    left: list[LeftOut] = []
    errors = _errors(root)
    for path, name, priority, where in _candidates(root, left):
        relative = str(path.relative_to(root))
        if why := _unfit(path):
            if why != SIDECAR:
                left.append(LeftOut(relative, why, "link" in why or "readable" in why))
            continue
        try:
            check = quick_check(path, limit=1)
        except DataError as error:
            left.append(LeftOut(relative, error.what, True))
            continue
        failed, note = "", ""
        if where == "processing":
            note = "it was being trained: it trains from its start"
        elif where == "failed":
            failed = errors.get(name) or "the older system gave no reason"
            note = f"it failed there: {failed}"
        if not check.accepted:
            note = f"no row of it trains: {check.rejected[0].reason}"
        info = path.lstat()
        order = (int(priority), int(where != "processing"), info.st_mtime)
        files.append(
            File(
                *(relative, name, priority, info.st_size, check.accepted, check.digest),
                *(failed, note, order),
            )
        )
    return sorted(files, key=lambda one: (one.order, one.path)), left


def _candidates(root: Path, left: list[LeftOut]) -> Iterator[tuple[Path, str, Priority, str]]:
    for where, priority in QUEUES.items():
        for path in entries(root / "queue" / where):
            yield path, path.name, priority, where
    for where, because in ENDED.items():
        for path in entries(root / "queue" / where):
            if not path.name.endswith(SIDECAR):
                left.append(LeftOut(str(path.relative_to(root)), because))
    inbox = root / "inbox"
    for path in entries(inbox):
        if path.is_symlink() or not path.is_dir():
            yield path, path.name, Priority.NORMAL, "inbox"
        elif path.name in ("high", "normal", "low"):
            for inner in entries(path):
                yield inner, inner.name, Priority[path.name.upper()], "inbox"
        elif (path / FLATTENED).is_symlink() or (path / FLATTENED).exists():
            yield path / FLATTENED, f"{path.name}.jsonl", Priority.NORMAL, "inbox"
        else:
            left.append(LeftOut(str(path.relative_to(root)), f"a folder without {FLATTENED}"))


def _unfit(path: Path) -> str:
    """Why a thing in a queue is not taken; SIDECAR for one that goes along with its file."""
    if path.name.endswith(SIDECAR):
        own = path.with_name(path.name.removesuffix(SIDECAR))
        return SIDECAR if own.exists() else "a lineage sidecar whose file is not here"
    if why := odd(path):
        return why
    if path.is_dir():
        return "a folder"
    if ignored(path.name):
        return "a hidden or temporary name: it was never finished"
    return "" if path.name.endswith(".jsonl") else "not a .jsonl file"


def _errors(root: Path) -> dict[str, str]:
    """Why files failed there, by name (queue_metadata.json)."""
    said = read_json(root / "queue" / "queue_metadata.json")
    failed = said.get("failed") if isinstance(said, dict) else None
    found = {}
    for entry in failed if isinstance(failed, list) else ():
        if isinstance(entry, dict):
            why = entry.get("last_error") or entry.get("error") or ""
            found[str(entry.get("file", ""))] = str(why)
    return found


def sidecar(root: Path, file: File) -> Path | None:
    """The sidecar that goes along with a file, if a regular one lies there."""
    path = sidecar_of(root / file.path)
    return path if path.is_file() and not odd(path) else None
