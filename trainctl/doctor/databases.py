"""The two databases: sound, not lost, with copies that can be used, and times that can be."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from queue_store import dbbackup, lost
from queue_store.home import Home
from trainctl.doctor.check import Check, rows
from trainctl.output import ago, duration, size

OLD = 2 * dbbackup.DAY
AHEAD = 3600.0


def databases(home: Home, *, quick: bool) -> Iterator[Check]:
    """Whether each is there and sound; with `quick` the pages are looked at, not the indexes."""
    if not home.state_db.exists() or not home.state_db.stat().st_size:
        told = lost.evidence(home)
        found = f"gone, and the store holds {told}" if told else "none yet"
        yield Check("state.db", not told, found, lost.MEND if told else "")
    else:
        yield _sound(home.state_db, quick)
    if home.metrics_db.exists():
        yield _sound(home.metrics_db, quick)


def _sound(path: Path, quick: bool) -> Check:
    try:
        pragma = "PRAGMA quick_check(5)" if quick else "PRAGMA integrity_check(5)"
        told = [str(row[0]) for row in rows(path, pragma)]
        told = ["ok"] if told == [] else told
        broken = [] if quick else rows(path, "PRAGMA foreign_key_check")
    except sqlite3.Error as error:
        told, broken = [str(error)], []
    if told == ["ok"] and broken:
        told = [f"a row of {broken[0][0]} refers to one of {broken[0][2]} that is not there"]
    ok = told == ["ok"]
    mend = lost.MEND if path.name == "state.db" else f"keep a copy of {path}; do not train"
    return Check(path.name, ok, "sound" if ok else "; ".join(told), "" if ok else mend)


def copies(home: Home, *, quick: bool) -> Check:
    """The newest copy of state.db: how old, and whether it could be used."""
    name, found = "copies of state.db", dbbackup.listing(home)
    try:
        first = rows(home.state_db, "SELECT MIN(time) FROM events")[0][0]
    except sqlite3.Error:
        first = None
    if not found:
        old = first is not None and time.time() - first > OLD
        advice = "a running engine makes one every day: see its log" if old else ""
        return Check(name, not old, "none yet", advice)
    newest = found[-1]
    age = time.time() - newest.path.stat().st_mtime
    told = f"{len(found)}, the newest {ago(time.time() - age)}, {size(newest.size_bytes)}"
    if not quick and (wrong := dbbackup.problems(newest.path)):
        advice = f"older ones may be sound; let the engine make another, then remove {newest.path}"
        return Check(name, False, f"the newest is damaged: {wrong[0]}", advice)
    if age > OLD and _changed_since(home, newest):
        advice = f"none for {duration(age)}: a running engine makes one every day, see its log"
        return Check(name, False, told, advice)
    return Check(name, True, told)


def _changed_since(home: Home, copy: dbbackup.Copy) -> bool:
    try:
        newest = rows(home.state_db, "SELECT MAX(seq) FROM events")[0][0] or 0
    except sqlite3.Error:
        return False
    return bool(newest > copy.number + 1)


def clock(home: Home) -> Check:
    """Whether anything on record lies in the future."""
    try:
        newest = max(
            rows(home.state_db, f"SELECT MAX({column}) FROM {table}")[0][0] or 0.0
            for table, column in (
                *(("events", "time"), ("versions", "created"), ("checkpoints", "created")),
            )
        )
    except sqlite3.Error:
        return Check("clock", True, "not compared: the database cannot be read")
    ahead = newest - time.time()
    if ahead > AHEAD:
        advice = "set the clock of this machine; rules by age pass over times of the future"
        return Check("clock", False, f"the store has times {duration(ahead)} ahead", advice)
    return Check("clock", True, "nothing on record lies in the future")
