"""The two SQLite files of a home: how they are opened, and how their schema grows.

state.db holds what must never be lost (queue, head, checkpoints, versions, journal):
WAL with synchronous FULL, every change in one transaction with its event.
metrics.db holds what was measured, in batches, synced before a checkpoint's transaction.
A connection belongs to the thread that opened it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from queue_store.errors import TrainctlError
from queue_store.home import Home

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
)

METRICS_SCHEMA = (
    """
    CREATE TABLE steps(
        id INTEGER PRIMARY KEY, run INTEGER NOT NULL, branch INTEGER NOT NULL,
        step INTEGER NOT NULL, item INTEGER NOT NULL, cursor_from INTEGER NOT NULL,
        cursor_to INTEGER NOT NULL, loss REAL, learning_rate REAL NOT NULL, grad_norm REAL,
        tokens INTEGER NOT NULL, seconds REAL NOT NULL, memory INTEGER, time REAL NOT NULL);
    CREATE INDEX steps_run ON steps(run, step);
    CREATE INDEX steps_item ON steps(item, run, step);
    CREATE TABLE validations(
        id INTEGER PRIMARY KEY, run INTEGER NOT NULL, branch INTEGER NOT NULL,
        step INTEGER NOT NULL, name TEXT NOT NULL, loss REAL, tokens INTEGER NOT NULL,
        seconds REAL NOT NULL, time REAL NOT NULL);
    CREATE INDEX validations_run ON validations(run, step);
    CREATE TABLE examples(
        id TEXT PRIMARY KEY, set_name TEXT NOT NULL, position INTEGER NOT NULL,
        prompt TEXT NOT NULL, expected TEXT NOT NULL, skill TEXT NOT NULL DEFAULT '',
        level INTEGER) WITHOUT ROWID;
    CREATE TABLE samples(
        id INTEGER PRIMARY KEY, run INTEGER NOT NULL, branch INTEGER NOT NULL,
        step INTEGER NOT NULL, example TEXT NOT NULL, answer TEXT NOT NULL,
        exact INTEGER NOT NULL, similarity REAL NOT NULL, tokens INTEGER NOT NULL,
        seconds REAL NOT NULL, time REAL NOT NULL);
    CREATE INDEX samples_run ON samples(run, step);
    CREATE INDEX samples_example ON samples(example, run, step);
    """,
)


def _connect(path: Path, schema: tuple[str, ...]) -> sqlite3.Connection:
    try:
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        _migrate(db, path, schema)
    except sqlite3.DatabaseError as error:
        raise TrainctlError(
            f"the database cannot be read: {error}",
            where=str(path),
            mend="nothing was changed; look at it with `trainctl doctor`",
        ) from None
    except OSError as error:
        raise TrainctlError(f"cannot be opened: {error.strerror}", where=str(path)) from None
    return db


def _migrate(db: sqlite3.Connection, path: Path, schema: tuple[str, ...]) -> None:
    """Run the statements that this file has not seen yet, each set in one transaction."""
    have = db.execute("PRAGMA user_version").fetchone()[0]
    if have > len(schema):
        raise TrainctlError(
            f"written by a newer trainctl (schema {have}, this one knows {len(schema)})",
            where=str(path),
            mend="update trainctl",
        )
    for number in range(have, len(schema)):
        db.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have migrated between our look and our lock.
            if db.execute("PRAGMA user_version").fetchone()[0] <= number:
                for statement in _statements(schema[number]):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {number + 1}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise


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

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: committed and synced when the block ends, undone when it raises.

        Inside another transaction of the same connection it joins that one.
        """
        if self.db.in_transaction:
            yield self.db
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

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
    """Open (and, in a home that has none, make) state.db. Raises TrainctlError."""
    home.create()
    return State(home, _connect(home.state_db, STATE_SCHEMA))


def open_metrics(home: Home) -> sqlite3.Connection:
    """Open (and, in a home that has none, make) metrics.db. Raises TrainctlError."""
    home.create()
    return _connect(home.metrics_db, METRICS_SCHEMA)


def now() -> float:
    """Seconds since the epoch, as every row's times are written."""
    return time.time()
