"""Every byte of what is in use: the head's checkpoint and the files of unfinished items."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from queue_store.errors import VerificationFailed
from queue_store.home import Home
from trainctl.doctor.check import Check, listed, rows
from trainctl.doctor.invariants import head_row

Tell = Callable[[str], None]


def digests(home: Home, tell: Tell) -> Iterator[Check]:
    """Read and compare; `tell` hears what is being read."""
    try:
        yield _head(home, tell)
        yield _items(home, tell)
    except sqlite3.Error:
        return  # told elsewhere


def on_terminal(json: bool) -> Tell:
    """Progress on the last line of a terminal; nothing elsewhere."""
    if json or not sys.stderr.isatty():
        return lambda text: None

    def tell(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text[:78]}")
        sys.stderr.flush()

    return tell


def _head(home: Home, tell: Tell) -> Check:
    from snapshots import manifest
    from snapshots.digest import file_digest

    name, row = "digests of the head", head_row(home)
    if row is None or row["kind"] == "base":
        return Check(name, True, "the head has no files of its own")
    folder = home.checkpoints / row["name"]
    try:
        entries = manifest.read_manifest(folder).files
    except VerificationFailed as error:
        return Check(name, False, error.what, "trainctl rollback to a verified version")
    whole, done, wrong = sum(entry.size for entry in entries), 0, []
    for entry in entries:
        tell(f"reading {row['name']}: {100 * done // max(whole, 1)} %, {entry.name}")
        if _differs(folder / entry.name, entry.blake3, file_digest):
            wrong.append(entry.name)
        done += entry.size
    tell("")
    if wrong:
        advice = "start the engine: it goes on from the newest whole checkpoint before it"
        return Check(name, False, f"other bytes than were written: {listed(wrong)}", advice)
    return Check(name, True, f"{len(entries)} files, every byte as written")


def _items(home: Home, tell: Tell) -> Check:
    from snapshots.digest import file_digest

    found = rows(
        home.state_db,
        "SELECT id, file, digest FROM items WHERE digest <> ''"
        " AND state NOT IN ('done', 'failed', 'skipped', 'rejected')",
    )
    wrong = []
    for row in found:
        tell(f"reading item {row['id']}")
        if _differs(home.items / row["file"], row["digest"], file_digest):
            wrong.append(str(row["id"]))
    tell("")
    if wrong:
        advice = "bring the files back from a backup, or remove the items and add them anew"
        return Check("digests of items", False, f"other bytes: items {listed(wrong)}", advice)
    return Check("digests of items", True, f"{len(found)} unfinished items, every byte as taken")


def _differs(path: Path, digest: str, digest_of: Callable[[Path], str]) -> bool:
    try:
        return digest_of(path) != digest
    except OSError:
        return True
