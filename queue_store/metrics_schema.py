"""The schema of metrics.db, as it grew: a set of statements a version (see database._migrate)."""

from __future__ import annotations

from queue_store.results_schema import RESULTS_SCHEMA

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
    # Loss of the expected answer, nats a token; NULL where it was not measured.
    """
    ALTER TABLE samples ADD COLUMN expected_loss REAL;
    """,
    RESULTS_SCHEMA,
    # The host whose worker answered; '' is the training process.
    """
    ALTER TABLE samples ADD COLUMN host TEXT NOT NULL DEFAULT '';
    """,
)
