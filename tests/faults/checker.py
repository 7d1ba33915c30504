"""Invariants 1 to 10 of a home, looked at from outside, after any kill, cut or full disk.

    python -m tests.faults.checker HOME [LEDGER]

The ledger is JSON lines: what was acknowledged to somebody outside, in the order in which it was
(see `acknowledged`). Must never import the code that it checks, or write into the home.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.faults import outside
from tests.faults.acks import ACKS
from tests.faults.looked import Ack, Looked, Violation

CLAIMED = ("preparing", "training")
MAX_ATTEMPTS = 3
TRANSIENT = ("out of memory", "CUDA error", "I/O error", "killed")
SIDECAR = ".meta.json"


def check(
    root: Path,
    acknowledged: Iterable[Ack] = (),
    *,
    recovered: bool = True,
    damaged: Iterable[str] = (),
) -> list[Violation]:
    """What does not hold in a home that no engine has open; [] where everything does.

    `recovered`: recovery ran to its end, so that nothing may be left for it. `damaged`: names
    of checkpoints and versions whose files a test broke; they may be set apart, not trusted.
    """
    store = root / "store"
    with outside.database(store / "state.db") as db:
        if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            return [Violation(1, "state.db is damaged")]
        if not (store / "metrics.db").exists():
            return _all(Looked(store, recovered, frozenset(damaged), db, None), acknowledged)
        with outside.database(store / "metrics.db") as metrics:
            looked = Looked(store, recovered, frozenset(damaged), db, metrics)
            return _all(looked, acknowledged)


def _all(looked: Looked, acknowledged: Iterable[Ack]) -> list[Violation]:
    folders = _folders(looked)
    _acknowledged(looked, acknowledged, folders)
    _files(looked)
    _head(looked, folders)
    _verified(looked, folders)
    if looked.recovered:
        _orphans(looked)
    _attempts(looked)
    _deletions(looked)
    _line(looked)
    return looked.found


def _folders(looked: Looked) -> dict[str, list[str]]:
    """What is wrong with each folder that a row speaks of, by "c NAME" and "v NAME"."""
    told = {}
    for row in looked.checkpoints.values():
        if row["kind"] != "base" and row["deleted"] is None:
            told[f"c {row['name']}"] = outside.folder_problems(
                looked.store / "checkpoints" / row["name"],
                row["manifest_digest"],
                row["weights_digest"],
            )
    for row in looked.versions.values():
        if row["state"] == "deleting" and not looked.recovered:
            continue  # on its way: recovery brings it there, or back
        told[f"v {row['name']}"] = outside.folder_problems(
            looked.store / "versions" / row["name"], row["manifest_digest"], row["weights_digest"]
        )
    return told


def _acknowledged(
    looked: Looked, acknowledged: Iterable[Ack], folders: dict[str, list[str]]
) -> None:
    """1: what was acknowledged exists, with the right digest."""
    for number, row in looked.items.items():
        path = looked.store / "items" / row["file"]
        if row["digest"] and path.is_file() and outside.digest(path) != row["digest"]:
            looked.wrong(1, f"item {number} has other bytes than it had")
    for name, problems in folders.items():
        if name[2:] not in looked.damaged and (name[0] == "c" or not _corrupt(looked, name[2:])):
            for problem in problems:
                looked.wrong(1, f"{name}: {problem}")
    for ack in acknowledged:
        problem = ACKS[ack["kind"]](looked, ack)
        if problem:
            looked.wrong(1, f"acknowledged {json.dumps(ack)}: {problem}")


def _corrupt(looked: Looked, version: str) -> bool:
    return version in looked.damaged or looked.versions[version]["state"] == "corrupt"


def _files(looked: Looked) -> None:
    """2: every item row has its file, and no file has two."""
    for number, row in looked.items.items():
        path = looked.store / "items" / row["file"]
        # A removal that was cut off: recovery brings the file back from the trash.
        on_its_way = not looked.recovered and (looked.store / "trash" / row["file"]).is_file()
        if (not path.is_file() and not on_its_way) or path.is_symlink():
            looked.wrong(2, f"item {number} has no file")
    counted = Counter(row["file"] for row in looked.items.values())
    for name, count in counted.items():
        if count > 1:
            looked.wrong(2, f"{count} items of {name}")


def _head(looked: Looked, folders: dict[str, list[str]]) -> None:
    """3: the head names a complete checkpoint."""
    if looked.head is None:
        if looked.checkpoints:
            looked.wrong(3, "there are checkpoints and no head")
        return
    row = looked.checkpoints.get(looked.head["checkpoint"])
    if row is None:
        looked.wrong(3, "the head names no checkpoint")
    elif row["kind"] != "base":
        if row["name"] in looked.damaged and not looked.recovered:
            pass  # recovery moves off it
        elif row["deleted"] is not None:
            looked.wrong(3, f"the head {row['name']} is deleted")
        else:
            for problem in folders[f"c {row['name']}"]:
                looked.wrong(3, f"the head {row['name']}: {problem}")
    branch = looked.head["branch"]
    if not looked.db.execute("SELECT 1 FROM branches WHERE id = ?", (branch,)).fetchone():
        looked.wrong(3, f"the head is on branch {branch}, which is not there")


def _verified(looked: Looked, folders: dict[str, list[str]]) -> None:
    """4: no verified version fails verification. 5: two stay once there were two."""
    good = []
    for name, row in looked.versions.items():
        if row["state"] == "verified":
            good.append(name)
            if name not in looked.damaged:
                for problem in folders[f"v {name}"]:
                    looked.wrong(4, f"{name} is verified: {problem}")
            if row["verified_at"] is None:
                looked.wrong(4, f"{name} is verified and does not say when")
    ever = {
        json.loads(e["data"]).get("version")
        for e in looked.events
        if e["kind"] == "version.verified"
    }
    if len(ever - looked.damaged) >= 2 and len(good) < 2:
        looked.wrong(5, f"{len(ever)} versions were verified, now {good}")


def _orphans(looked: Looked) -> None:
    """6: after recovery nothing outside tmp, trash and quarantine lacks a row."""
    store = looked.store
    kept = {r["name"] for r in looked.checkpoints.values() if r["deleted"] is None}
    expected = {
        "items": {r["file"] for r in looked.items.values()},
        "checkpoints": kept,
        "versions": set(looked.versions),
    }
    for folder, names in expected.items():
        there = {p.name.removesuffix(SIDECAR) for p in (store / folder).iterdir()}
        for name in sorted(there - names):
            looked.wrong(6, f"store/{folder}/{name} has no row")
    for path in [*(store / "tmp").iterdir(), *store.glob(".*.tmp")]:
        looked.wrong(6, f"left over: {path.relative_to(store)}")
    for number, row in looked.items.items():
        if row["state"] in (*CLAIMED, "trained"):
            looked.wrong(6, f"item {number} is {row['state']} and no engine runs")


def _attempts(looked: Looked) -> None:
    """7: at most 3 attempts, and claimed by at most one."""
    claimed = [i for i, r in looked.items.items() if r["state"] in CLAIMED]
    if len(claimed) > 1:
        looked.wrong(7, f"more than one item is claimed: {claimed}")
    failures: Counter[int] = Counter()
    for row in looked.db.execute("SELECT * FROM attempts"):
        failures[row["item"]] += row["cause"] in TRANSIENT
        if row["ended"] is None and row["item"] not in claimed:
            looked.wrong(7, f"an attempt of item {row['item']} did not end")
    running = looked.db.execute(
        "SELECT item, COUNT(*) FROM attempts WHERE ended IS NULL GROUP BY item HAVING COUNT(*) > 1"
    )
    for item, count in running:
        looked.wrong(7, f"item {item} has {count} attempts at once")
    for item, count in failures.items():
        if count > MAX_ATTEMPTS:
            looked.wrong(7, f"item {item} was tried {count} times")


def _deletions(looked: Looked) -> None:
    """9: a deletion was an event first."""
    for row in looked.checkpoints.values():
        if row["deleted"] is not None and not looked.gone(row["name"]):
            looked.wrong(9, f"checkpoint {row['name']} is deleted without an event")
    made = {e["item"] for e in looked.events if e["kind"] in ("item.queued", "item.rejected")}
    for item in sorted(made - looked.items.keys()):
        if not looked.event("item.removed", item=item):
            looked.wrong(9, f"item {item} is gone without an event")
    for row in looked.db.execute("SELECT * FROM trash"):
        there = (looked.store / "trash" / row["place"]).exists()
        if looked.recovered and row["expires"] > 0 and not there:
            looked.wrong(9, f"{row['name']} is said to be in the trash and is not")
    for name, row in looked.versions.items():
        if looked.recovered and row["state"] == "deleting":
            looked.wrong(9, f"{name} is still on its way out")
    for event in looked.events:
        name = json.loads(event["data"]).get("version") if event["kind"] == "version" else None
        if name and name not in looked.versions and not looked.gone(name):
            looked.wrong(9, f"version {name} is gone without an event")


def _line(looked: Looked) -> None:
    """10: every row of every finished item trained exactly once an epoch, on the head's line."""
    if looked.head is None or looked.head["checkpoint"] not in looked.checkpoints:
        return
    head = looked.checkpoints[looked.head["checkpoint"]]
    progress = json.loads(head["progress"])
    finished = outside.parse_ranges(progress["finished"])
    done = {i for i, r in looked.items.items() if r["state"] == "done"}
    if done != finished:
        looked.wrong(10, f"done are {sorted(done)}, the head has {sorted(finished)}")
    steps = _steps(looked)
    if [s["step"] for s in steps] != list(range(1, head["step"] + 1)):
        looked.wrong(10, f"the steps of the line are not 1 to {head['step']}")
    for number, row in looked.items.items():
        at = int(progress["cursors"].get(str(number), (0, 0))[0])
        if number not in finished and row["cursor"] != at:
            looked.wrong(10, f"item {number} stands at row {row['cursor']}, the head at {at}")
        expected = (row["rows"] or 0) * (row["epochs"] or 1) if number in finished else at
        reached = 0
        for step in (s for s in steps if s["item"] == number):
            if step["cursor_from"] != reached:
                looked.wrong(10, f"item {number}: row {reached}, then {step['cursor_from']}")
            reached = step["cursor_to"]
        if reached != expected:
            looked.wrong(10, f"item {number} trained to row {reached}, not {expected}")


def _steps(looked: Looked) -> list[sqlite3.Row]:
    """The steps that make up the head's model, in order: back from run to run."""
    if looked.metrics is None:
        return []
    last: dict[int, int] = {}
    at = looked.checkpoints[looked.head["checkpoint"]]
    while at is not None:
        if at["run"] is not None:
            last.setdefault(at["run"], at["step"])
            at = looked.checkpoints.get(looked.runs[at["run"]]["checkpoint"])
        else:
            at = looked.checkpoints.get(at["parent"])
    rows = looked.metrics.execute("SELECT * FROM steps ORDER BY step, id")
    return [r for r in rows if r["step"] <= last.get(r["run"], -1)]


def read_ledger(path: Path) -> list[Ack]:
    """What a ledger's file says, line by line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> int:
    acknowledged = read_ledger(Path(sys.argv[2])) if len(sys.argv) > 2 else []
    found = check(Path(sys.argv[1]), acknowledged)
    for violation in found:
        print(violation)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
