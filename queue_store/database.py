"""The two SQLite files of a home: how they are opened, and how their schema grows.

state.db holds what must never be lost (queue, head, checkpoints, versions, journal):
WAL with synchronous FULL, every change in one transaction with its event.
metrics.db holds what was measured, in batches, synced before a checkpoint's transaction.
A connection belongs to the thread that opened it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from queue_store import dbbackup, mounted, reserve
from queue_store.database_errors import CommitUnknown as CommitUnknown
from queue_store.database_errors import disk_error, is_code, unreadable
from queue_store.errors import Refused, TrainctlError
from queue_store.home import Home
from queue_store.jobs_schema import JOBS_SCHEMA
from queue_store.lost import Lost, refuse_lost
from queue_store.metrics_schema import METRICS_SCHEMA

STATE_SCHEMA = (
    """
    CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE items(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL, digest TEXT NOT NULL, file TEXT NOT NULL, source TEXT NOT NULL,
        size INTEGER NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL,
        position REAL NOT NULL, spec TEXT NOT NULL DEFAULT '', lines INTEGER NOT NULL DEFAULT 0,
        accepted INTEGER NOT NULL DEFAULT 0, rejected TEXT NOT NULL DEFAULT '[]',
        badge TEXT NOT NULL DEFAULT '{}',
        rows INTEGER, epochs INTEGER, steps INTEGER, held_out INTEGER, report TEXT,
        prepared TEXT, settings TEXT,
        cursor INTEGER NOT NULL DEFAULT 0, step INTEGER NOT NULL DEFAULT 0,
        crashes INTEGER NOT NULL DEFAULT 0, crashed_at INTEGER NOT NULL DEFAULT -1,
        not_before REAL NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '',
        trained_order INTEGER, created REAL NOT NULL, updated REAL NOT NULL);
    CREATE INDEX items_queue ON items(state, priority, position);
    CREATE TABLE attempts(
        item INTEGER NOT NULL REFERENCES items(id), n INTEGER NOT NULL,
        started REAL NOT NULL, ended REAL, cause TEXT NOT NULL DEFAULT '',
        error TEXT NOT NULL DEFAULT '', PRIMARY KEY(item, n)) WITHOUT ROWID;
    CREATE TABLE waiting(
        path TEXT PRIMARY KEY, name TEXT NOT NULL, priority INTEGER NOT NULL,
        reason TEXT NOT NULL, since REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE branches(
        id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER REFERENCES branches(id),
        checkpoint INTEGER, step INTEGER NOT NULL, why TEXT NOT NULL, created REAL NOT NULL);
    CREATE TABLE runs(
        id INTEGER PRIMARY KEY AUTOINCREMENT, branch INTEGER NOT NULL REFERENCES branches(id),
        checkpoint INTEGER NOT NULL REFERENCES checkpoints(id), step INTEGER NOT NULL,
        started REAL NOT NULL);
    CREATE TABLE checkpoints(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
        branch INTEGER NOT NULL REFERENCES branches(id), step INTEGER NOT NULL,
        run INTEGER, parent INTEGER REFERENCES checkpoints(id),
        item INTEGER, cursor INTEGER NOT NULL DEFAULT 0, progress TEXT NOT NULL,
        created REAL NOT NULL, size_bytes INTEGER NOT NULL, loss REAL, val_loss REAL,
        learning_rate REAL, manifest_digest TEXT NOT NULL, weights_digest TEXT NOT NULL,
        deleted REAL);
    CREATE TABLE head(one INTEGER PRIMARY KEY CHECK (one = 1),
        checkpoint INTEGER NOT NULL REFERENCES checkpoints(id),
        branch INTEGER NOT NULL REFERENCES branches(id));
    CREATE TABLE versions(
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
        scope TEXT NOT NULL, state TEXT NOT NULL,
        checkpoint INTEGER NOT NULL REFERENCES checkpoints(id),
        branch INTEGER NOT NULL, step INTEGER NOT NULL, created REAL NOT NULL,
        description TEXT NOT NULL, size_bytes INTEGER NOT NULL, verified_at REAL,
        pinned INTEGER NOT NULL DEFAULT 0, tags TEXT NOT NULL DEFAULT '[]',
        loss REAL, val_loss REAL, scores TEXT NOT NULL DEFAULT '{}',
        manifest_digest TEXT NOT NULL, weights_digest TEXT NOT NULL);
    CREATE TABLE events(
        seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, kind TEXT NOT NULL,
        text TEXT NOT NULL, item INTEGER, branch INTEGER, step INTEGER,
        data TEXT NOT NULL DEFAULT '{}');
    CREATE INDEX events_item ON events(item, seq);
    CREATE TRIGGER events_stay BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    CREATE TRIGGER events_fixed BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    """,
    """
    ALTER TABLE versions ADD COLUMN deep_verified_at REAL;
    CREATE TABLE copies(
        version INTEGER NOT NULL, target TEXT NOT NULL, state TEXT NOT NULL,
        created REAL NOT NULL, verified_at REAL, size_bytes INTEGER NOT NULL DEFAULT 0,
        manifest_digest TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
        PRIMARY KEY(version, target)) WITHOUT ROWID;
    CREATE TABLE trash(
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL,
        place TEXT NOT NULL UNIQUE, row TEXT NOT NULL, why TEXT NOT NULL,
        size_bytes INTEGER NOT NULL, deleted REAL NOT NULL, expires REAL NOT NULL);
    """,
    # Which files the last verification of a version read (manifest.seen_now).
    """
    ALTER TABLE versions ADD COLUMN seen TEXT NOT NULL DEFAULT '';
    """,
    JOBS_SCHEMA,
)


def _connect(path: Path, schema: tuple[str, ...], home: Home | None = None) -> sqlite3.Connection:
    """A connection to the file, its schema the present one. With `home` it is one of that home's
    two, guarded: never started empty over a store that is not, and copied before it migrates."""
    guarded = home is not None and path == home.state_db
    try:
        if not path.exists():
            if guarded and home is not None:
                refuse_lost(home, "the database is gone")
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise unreadable(path, error) from None
    except OSError as error:
        raise TrainctlError(f"cannot be opened: {error.strerror}", where=str(path)) from None
    try:
        db.row_factory = sqlite3.Row
        # Looked at before anything is written: a file that is empty stays as it was found.
        if guarded and home is not None and _version(db) == 0:
            try:
                refuse_lost(home, "the database is empty")
            except Lost:
                # A process beside us may have made it meanwhile, and its first item with it.
                if _version(db) == 0:
                    raise
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        _migrate(db, path, schema, home)
    except sqlite3.DatabaseError as error:
        db.close()
        raise unreadable(path, error) from None
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _migrate(
    db: sqlite3.Connection, path: Path, schema: tuple[str, ...], home: Home | None = None
) -> None:
    """Run the statements that this file has not seen yet, each set in one transaction; a file
    with rows is copied first, and the copy checked."""
    have = _version(db)
    if have > len(schema):
        raise TrainctlError(
            f"written by a newer trainctl (schema {have}, this one knows {len(schema)})",
            where=str(path),
            mend="update trainctl",
        )
    if 0 < have < len(schema) and home is not None:
        _refuse_beside_an_engine(home, path)
        dbbackup.copy(home, path, dbbackup.BEFORE_MIGRATION)
    for number in range(have, len(schema)):
        db.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have migrated between our look and our lock.
            if _version(db) <= number:
                for statement in _statements(schema[number]):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number + 1}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _refuse_beside_an_engine(home: Home, path: Path) -> None:
    """An engine that runs knows the schema with which it began: started again by its supervisor, it
    could not open what we would make of it. Raises Refused."""
    from queue_store import lock  # which writes its times by ours

    who = lock.holder(home) or {}
    theirs = {who.get("pid"), who.get("supervisor_pid")} - {None}
    if theirs and not theirs & {os.getpid(), os.getppid()}:
        raise Refused(
            f"an older trainctl is running here (pid {who.get('pid')}), and this one would change"
            " its database",
            where=str(path),
            mend="touch .stop in the home (or trainctl stop, with the older one), then start again",
        )


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit our transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


class State:
    """One thread's connection to state.db."""

    def __init__(self, home: Home, db: sqlite3.Connection) -> None:
        self.home = home
        self.db = db
        self.freed = 0

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: committed and synced when the block ends, undone when it raises.

        Inside another transaction of the same connection it joins that one.
        """
        if self.db.in_transaction:
            yield self.db
            return
        try:
            self._begin()
            try:
                yield self.db
            except BaseException:
                self._undo()
                raise
            self._commit()
        except sqlite3.OperationalError as error:
            raise disk_error(error, self.home.state_db) from error

    def _begin(self) -> None:
        """Room first: on a full disk the reserve is what the transaction is written to."""
        self.freed += reserve.relieve(self.home)
        self.db.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        try:
            # Again: the disk may have filled up meanwhile, and a commit that meets a full disk
            # is rolled back by SQLite itself and cannot be tried again.
            self.freed += reserve.relieve(self.home)
            self._tell()
            self.db.execute("COMMIT")
        except BaseException as error:
            self._undo()
            if is_code(error, sqlite3.SQLITE_FULL):
                self.freed += reserve.drop(self.home)  # for the next one
            if is_code(error, sqlite3.SQLITE_IOERR):
                text = f"Input/output error ({error})"
                raise CommitUnknown(errno.EIO, text, str(self.home.state_db)) from error
            raise

    def _undo(self) -> None:
        # Some errors have rolled back by themselves.
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def _tell(self) -> None:
        """The first transaction after the reserve was dropped says so."""
        if self.freed:
            from queue_store import journal

            text = f"the disk is full: {self.freed / 1e6:.0f} MB set aside were given back"
            journal.record(self, "reserve.dropped", text, data={"bytes": self.freed})
            self.freed = 0

    def meta_get(self, key: str, default: Any = None) -> Any:
        """A JSON value kept under `key`."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else orjson.loads(row[0])

    def meta_set(self, key: str, value: Any) -> None:
        """Keep a JSON value under `key`."""
        self.db.execute(
            "INSERT INTO meta VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
            (key, orjson.dumps(value).decode()),
        )

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_state(home: Home) -> State:
    """Open (and, in a home that has none, make) state.db; on a file system that is mounted
    read-only it is only read.

    Raises TrainctlError; Lost where it is gone, empty or unreadable and the store is not empty.
    """
    if mounted.read_only(home):
        return State(home, mounted.connect(home.state_db, STATE_SCHEMA, home))
    home.create()
    make_room(home)
    return State(home, _connect(home.state_db, STATE_SCHEMA, home))


def make_room(home: Home) -> None:
    """On a full disk give the reserve back, and say so in the journal. Cheap where it is not."""
    freed = reserve.relieve(home)
    if freed and home.state_db.exists():
        with State(home, _connect(home.state_db, STATE_SCHEMA, home)) as state:
            state.freed = freed
            with state.transaction():
                pass  # its commit tells


def read_only(home: Home) -> State:
    """state.db as it stands, by a connection that cannot write: of a home whose disk fails.

    Raises TrainctlError; Lost where it is gone or unreadable.
    """
    return State(home, _read_only(home.state_db))


def read_only_metrics(home: Home) -> sqlite3.Connection:
    """metrics.db by a connection that cannot write. Raises TrainctlError."""
    return _read_only(home.metrics_db)


def _read_only(path: Path) -> sqlite3.Connection:
    # Without a log beside it nobody has it open, and the file is all there is.
    for immutable in (False, True) if path.with_name(path.name + "-wal").exists() else (True,):
        db = dbbackup.read_only(path, immutable=immutable)
        try:
            _version(db)
            return db
        except sqlite3.Error as error:
            db.close()
            # Where not even the index of the log can be made the file is read as it lies.
            if immutable:
                raise unreadable(path, error) from None
    raise AssertionError


def open_at(home: Home, path: Path) -> State:
    """A state database of the home that is being made somewhere else; not guarded."""
    return State(home, _connect(path, STATE_SCHEMA))


def open_metrics(home: Home) -> sqlite3.Connection:
    """Open (and, in a home that has none, make) metrics.db, as `open_state`. Raises
    TrainctlError."""
    if mounted.read_only(home):
        return mounted.connect(home.metrics_db, METRICS_SCHEMA, home)
    home.create()
    return _connect(home.metrics_db, METRICS_SCHEMA, home)


def now() -> float:
    """Seconds since the epoch, as every row's times are written."""
    return time.time()
