"""The table of evaluation jobs in state.db (see jobs), and where the look for new ones begins.

What a home holds when it gets the table is history: its versions ask for no job by themselves.
"""

from __future__ import annotations

JOBS_SCHEMA = """
    CREATE TABLE jobs(
        id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, digest TEXT NOT NULL,
        step INTEGER, branch INTEGER, sets TEXT NOT NULL, reason TEXT NOT NULL,
        priority INTEGER NOT NULL, state TEXT NOT NULL, wanted TEXT NOT NULL DEFAULT '',
        host TEXT NOT NULL DEFAULT '', items INTEGER, answered INTEGER NOT NULL DEFAULT 0,
        errors INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, started REAL, ended REAL,
        tries INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
        next_try REAL NOT NULL DEFAULT 0, deadline REAL, error TEXT NOT NULL DEFAULT '');
    CREATE INDEX jobs_state ON jobs(state, priority);
    INSERT INTO meta(key, value) SELECT 'jobs.marks', json_object(
        'event', COALESCE((SELECT MAX(seq) FROM events), 0),
        'version', COALESCE((SELECT MAX(id) FROM versions), 0),
        'branch', COALESCE((SELECT branch FROM head), 0),
        'step', COALESCE((SELECT step FROM checkpoints
            WHERE id = (SELECT checkpoint FROM head)), 0));
"""
