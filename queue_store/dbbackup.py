"""Copies of state.db and metrics.db, made while they are in use, kept in store/backups.

A copy is one file (no -wal beside it), read back and compared with its source before it gets its
name. Names carry the number of the newest row, which only grows, so that no clock decides which
copy is the newest: `state-000000001234-daily-20261126-0300.db`.
Must never write into the database that it copies, nor give a name to a copy that it did not check.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from queue_store import durable
from queue_store.errors import Refused, TrainctlError, VerificationFailed
from queue_store.home import Home

DAILY, BEFORE_MIGRATION = "daily", "migration"
KEEP = {("state", DAILY): 7, ("state", BEFORE_MIGRATION): 2}
KEEP_METRICS = 2
"""Copies of metrics.db of either kind: it is the larger one, and the record, not the truth."""

DAY = 86400.0
MARGIN = 16 << 20
PAGES = 512
"""Pages a step: 2 MB, so that an engine that ends does not wait for a large database."""

_NAME = re.compile(r"(state|metrics)-(\d{12,})-(daily|migration)-(\d{8}-\d{4})(\.\d+)?\.db")
_NEWEST = {"state": "SELECT MAX(seq) FROM events", "metrics": "SELECT MAX(id) FROM steps"}


@dataclass(frozen=True)
class Copy:
    """A copy in store/backups. `database` is state or metrics, `number` that of its newest event
    (or step), `kind` daily or migration, `made` the local time in its name."""

    path: Path
    database: str
    number: int
    kind: str
    made: str

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size


class Cancelled(TrainctlError):
    """The copying was broken off: the engine ends."""


def read_only(path: Path, timeout: float = 30.0, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that cannot write the database; `immutable`: nobody else does either, and no
    lock, log or index is looked at."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' * immutable}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    db.row_factory = sqlite3.Row
    return db


def listing(home: Home, database: str = "state") -> list[Copy]:
    """The copies of a database, oldest first."""
    found = []
    for path in home.backups.iterdir() if home.backups.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and match[1] == database and path.is_file():
            found.append(Copy(path, match[1], int(match[2]), match[3], match[4]))
    return sorted(found, key=lambda copy: (copy.number, copy.path.stat().st_mtime, copy.path.name))


def problems(path: Path) -> list[str]:
    """What is wrong with a database file, as SQLite tells it; [] for a sound one."""
    try:
        with closing(read_only(path)) as db:
            return _problems(db)
    except sqlite3.Error as error:
        return [str(error)]


def copy(
    home: Home,
    source: Path,
    kind: str = DAILY,
    stopping: Callable[[], bool] = lambda: False,
) -> Copy:
    """Copy a database of the home and check the copy; writers go on meanwhile.

    Raises Refused (no room), VerificationFailed (source or copy is damaged), OSError,
    sqlite3.Error, Cancelled when `stopping`. Then nothing of the copy is left.
    """
    database = source.stem
    _require_room(home, source)
    durable.make_folder(home.backups)
    tmp = durable.new_tmp(home, "backup")
    try:
        target = tmp / "copy.db"
        number = _copy(source, target, database, stopping)
        durable.crash_point("backup.copied")
        wrong = problems(target)
        if wrong:
            raise VerificationFailed(
                f"the copy of {source.name} is damaged: {wrong[0]}",
                where=str(source),
                mend="the copies of before are kept; look with trainctl doctor",
            )
        place = _place(home, database, number, kind)
        durable.fsync_file(target)
        durable.crash_point("backup.checked")
        durable.take_file(target, place)
        durable.crash_point("backup.named")
    finally:
        durable.discard(tmp, home)
    return next(one for one in listing(home, database) if one.path == place)


def expired(home: Home) -> list[Copy]:
    """The copies that the newest ones make superfluous, oldest first. A damaged copy is no reason
    to let an older one go."""
    result = []
    for (database, kind), keep in KEEP.items():
        result += [c for c in listing(home, database) if c.kind == kind][:-keep]
    result += listing(home, "metrics")[:-KEEP_METRICS]
    return result


def remove(home: Home, copies: Iterable[Copy]) -> None:
    """Remove copies; the caller has journaled them."""
    for one in copies:
        durable.discard(one.path, home)


def newest_good(home: Home) -> tuple[Copy | None, list[tuple[Copy, str]]]:
    """The newest sound copy of state.db, and the damaged ones that were passed over."""
    damaged: list[tuple[Copy, str]] = []
    for one in reversed(listing(home)):
        wrong = problems(one.path)
        if not wrong:
            return one, damaged
        damaged.append((one, wrong[0]))
    return None, damaged


def _copy(source: Path, target: Path, database: str, stopping: Callable[[], bool]) -> int:
    """The bytes; returns the number of the newest row in them."""

    def progress(status: int, remaining: int, total: int) -> None:
        if stopping():
            raise Cancelled("the copy was broken off: the engine ends")

    durable.write_new(target, b"")
    with closing(read_only(source)) as db, closing(sqlite3.connect(target)) as made:
        # One read transaction around all steps: in WAL mode it holds up no writer, and without
        # it every commit in between would start the copy from its first page again.
        db.execute("BEGIN")
        counted = _counts(db)
        number = int(db.execute(_NEWEST[database]).fetchone()[0] or 0)
        db.backup(made, pages=PAGES, progress=progress)
        db.execute("COMMIT")
        # The pages say "WAL"; the copy is to be one file, whole without another beside it.
        made.execute("PRAGMA journal_mode = DELETE")
        made.row_factory = sqlite3.Row
        if (found := _counts(made)) != counted:
            differ = sorted(name for name in counted if found.get(name) != counted[name])
            raise VerificationFailed(
                f"the copy has other rows than {source.name}: {', '.join(differ)}",
                where=str(source),
            )
    return number


def _counts(db: sqlite3.Connection) -> dict[str, int]:
    """Rows of every table."""
    names = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return {row[0]: db.execute(f'SELECT COUNT(*) FROM "{row[0]}"').fetchone()[0] for row in names}


def _problems(db: sqlite3.Connection) -> list[str]:
    wrong = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)")]
    wrong = [] if wrong == ["ok"] else wrong
    for row in db.execute("PRAGMA foreign_key_check"):
        wrong.append(f"a row of {row[0]} refers to one of {row[2]} that is not there")
        break
    if db.execute("PRAGMA user_version").fetchone()[0] == 0:
        wrong.append("it is empty")
    return wrong


def _require_room(home: Home, source: Path) -> None:
    wal = source.with_name(source.name + "-wal")
    needed = source.stat().st_size + (wal.stat().st_size if wal.exists() else 0) + MARGIN
    free = durable.free_bytes(home.store)
    if free < needed:
        raise Refused(
            f"no room for a copy of {source.name}: needs {needed / 1e6:.0f} MB,"
            f" {free / 1e6:.0f} MB are free",
            where=str(home.store),
            mend="free some; nothing was changed",
        )


def _place(home: Home, database: str, number: int, kind: str) -> Path:
    stem = f"{database}-{number:012}-{kind}-{time.strftime('%Y%m%d-%H%M')}"
    for n in range(1, 1000):
        path = home.backups / (f"{stem}.db" if n == 1 else f"{stem}.{n}.db")
        if not path.exists():
            return path
    raise Refused("too many copies of this minute", where=str(home.backups))
