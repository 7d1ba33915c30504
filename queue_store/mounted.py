"""A home on a file system that is mounted read-only: its databases as they stand, or a refusal.

SQLite reads a database in WAL mode without writing only where the log's index is there already,
or where it is promised that the file does not change ("immutable"), and then it looks at no log.
So that is promised only where no log with content lies beside it: old figures are never shown as
the present ones. Must never write.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from queue_store import dbbackup
from queue_store.database_errors import unreadable
from queue_store.errors import TrainctlError
from queue_store.home import Home
from queue_store.lost import refuse_lost


def read_only(home: Home) -> bool:
    """Whether nobody can write to the home through this mount."""
    for folder in (home.store, home.root):
        try:
            return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
        except OSError:
            continue
    return False


def connect(path: Path, schema: tuple[str, ...], home: Home) -> sqlite3.Connection:
    """A connection that reads the file; where there is none, one to an empty database in memory.

    Raises TrainctlError; Lost where state.db is gone and the store is not empty.
    """
    if not path.exists():
        if path == home.state_db:
            refuse_lost(home, "the database is gone")
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        for script in schema:
            db.executescript(script)
        return db
    db, version = _opened(path)
    if version != len(schema):
        db.close()
        raise TrainctlError(
            f"written by another trainctl (schema {version}, this one knows {len(schema)}), and the"
            " file system is mounted read-only",
            where=str(path),
            mend="mount it writable" if version < len(schema) else "update trainctl",
        )
    return db


def _opened(path: Path) -> tuple[sqlite3.Connection, int]:
    """A connection and the version of the schema. With the log first: an engine that writes through
    another mount has it open, and empty for a moment too."""
    log = path.with_name(path.name + "-wal")
    for immutable in (False, True):
        db = dbbackup.read_only(path, immutable=immutable)
        try:
            return db, int(db.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.Error as error:
            db.close()
            if immutable:
                raise unreadable(path, error) from None
            if log.exists() and log.stat().st_size > 0:
                raise TrainctlError(
                    f"the file system is mounted read-only, and the newest changes, in {log.name},"
                    f" cannot be read there: {error}",
                    where=str(path),
                    mend="mount it writable, or look at a copy of the home that is",
                ) from None
    raise AssertionError
