"""The promises of a home as far as files and rows can show them, without writing or recovering.

Items have their files, the head is complete, verified versions are whole, nothing lies about
without a row, one item is claimed at most, the journal cannot be altered, rows trained once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from queue_store.home import Home
from queue_store.lock import holder
from trainctl.doctor.check import Check, listed, rows

TRIGGERS = {"events_stay", "events_fixed"}
START = "start the engine: it looks after that"


def invariants(home: Home, *, quick: bool) -> Iterator[Check]:
    """A line each; nothing where the database cannot be read, for that is told elsewhere."""
    try:
        rows(home.state_db, "SELECT 1 FROM items LIMIT 1")
    except sqlite3.Error:
        return
    running = holder(home) is not None
    yield _item_files(home)
    yield _head(home)
    yield from _versions(home)
    yield _without_rows(home, running)
    yield _attempts(home, running)
    yield _journal(home)
    yield _trash(home)
    if not quick:
        yield _rows_once(home)


def _item_files(home: Home) -> Check:
    items = rows(home.state_db, "SELECT id, file, size FROM items")
    missing = [str(row["id"]) for row in items if not _has(home, row["file"], row["size"])]
    if missing:
        found = f"missing or changed: items {listed(missing)}"
        return Check("item files", False, found, "bring the files back from a backup")
    return Check("item files", True, f"{len(items)} items")


def _has(home: Home, file: str, length: int) -> bool:
    try:
        return (home.items / file).stat().st_size == length
    except OSError:
        return False


def head_row(home: Home) -> sqlite3.Row | None:
    """The checkpoint that training stands on, None where there is none."""
    sql = "SELECT c.* FROM head JOIN checkpoints c ON c.id = head.checkpoint"
    found = rows(home.state_db, sql)
    return found[0] if found else None


def _head(home: Home) -> Check:
    row = head_row(home)
    if row is None:
        return Check("head", True, "none yet: training starts at the base model")
    name = str(row["name"])
    if row["kind"] == "base":
        return Check("head", True, f"{name} (the base model)")
    wrong = _problems(home.checkpoints / name, row["manifest_digest"])
    if row["deleted"]:
        wrong.append("it is marked as removed")
    if wrong:
        advice = "trainctl verify, then trainctl rollback to a verified version"
        return Check("head", False, f"{name}: {listed(wrong)}", advice)
    return Check("head", True, name)


def _problems(folder: Path, digest: str) -> list[str]:
    from snapshots import manifest

    try:
        return [p.text for p in manifest.check(folder, deep=False, expected=digest)]
    except OSError as error:
        return [str(error)]


def _versions(home: Home) -> Iterator[Check]:
    found = rows(home.state_db, "SELECT * FROM versions ORDER BY id")
    verified = [row for row in found if row["state"] == "verified"]
    wrong = [
        f"{row['name']}: {problems[0]}"
        for row in verified
        if (problems := _problems(home.versions / row["name"], row["manifest_digest"]))
    ]
    corrupt = [row["name"] for row in found if row["state"] == "corrupt"]
    if wrong:
        yield Check("versions", False, listed(wrong), "trainctl verify reads every byte")
    elif corrupt:
        advice = "trainctl delete, or restore it from a backup target"
        yield Check("versions", False, f"damaged: {listed(corrupt)}", advice)
    else:
        later = len(found) - len(verified)
        more = f", {later} not verified yet" if later else ""
        yield Check("versions", True, f"{len(verified)} verified{more}")


def _without_rows(home: Home, running: bool) -> Check:
    """Folders and files that no row knows, and what a process that is gone left in tmp."""
    from queue_store.intake import SIDECAR

    left = []
    for folder, sql in (
        (home.checkpoints, "SELECT name FROM checkpoints WHERE deleted IS NULL"),
        (home.versions, "SELECT name FROM versions"),
        (home.items, "SELECT file FROM items"),
    ):
        known = {row[0] for row in rows(home.state_db, sql)}
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name.removesuffix(SIDECAR) not in known:
                left.append(f"{folder.name}/{path.name}")
    if home.tmp.is_dir():
        left += [f"tmp/{path.name}" for path in sorted(home.tmp.iterdir())]
    if not left:
        return Check("leftovers", True, "nothing without a row")
    if running:
        return Check("leftovers", True, f"{len(left)} in the making: an engine runs")
    return Check("leftovers", False, listed(left), START)


def _attempts(home: Home, running: bool) -> Check:
    claimed = rows(home.state_db, "SELECT id FROM items WHERE state IN ('preparing', 'training')")
    ids = {row[0] for row in claimed}
    open_ones = rows(
        home.state_db,
        "SELECT item, COUNT(*) AS n FROM attempts WHERE ended IS NULL GROUP BY item",
    )
    odd = [str(r["item"]) for r in open_ones if r["n"] > 1 or (r["item"] not in ids)]
    if len(ids) > 1 or odd:
        what = f"{len(ids)} items are claimed" if len(ids) > 1 else f"open on items {listed(odd)}"
        return Check("attempts", False, what, START)
    if ids and not running:
        return Check("attempts", False, f"item {min(ids)} was training when it ended", START)
    return Check("attempts", True, "one item trains" if ids else "none is open")


def _journal(home: Home) -> Check:
    sql = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    missing = TRIGGERS - {row[0] for row in rows(home.state_db, sql)}
    count = rows(home.state_db, "SELECT COUNT(*) FROM events")[0][0]
    if missing:
        return Check("journal", False, "its events could be altered", "trainctl rebuild")
    return Check("journal", True, f"{count} events, append-only")


def _trash(home: Home) -> Check:
    try:
        places = [row["place"] for row in rows(home.state_db, "SELECT place FROM trash")]
    except sqlite3.Error:
        places = []  # a database of before; it is migrated when the engine starts
    gone = [place for place in places if not (home.trash / Path(place).name).exists()]
    quarantined = sorted(home.quarantine.iterdir()) if home.quarantine.is_dir() else []
    if gone:
        return Check("trash", False, f"rows without files: {listed(gone)}", "trainctl trash empty")
    found = f"{len(places)} in the trash"
    if quarantined:
        found += f", {len(quarantined)} set apart in {home.quarantine}"
    return Check("trash", True, found)


def _rows_once(home: Home) -> Check:
    """The steps on the head's line: every row of an item once, in order, up to its cursor."""
    from queue_store import records
    from queue_store.database import read_only

    name = "rows trained once"
    try:
        steps = (
            rows(
                home.metrics_db,
                "SELECT run, step, item, cursor_from, cursor_to FROM steps ORDER BY step, id",
            )
            if home.metrics_db.exists()
            else []
        )
        with read_only(home) as state:
            line = dict(records.line(state, live=False))
    except sqlite3.Error as error:
        return Check(name, True, f"not compared: {error}")
    reached: dict[int, int] = {}
    for row in steps:
        last = line.get(row["run"], -1)
        if last is not None and row["step"] > last:
            continue
        at = reached.get(row["item"], 0)
        if row["cursor_from"] != at:
            found = f"item {row['item']}: row {at}, then row {row['cursor_from']}"
            return Check(name, False, found, "trainctl history --item shows its steps")
        reached[row["item"]] = row["cursor_to"]
    return Check(name, True, f"{len(reached)} items on the head's line")
