"""Rows of a database made anew, of what lies in the store: ledgers, version.json, item files,
and the steps of metrics.db.

Fills in only what is not there: over a copy of the database it adds what is newer, into an empty
one everything. What no file tells (priorities changed, items skipped or failed, tags, pins and
descriptions given later) stays unknown. Must never change or remove a checkpoint or version.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from queue_store import dbbackup, intake, journal, queue, records
from queue_store.database import State, now
from queue_store.errors import VerificationFailed
from queue_store.head import move_head
from queue_store.items import ItemState
from queue_store.records import Progress
from queue_store.transitions import end_attempt, move_state
from snapshots import ledger_line, refill_items
from snapshots.checkpoints import Ledger
from snapshots.found import Found


class Refill:
    """Fills one database. Everything in one transaction of the caller's."""

    def __init__(self, state: State, found: Found) -> None:
        self.state = state
        self.db = state.db
        self.home = state.home
        self.found = found
        self.unknown: list[str] = []
        self.before = {row[0] for row in self.db.execute("SELECT id FROM checkpoints")}
        self.lines = {n: self._line_of(led) for n, (led, _) in sorted(found.points.items())}

    def fill(self) -> None:
        """All of it, in the order in which rows refer to each other."""
        self._gone()
        if self.found.points or self.found.infos or self.found.runs:
            self._branches_and_checkpoints()
            self._runs()
        refill_items.fill(self.state, [led for led, _ in self.found.points.values()], self.unknown)
        self._sequences()
        self._head()

    # -- the line of steps ----------------------------------------------------------------------

    def _line_of(self, ledger: Ledger) -> list[list[int]]:
        """[run, branch, checkpoint, step] of the runs that led to it; of a ledger that does not
        say, as far as the others tell."""
        line: list[list[int]] = [list(entry) for entry in ledger.line]
        at: Ledger | None = None if line else ledger
        while at is not None:
            if at.run is None:
                at = self._ledger(at.parent)
                continue
            first = min(
                (led for led, _ in self.found.points.values() if led.run == at.run),
                key=lambda led: led.id,
            )
            start = self._ledger(first.parent)
            run = self.found.runs.get(at.run)
            step = start.step if start else run["first"] - 1 if run else 0
            line.insert(0, [at.run, first.branch, first.parent or 0, step])
            at = start
        return line

    def _ledger(self, number: int | None) -> Ledger | None:
        point = self.found.points.get(number) if number is not None else None
        return point[0] if point else None

    def _branches_and_checkpoints(self) -> None:
        forks: dict[int, tuple[int | None, int | None, int]] = {}
        starts: dict[int, tuple[int, int, int | None]] = {}
        for line in self.lines.values():
            before: list[int] | None = None
            for run, branch, point, step in line:
                if before is None or before[1] != branch:
                    forks.setdefault(branch, (before[1] if before else None, point, step))
                starts[point] = (
                    before[1] if before else branch,
                    step,
                    before[0] if before else None,
                )
                before = [run, branch]
        named: set[int] = {led.branch for led, _ in self.found.points.values()}
        named |= {run["branch"] for run in self.found.runs.values()}
        named |= {int(info["branch"]) for info in self.found.infos}
        for number in sorted({1, *named, *forks}):
            fork = forks.get(number, (None, None, 0))
            self.db.execute(
                "INSERT OR IGNORE INTO branches(id, parent, checkpoint, step, why, created)"
                " VALUES(?,?,?,?,'rebuilt',?)",
                (number, *fork, now()),
            )
        self._base()
        known = {row[0] for row in self.db.execute("SELECT id FROM checkpoints")}
        wanted: dict[int, Any] = dict(starts)
        for info in self.found.infos:
            wanted.setdefault(int(info["checkpoint"]), info)
        for led, _ in self.found.points.values():
            if led.kind == "restored" and led.parent is not None:
                ran = self.lines[led.id]
                last = ran[-1][0] if ran else None
                wanted.setdefault(led.parent, (led.branch, led.step, last))
        for number in sorted({*wanted, *self.found.points} - known):
            if number in self.found.points:
                self._checkpoint(number)
            else:
                self._placeholder(number, wanted[number])

    def _base(self) -> None:
        digest = next((i["weights_digest"] for i in self.found.infos if i["scope"] == "base"), "")
        self.db.execute(
            "INSERT OR IGNORE INTO checkpoints(id, name, kind, branch, step, progress, created,"
            " size_bytes, manifest_digest, weights_digest) VALUES(0, 'base', 'base', 1, 0, ?, ?,"
            " 0, '', ?)",
            (Progress({}, frozenset()).dumps(), now(), digest),
        )

    def _checkpoint(self, number: int) -> None:
        ledger, sealed = self.found.points[number]
        row = records.insert_checkpoint(
            self.state,
            id=number,
            name=self._free_name(ledger.canonical_name, number),
            kind=ledger.kind,
            branch=self._branch_of(ledger),
            step=ledger.step,
            run=ledger.run,
            parent=self._parent(ledger),
            item=ledger.item,
            cursor=ledger.item_cursor,
            progress=self._progress(ledger),
            size_bytes=sealed.size_bytes if sealed else ledger.size_bytes,
            loss=ledger.train_loss,
            val_loss=ledger.val_loss,
            learning_rate=ledger.learning_rate,
            manifest_digest=sealed.digest if sealed else "",
            weights_digest=ledger.weights_digest,
            deleted=None if sealed else now(),
        )
        if sealed:
            text = f"checkpoint {ledger.canonical_name} is in the list again"
            journal.record(
                self.state, "recovered", text, step=ledger.step, data={"checkpoint": row}
            )
        else:
            self._was_removed(row)

    def _branch_of(self, ledger: Ledger) -> int:
        """A restored one's ledger is of before its branch: what trained on from it names it."""
        if ledger.kind != "restored":
            return ledger.branch
        for line in self.lines.values():
            for _, branch, point, _ in line:
                if point == ledger.id:
                    return branch
        return records.new_branch(
            self.state, ledger.branch, ledger.parent, ledger.step, "rolled back, rebuilt"
        )

    def _parent(self, ledger: Ledger) -> int:
        """Its parent, or where the row of that is lost, the nearest known one before it."""
        known = {row[0] for row in self.db.execute("SELECT id FROM checkpoints")}
        if ledger.parent in known:
            return int(ledger.parent or 0)
        mates = [n for n, (led, _) in self.found.points.items() if led.run == ledger.run]
        mates = [n for n in mates if n < ledger.id and n in known and ledger.run is not None]
        if mates:
            return max(mates)
        line = self.lines[ledger.id]
        return line[-1][2] if line and line[-1][2] in known else 0

    def _progress(self, ledger: Ledger) -> Progress:
        finished = set(records.parse_ranges(ledger.finished))
        if ledger.ledger_version < 3:
            # Whoever stepped on this line and has no cursor has come to its end.
            last = ledger_line.ends(self.lines[ledger.id], ledger.step)
            finished |= {
                item
                for run, item, first, _ in self.found.spans
                if run in last and first <= last[run] and item not in ledger.cursors
            }
            self.unknown.append(
                f"{ledger.canonical_name} is of an older trainctl: its finished"
                " items are those that stepped and have no cursor"
            )
        cursors = {k: v for k, v in ledger.cursors.items() if k not in finished and v[0]}
        return Progress(cursors, frozenset(finished), ledger.rendering)

    def _placeholder(self, number: int, told: Any) -> None:
        """A row of a checkpoint that is gone, for others refer to it."""
        name, digest = f"rebuilt-{number}", ""
        run: int | None = None
        rendering: dict[str, str] = {}
        if isinstance(told, dict):
            rendering = told.get("rendering", {})
            name, digest = str(told["checkpoint_name"]), str(told["weights_digest"])
            branch, step = int(told["branch"]), int(told["step"])
        else:
            branch, step, run = told
        known = [
            row[0]
            for row in self.db.execute(
                "SELECT id FROM checkpoints WHERE step <= ? AND branch <= ? AND id < ?",
                (step, branch, number),
            )
        ]
        row = records.insert_checkpoint(
            self.state,
            id=number,
            name=self._free_name(name, number),
            kind="saved",
            branch=branch,
            step=step,
            run=run,
            parent=max(known, default=0),
            progress=Progress({}, frozenset(), rendering),
            weights_digest=digest,
            deleted=now(),
        )
        self._was_removed(row)

    def _was_removed(self, number: int) -> None:
        """The event of a removal whose own event was lost with the database."""
        point = records.checkpoint(self.state, number)
        text = f"checkpoint {point.name} had been removed before the database was made anew"
        journal.record(self.state, "checkpoint.removed", text, branch=point.branch, step=point.step)

    def _free_name(self, name: str, number: int) -> str:
        taken = self.db.execute("SELECT 1 FROM checkpoints WHERE name = ?", (name,)).fetchone()
        return f"{name}-{number}" if taken else name

    def _runs(self) -> None:
        sql = "INSERT OR IGNORE INTO runs(id, branch, checkpoint, step, started) VALUES(?,?,?,?,?)"
        for line in self.lines.values():
            for run, branch, point, step in line:
                started = self.found.runs.get(run, {}).get("time", now())
                self.db.execute(sql, (run, branch, point, step, started))
        for number, seen in sorted(self.found.runs.items()):
            self.db.execute(sql, (number, seen["branch"], 0, seen["first"] - 1, seen["time"]))

    # -- the head -------------------------------------------------------------------------------

    def _gone(self) -> None:
        """Rows of the copy whose folders were removed since."""
        for point in records.checkpoints(self.state):
            if point.kind != "base" and not (self.home.checkpoints / point.name).is_dir():
                records.mark_deleted(self.state, point.id, "its folder is gone")
        for number, name in self.db.execute("SELECT id, name FROM versions").fetchall():
            if not (self.home.versions / name).is_dir():
                text = f"{name} has no folder any more: deleted since the copy was made"
                journal.record(self.state, "version.deleted", text, data={"version": name})
                self.db.execute("DELETE FROM versions WHERE id = ?", (number,))

    def _head(self) -> None:
        """Stand on the newest complete checkpoint, and make the items agree with it."""
        stands = records.head(self.state)
        newer = [led.id for led in self.found.present if led.id not in self.before]
        if newer:
            number = max(newer)
        elif stands is not None and stands.checkpoint.deleted is None:
            number = stands.checkpoint.id
        else:
            kept = records.checkpoints(self.state)
            if not kept:
                return
            number = max(point.id for point in kept)
        point = records.checkpoint(self.state, number)
        branch = stands.branch if stands and not newer else point.branch
        ledger = self._ledger(number)
        self._freeze(point, ledger.frozen if ledger else {})
        move_head(self.state, point, why=f"rebuilt at step {point.step}", branch=branch, new=False)

    def _freeze(self, point: records.Checkpoint, frozen: dict[str, dict[str, Any]]) -> None:
        progress = point.progress
        have = {row[0] for row in self.db.execute("SELECT id FROM items")}
        for number in sorted({*progress.cursors, *progress.finished} - have):
            self.unknown.append(f"item {number} trained and its file is gone")
        for number in sorted(progress.cursors.keys() & have):
            values = frozen.get(str(number), {})
            if values:
                values = {**values, "settings": orjson.dumps(values["settings"]).decode()}
                sets = ", ".join(f"{key} = ?" for key in ledger_line.FROZEN)
                given = [values[key] for key in ledger_line.FROZEN]
                self.db.execute(f"UPDATE items SET {sets} WHERE id = ?", (*given, number))
            item = queue.get(self.state, number)
            if item.state in (ItemState.QUEUED, ItemState.SKIPPED, ItemState.FAILED):
                text = f"{item.name} goes on"
                move_state(self.state, number, ItemState.PAUSED, text, reason="recovered")
        last = ledger_line.ends(self.lines.get(point.id, []), point.step)
        if not last:
            at = records.line(self.state, live=False)
            last = {run: step if step is not None else 1 << 62 for run, step in at}
        for number in sorted(progress.finished & have):
            if queue.get(self.state, number).rows is None:
                ledger_line.count_rows(self.state, number, last)
        for item in queue.running(self.state):
            end_attempt(self.state, item.id, "restart")

    def _sequences(self) -> None:
        """Numbers go on after every one that was ever given, as far as anything tells."""
        copies = [copy.number for copy in dbbackup.listing(self.home)]
        names = [p.name for f in (self.home.trash, self.home.quarantine) for p in f.iterdir()]
        seen = {
            "items": {i for _, i, _, _ in self.found.spans}
            | {n for led, _ in self.found.points.values() for n in led.cursors}
            | {
                n
                for led, _ in self.found.points.values()
                for n in records.parse_ranges(led.finished)
            }
            | {intake.read_name(name).id or 0 for name in names},
            "runs": set(self.found.runs),
            "events": {copies[-1] + 1_000_000} if copies else set(),
            "checkpoints": {
                _number_of(f / n)
                for f in (self.home.trash, self.home.quarantine)
                for n in (p.name for p in f.iterdir())
            },
        }
        for table, numbers in seen.items():
            highest = max(numbers, default=0)
            row = self.db.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)
            ).fetchone()
            if row is None:
                self.db.execute("INSERT INTO sqlite_sequence VALUES(?, ?)", (table, highest))
            elif row[0] < highest:
                self.db.execute(
                    "UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (highest, table)
                )
        given = [int(name[1:]) for name in names if name[:1] == "v" and name[1:].isdecimal()]
        given += [int(info["id"]) for info in self.found.infos]
        given.append(int(self.state.meta_get("versions.last", 0)))
        self.state.meta_set("versions.last", max(given))


def _number_of(folder: Path) -> int:
    try:
        return Ledger.read(folder).id
    except VerificationFailed:
        return 0
