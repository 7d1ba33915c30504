"""What lies in a store, looked at without its database: ledgers, version.json, runs of metrics.db.

Compares names and sizes with the manifests; reads no weights. Must never change anything.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queue_store import dbbackup
from queue_store.errors import VerificationFailed
from queue_store.home import Home
from snapshots import manifest
from snapshots.checkpoints import Ledger
from snapshots.versions import INFO


@dataclass
class Found:
    """What lies in the store. `points` by checkpoint id, each with the manifest of its folder,
    which is None for those known only by a version; `infos` the version.json of every version;
    `damaged` (folder, why)."""

    points: dict[int, tuple[Ledger, manifest.Manifest | None]] = field(default_factory=dict)
    infos: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[tuple[Path, str]] = field(default_factory=list)
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Runs in metrics.db: branch, first and last step, {item: highest cursor}."""
    spans: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(run, item, first step, last step) of metrics.db."""

    @property
    def present(self) -> list[Ledger]:
        """The checkpoints whose folders are complete, by id."""
        return [led for _, (led, sealed) in sorted(self.points.items()) if sealed is not None]


def look(home: Home) -> Found:
    """Read every ledger and version.json; names and sizes of the files are compared."""
    found = Found()
    for folder in sorted(home.versions.iterdir()) if home.versions.is_dir() else ():
        try:
            info = json.loads((folder / INFO).read_bytes())
            assert info["name"] == folder.name and isinstance(info["checkpoint"], int)
            found.infos.append(info)
            ledger = Ledger.read(folder)
            found.points[ledger.id] = (ledger, None)
        except VerificationFailed:
            continue  # weights alone, or the base model: version.json says enough
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            found.damaged.append((folder, f"no usable {INFO}: {error}"))
    for folder in sorted(home.checkpoints.iterdir()) if home.checkpoints.is_dir() else ():
        try:
            manifest.refuse(manifest.check(folder, deep=False), folder, "")
            sealed, ledger = manifest.read_manifest(folder), Ledger.read(folder)
            if ledger.canonical_name != folder.name or sealed.id != ledger.id:
                raise VerificationFailed("its ledger names another folder")
            known = found.points.get(ledger.id)
            if known is not None and known[1] is not None:
                raise VerificationFailed(f"{known[0].canonical_name} has the same number")
            found.points[ledger.id] = (ledger, sealed)
        except VerificationFailed as error:
            found.damaged.append((folder, error.what))
    _look_at_metrics(home, found)
    return found


def _look_at_metrics(home: Home, found: Found) -> None:
    if not home.metrics_db.exists():
        return
    try:
        with closing(dbbackup.read_only(home.metrics_db)) as db:
            for row in db.execute(
                "SELECT run, branch, MIN(step), MAX(step), MIN(time) FROM steps GROUP BY run"
            ):
                found.runs[row[0]] = {"branch": row[1], "first": row[2], "time": row[4]}
            sql = "SELECT run, item, MIN(step), MAX(step) FROM steps GROUP BY run, item"
            found.spans = [tuple(row) for row in db.execute(sql)]
    except sqlite3.Error as error:
        found.damaged.append((home.metrics_db, str(error)))
