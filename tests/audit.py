"""A home looked at from outside, with sqlite3 and the files: what must hold after any end."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from blake3 import blake3

from queue_store import records
from queue_store.database import open_state
from queue_store.home import Home
from queue_store.intake import SIDECAR
from snapshots import manifest

CLAIMED = ("preparing", "training")


def audit(home: Home, *, recovered: bool = True) -> list[str]:
    """What is wrong with a home that no engine holds, a line each; [] where all invariants hold.

    `recovered`: the last engine ended by itself, so that nothing may be left to recover.
    """
    wrong: list[str] = []
    with closing(sqlite3.connect(f"file:{home.state_db}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            wrong.append("state.db is damaged")
        items = {row["id"]: row for row in db.execute("SELECT * FROM items")}
        wrong += _files(home, items)
        wrong += _attempts(db, items)
        wrong += _checkpoints(home, db, recovered)
        wrong += _versions(home, db, recovered)
        if recovered:
            wrong += [
                f"item {i} is {r['state']}" for i, r in items.items() if r["state"] in CLAIMED
            ]
            wrong += [f"left in tmp: {p.name}" for p in home.tmp.iterdir()]
    return wrong + (_line(home) if recovered else [])


def _files(home: Home, items: dict[int, sqlite3.Row]) -> list[str]:
    wrong = []
    names = [row["file"] for row in items.values()]
    wrong += [f"two items of {name}" for name in {n for n in names if names.count(n) > 1}]
    for number, row in items.items():
        path = home.items / row["file"]
        if not path.is_file():
            wrong.append(f"item {number} has no file")
        elif row["digest"] and blake3(path.read_bytes()).hexdigest() != row["digest"]:
            wrong.append(f"item {number} has other bytes than it had")
    there = {p.name for p in home.items.iterdir() if not p.name.endswith(SIDECAR)}
    return wrong + [f"no row for {name}" for name in sorted(there - set(names))]


def _attempts(db: sqlite3.Connection, items: dict[int, sqlite3.Row]) -> list[str]:
    wrong = []
    claimed = [i for i, row in items.items() if row["state"] in CLAIMED]
    if len(claimed) > 1:
        wrong.append(f"more than one item is claimed: {claimed}")
    for row in db.execute(
        "SELECT item, COUNT(*) n FROM attempts WHERE ended IS NULL GROUP BY item"
    ):
        if row["item"] not in claimed or row["n"] > 1:
            wrong.append(f"item {row['item']} has {row['n']} attempts that did not end")
    return wrong


def _checkpoints(home: Home, db: sqlite3.Connection, recovered: bool) -> list[str]:
    wrong = []
    rows = {r["id"]: r for r in db.execute("SELECT * FROM checkpoints")}
    head = db.execute("SELECT checkpoint FROM head").fetchone()
    if head is not None and rows[head[0]]["deleted"] and rows[head[0]]["kind"] != "base":
        wrong.append(f"the head {rows[head[0]]['name']} is deleted")
    kept = {r["name"]: r for r in rows.values() if not r["deleted"] and r["kind"] != "base"}
    for name, row in kept.items():
        problems = _check(home.checkpoints / name, row["manifest_digest"])
        wrong += [f"checkpoint {name}: {p}" for p in problems]
    if recovered:
        wrong += [f"folder without row: {n}" for n in _folders(home.checkpoints) - set(kept)]
    return wrong


def _versions(home: Home, db: sqlite3.Connection, recovered: bool) -> list[str]:
    wrong = []
    rows = {r["name"]: r for r in db.execute("SELECT * FROM versions")}
    for name, row in rows.items():
        problems = _check(home.versions / name, row["manifest_digest"])
        if row["state"] != "corrupt":
            wrong += [f"version {name} ({row['state']}): {p}" for p in problems]
    if recovered:
        wrong += [f"folder without row: {n}" for n in _folders(home.versions) - set(rows)]
    return wrong


def _check(folder: Path, digest: str) -> list[str]:
    if not folder.is_dir():
        return ["no folder"]
    return [p.text for p in manifest.check(folder, expected=digest)]


def _folders(parent: Path) -> set[str]:
    return {p.name for p in parent.iterdir()} if parent.is_dir() else set()


def _line(home: Home) -> list[str]:
    """Items against the head's progress, and the rows that trained on the head's line."""
    wrong = []
    with open_state(home) as state:
        at = records.head(state)
        if at is None:
            return []
        line = records.line(state, live=False)
        items = {r["id"]: r for r in state.db.execute("SELECT * FROM items")}
    progress = at.checkpoint.progress
    done = {i for i, r in items.items() if r["state"] == "done"}
    if done != progress.finished:
        wrong.append(f"done {sorted(done)}, the head has {sorted(progress.finished)}")
    wrong += [f"item {i} is trained" for i, r in items.items() if r["state"] == "trained"]
    for number, row in items.items():
        cursor = progress.cursors.get(number, (0, 0))[0]
        if number not in done and row["cursor"] != cursor:
            wrong.append(f"item {number} at row {row['cursor']}, the head has {cursor}")
    with closing(sqlite3.connect(f"file:{home.metrics_db}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        steps = [
            row
            for row in db.execute("SELECT * FROM steps ORDER BY step, id")
            if any(row["run"] == n and (m is None or row["step"] <= m) for n, m in line)
        ]
    if [s["step"] for s in steps] != list(range(1, at.checkpoint.step + 1)):
        wrong.append(f"the steps of the line are not 1 to {at.checkpoint.step}")
    for number, row in items.items():
        mine = [s for s in steps if s["item"] == number]
        reached = 0
        for step in mine:
            if step["cursor_from"] != reached:
                wrong.append(f"item {number}: row {reached} then row {step['cursor_from']}")
            reached = step["cursor_to"]
        expected = row["cursor"]
        if number in done:
            expected = (row["rows"] or 0) * (row["epochs"] or 1)
        if reached != expected:
            wrong.append(f"item {number} ({row['state']}) trained to {reached}, not {expected}")
    return wrong
