"""Everything there is to know of one version: its files, whom they are shared with, what it
contains, and where it came from.

Looks at files and reads none of their bytes, but for the manifest. Must never count a hard link
as a second copy: names that share an inode share its fate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from queue_store import queue, records
from queue_store.database import State
from queue_store.errors import NotFound, VerificationFailed
from queue_store.home import Home
from queue_store.records import Progress
from snapshots import manifest, tree
from snapshots.versions import get, version_folder, versions

LINKED = (
    "a file shared with another name here is one copy under two names: what damages it damages both"
)


def facts(state: State, name: str, row: dict[str, Any]) -> dict[str, Any]:
    """`row` (the version's of `versions`) and: checkpoint_name, folder, line [names from the
    first version of its line on, itself last], files [{name, size_bytes, blake3, links,
    shared_with[]}], own_bytes and shared_bytes (on disk, of files that no other name has, and
    of those that one has), hard_links (what that means), items [{id, name, rows, whole}].

    `files` is {"unknown": why} where the manifest cannot be read. Raises NotFound.
    """
    version = get(state, name)
    made_of = records.checkpoint(state, version.checkpoint)
    folder = version_folder(state.home, version)
    found: dict[str, Any] = {
        **row,
        "checkpoint_name": made_of.name,
        "folder": str(folder),
        "line": _line(state, version.name),
        "items": contained(state, made_of.progress),
        "hard_links": LINKED,
    }
    try:
        entries = manifest.read_manifest(folder).files
    except VerificationFailed as error:
        unknown = {"unknown": error.what}
        return {**found, "files": unknown, "own_bytes": unknown, "shared_bytes": unknown}
    names = _names_by_inode(state.home)
    files, own, shared = [], 0, 0
    for entry in entries:
        path = folder / entry.name
        file = {"name": entry.name, "size_bytes": entry.size, "blake3": entry.blake3}
        try:
            info = path.lstat()
        except OSError as error:
            why = {"unknown": error.strerror or str(error)}
            files.append({**file, "links": why, "shared_with": []})
            continue
        others = sorted({*names.get((info.st_dev, info.st_ino), ())} - {version.name})
        own += info.st_blocks * 512 if info.st_nlink == 1 else 0
        shared += info.st_blocks * 512 if info.st_nlink > 1 else 0
        files.append({**file, "links": info.st_nlink, "shared_with": others})
    return {**found, "files": files, "own_bytes": own, "shared_bytes": shared}


def contained(state: State, progress: Progress) -> list[dict[str, Any]]:
    """The items of which a state contains rows: [{id, name, rows, whole}]; `rows` counts them
    over the epochs, as cursors do."""
    found = []
    for item_id in sorted(progress.finished | progress.cursors.keys()):
        rows = rows_of(state, progress, item_id)
        whole = item_id in progress.finished
        if rows or whole:
            name = _item_name(state, item_id)
            found.append({"id": item_id, "name": name, "rows": rows, "whole": whole})
    return found


def rows_of(state: State, progress: Progress, item_id: int) -> int:
    """How many rows of an item a state has trained, on through the epochs."""
    if item_id not in progress.finished:
        return progress.cursors.get(item_id, (0, 0))[0]
    try:
        item = queue.get(state, item_id)
    except NotFound:
        return 0
    return (item.rows or 0) * (item.epochs or 1)


def _item_name(state: State, item_id: int) -> str:
    try:
        return queue.get(state, item_id).name
    except NotFound:
        return f"item {item_id}"


def _line(state: State, name: str) -> list[str]:
    parent = tree.grow(state, versions(state)).parent
    line, at = [name], parent[name]
    while at is not None:
        line.append(at)
        at = parent[at]
    return line[::-1]


def _names_by_inode(home: Home) -> dict[tuple[int, int], list[str]]:
    """For every file of the versions and checkpoints the folders that have a name for it."""
    found: dict[tuple[int, int], list[str]] = {}
    for place in (home.versions, home.checkpoints):
        for folder in place.iterdir() if place.is_dir() else ():
            for path in _files(folder):
                info = path.lstat()
                found.setdefault((info.st_dev, info.st_ino), []).append(folder.name)
    return found


def _files(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in manifest.file_names(folder)]
    except OSError:  # no folder, or one that goes this moment
        return []
