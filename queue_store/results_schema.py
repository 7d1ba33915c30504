"""The tables of evaluation results in metrics.db: what was asked, answered, and how it was judged.

An evaluation is a model (its weights' digest) asked the rows of a set (its file's digest) with a
generation configuration (the digest of its JSON). Under it an answer an item, and a score an
answer and version of a scorer, so that a better scorer judges old answers without asking again.
The items are kept, too: a set whose file changed or went is still to be read.
"""

from __future__ import annotations

RESULTS_SCHEMA = """
    CREATE TABLE evaluation_items(
        set_digest TEXT NOT NULL, item TEXT NOT NULL, position INTEGER NOT NULL,
        skill TEXT NOT NULL DEFAULT '', level INTEGER, tier TEXT NOT NULL DEFAULT '',
        prompt TEXT NOT NULL, expected TEXT NOT NULL, metadata TEXT NOT NULL DEFAULT '{}',
        PRIMARY KEY(set_digest, item));
    CREATE TABLE evaluations(
        id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, set_digest TEXT NOT NULL,
        config TEXT NOT NULL, set_name TEXT NOT NULL, settings TEXT NOT NULL,
        created REAL NOT NULL, UNIQUE(model, set_digest, config));
    CREATE TABLE answers(
        id INTEGER PRIMARY KEY, evaluation INTEGER NOT NULL REFERENCES evaluations(id),
        item TEXT NOT NULL, complete INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 1,
        finish TEXT NOT NULL DEFAULT '', tokens INTEGER, ms REAL, batch INTEGER,
        backend TEXT NOT NULL DEFAULT '', host TEXT NOT NULL DEFAULT '',
        error_kind TEXT NOT NULL DEFAULT '', time REAL NOT NULL,
        error TEXT NOT NULL DEFAULT '', answer TEXT NOT NULL DEFAULT '');
    CREATE UNIQUE INDEX answers_item ON answers(evaluation, item);
    CREATE INDEX answers_complete ON answers(evaluation, complete);
    CREATE TABLE scores(
        answer INTEGER NOT NULL REFERENCES answers(id), scorer TEXT NOT NULL,
        version TEXT NOT NULL, exact INTEGER, parts TEXT NOT NULL DEFAULT '{}',
        error TEXT NOT NULL DEFAULT '', PRIMARY KEY(answer, scorer, version)) WITHOUT ROWID;
"""
