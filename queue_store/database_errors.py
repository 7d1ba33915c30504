"""What SQLite's errors mean for a home: an OSError of the disk, or one line for a person."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from queue_store.errors import TrainctlError
from queue_store.lost import MEND, Lost


class CommitUnknown(OSError):
    """The commit failed on its way to the disk: only the next start shows whether it is there.
    Until then nothing that it speaks of may be taken away. Its errno is EIO."""


def disk_error(error: sqlite3.Error, path: Path) -> Exception:
    """SQLite's word for a full, failing or read-only disk as the OSError that a plain write would
    raise."""
    if is_code(error, sqlite3.SQLITE_FULL):
        return OSError(errno.ENOSPC, f"No space left on device ({error})", str(path))
    if is_code(error, sqlite3.SQLITE_IOERR):
        return OSError(errno.EIO, f"Input/output error ({error})", str(path))
    if is_code(error, sqlite3.SQLITE_READONLY):
        return OSError(errno.EROFS, f"Read-only file system ({error})", str(path))
    return error


def is_code(error: BaseException, code: int) -> bool:
    """Whether SQLite gave this primary result code."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF == code


def unreadable(path: Path, error: sqlite3.Error) -> TrainctlError:
    """What a person is told of a database that SQLite does not open."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return Lost(
            f"the database cannot be read: {error}",
            where=str(path),
            mend=f"nothing was changed; {MEND}"
            if path.name == "state.db"
            else "nothing was changed; look at it with `trainctl doctor`",
        )
    if code == sqlite3.SQLITE_FULL:
        return TrainctlError(f"the disk is full: {error}", where=str(path), mend="free some")
    return TrainctlError(
        f"the database cannot be opened: {error}",
        where=str(path),
        mend="nothing was changed; look at it with `trainctl doctor`",
    )
