"""Rows of branches, runs, checkpoints and the head, and a checkpoint's one transaction.

A run is one unbroken stretch of steps in one process; it starts at a checkpoint. A checkpoint
was saved in a run. Together they form the line of the head: what is not on it was taken back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from queue_store import durable, journal, lock, queue
from queue_store.database import State, now
from queue_store.errors import NotFound
from queue_store.items import ItemState
from queue_store.transitions import move_state

S = ItemState
_NEWEST_RUN = "run.newest"
"""The key in meta of {run, engine: [pid, started]}: which engine makes the newest run."""


@dataclass(frozen=True)
class Progress:
    """How far each item was at a moment: `cursors` {item id: (cursor in rows, step of the item)}
    of the unfinished ones, `finished` the ids of those that trained whole. `rendering`: what made
    text of the rows that trained last (profile, template, thinking: names and digests); empty
    where none trained, or an earlier release did not record it."""

    cursors: dict[int, tuple[int, int]]
    finished: frozenset[int]
    rendering: dict[str, str] = field(default_factory=dict)

    def dumps(self) -> str:
        cursors = {str(k): list(v) for k, v in sorted(self.cursors.items())}
        told = {"rendering": self.rendering} if self.rendering else {}
        plain = {"cursors": cursors, "finished": ranges(self.finished), **told}
        return orjson.dumps(plain).decode()

    @staticmethod
    def loads(text: str) -> Progress:
        raw = orjson.loads(text)
        cursors = {int(k): (int(v[0]), int(v[1])) for k, v in raw["cursors"].items()}
        return Progress(cursors, parse_ranges(raw["finished"]), raw.get("rendering", {}))


def ranges(numbers: Iterable[int]) -> str:
    """{1, 2, 3, 7} as "1-3,7": weeks of finished items stay short."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in parts)


def parse_ranges(text: str) -> frozenset[int]:
    """The reverse of `ranges`."""
    found: set[int] = set()
    for part in text.split(",") if text else []:
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return frozenset(found)


@dataclass(frozen=True)
class Checkpoint:
    """A complete training state. `kind`: base (the model as it came), saved, restored."""

    id: int
    name: str
    kind: str
    branch: int
    step: int
    run: int | None
    parent: int | None
    item: int | None
    cursor: int
    progress: Progress
    created: float
    size_bytes: int
    loss: float | None
    val_loss: float | None
    learning_rate: float | None
    manifest_digest: str
    weights_digest: str
    deleted: float | None

    @staticmethod
    def of(row: sqlite3.Row) -> Checkpoint:
        return Checkpoint(**{**dict(row), "progress": Progress.loads(row["progress"])})


@dataclass(frozen=True)
class Head:
    """The checkpoint that training stands on, and the branch that its next step belongs to."""

    checkpoint: Checkpoint
    branch: int


@dataclass(frozen=True)
class Run:
    """An unbroken stretch of steps, from `step` of `checkpoint` on."""

    id: int
    branch: int
    checkpoint: int
    step: int
    started: float


def checkpoint(state: State, checkpoint_id: int) -> Checkpoint:
    """The checkpoint of that id. Raises NotFound."""
    row = state.db.execute("SELECT * FROM checkpoints WHERE id = ?", (checkpoint_id,)).fetchone()
    if row is None:
        raise NotFound(f"no checkpoint {checkpoint_id}", mend="trainctl checkpoints lists them")
    return Checkpoint.of(row)


def checkpoints(state: State, *, deleted: bool = False) -> list[Checkpoint]:
    """All checkpoints on disk, oldest first (with those deleted by rule, if asked)."""
    where = "" if deleted else "WHERE deleted IS NULL"
    return [
        Checkpoint.of(row)
        for row in state.db.execute(f"SELECT * FROM checkpoints {where} ORDER BY id")
    ]


def head(state: State) -> Head | None:
    """Where training stands; None in a home that has not trained yet."""
    row = state.db.execute("SELECT checkpoint, branch FROM head").fetchone()
    return None if row is None else Head(checkpoint(state, row[0]), row[1])


def version_name(state: State, checkpoint_id: int) -> str | None:
    """The name of the newest version that was made of a checkpoint; None without one."""
    row = state.db.execute(
        "SELECT name FROM versions WHERE checkpoint = ? ORDER BY id DESC LIMIT 1", (checkpoint_id,)
    ).fetchone()
    return None if row is None else str(row[0])


def next_checkpoint_id(state: State) -> int:
    """The id that the next checkpoint row will get."""
    row = state.db.execute("SELECT seq FROM sqlite_sequence WHERE name='checkpoints'").fetchone()
    return 1 if row is None else int(row[0]) + 1


def new_branch(state: State, parent: int | None, at: int | None, step: int, why: str) -> int:
    """A line of steps that forks at checkpoint `at`; returns its id."""
    cursor = state.db.execute(
        "INSERT INTO branches(parent, checkpoint, step, why, created) VALUES(?,?,?,?,?)",
        (parent, at, step, why, now()),
    )
    return int(cursor.lastrowid or 0)


def insert_checkpoint(
    state: State,
    *,
    name: str,
    kind: str,
    branch: int,
    step: int,
    progress: Progress,
    run: int | None = None,
    parent: int | None = None,
    item: int | None = None,
    cursor: int = 0,
    size_bytes: int = 0,
    loss: float | None = None,
    val_loss: float | None = None,
    learning_rate: float | None = None,
    manifest_digest: str = "",
    weights_digest: str = "",
    id: int | None = None,
    deleted: float | None = None,
) -> int:
    """A checkpoint's row; its folder is complete and synced before this is called. Only a rebuild
    gives an `id`, and rows of checkpoints that are gone (`deleted`)."""
    row = state.db.execute(
        "INSERT INTO checkpoints(id, deleted, name, kind, branch, step, run, parent, item, cursor,"
        " progress, created, size_bytes, loss, val_loss, learning_rate, manifest_digest,"
        " weights_digest) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            id,
            deleted,
            name,
            kind,
            branch,
            step,
            run,
            parent,
            item,
            cursor,
            progress.dumps(),
            now(),
            size_bytes,
            loss,
            val_loss,
            learning_rate,
            manifest_digest,
            weights_digest,
        ),
    )
    return int(row.lastrowid or 0)


def set_head(state: State, checkpoint_id: int, branch: int) -> None:
    """Part of a larger transaction: stand on this checkpoint, on this branch."""
    state.db.execute(
        "INSERT INTO head VALUES(1, ?, ?) ON CONFLICT(one) DO UPDATE"
        " SET checkpoint = excluded.checkpoint, branch = excluded.branch",
        (checkpoint_id, branch),
    )


def start(state: State, weights_digest: str, base: str) -> Head:
    """The first head: checkpoint 0 refers to the base model by digest and holds no files."""
    with state.transaction() as db:
        branch = new_branch(state, None, None, 0, "start")
        progress = Progress({}, frozenset())
        db.execute(
            "INSERT INTO checkpoints(id, name, kind, branch, step, progress, created, size_bytes,"
            " manifest_digest, weights_digest) VALUES(0, 'base', 'base', ?, 0, ?, ?, 0, '', ?)",
            (branch, progress.dumps(), now(), weights_digest),
        )
        set_head(state, 0, branch)
        text = f"starts from {base}, weights {weights_digest[:12]}"
        journal.record(state, "start", text, branch=branch, step=0, data={"base": base})
        found = head(state)
        assert found is not None
        return found


def commit_checkpoint(
    state: State,
    *,
    name: str,
    branch: int,
    step: int,
    run: int,
    item: int | None,
    cursors: dict[int, tuple[int, int]],
    size_bytes: int,
    loss: float | None,
    val_loss: float | None,
    learning_rate: float | None,
    manifest_digest: str,
    weights_digest: str,
    seconds: float = 0.0,
    stall: float | None = None,
    trained: Collection[int] | None = None,
    rendering: dict[str, str] | None = None,
) -> Checkpoint:
    """One transaction: the checkpoint's row, every item's cursor, trained -> done, head, event.

    `cursors` are those of all items with trained rows that are not finished, `trained` the items
    whose last row is in it (None: all that are trained now), both of the moment at which the
    state was captured: what trained while it was written is not in it. `rendering` as in Progress.
    `seconds` from capture to
    here, `stall` those of them in which no step was done.
    """
    with state.transaction() as db:
        before = head(state)
        whole = [i for i in queue.items(state, S.TRAINED) if trained is None or i.id in trained]
        done = {row[0] for row in db.execute("SELECT id FROM items WHERE state = 'done'")}
        finished = frozenset(done | {i.id for i in whole})
        unfinished = {k: v for k, v in cursors.items() if k not in finished and v[0]}
        progress = Progress(unfinished, finished, rendering or {})
        cursor = cursors.get(item, (0, 0))[0] if item is not None else 0
        row = insert_checkpoint(
            state,
            name=name,
            kind="saved",
            branch=branch,
            step=step,
            run=run,
            parent=before.checkpoint.id if before else None,
            item=item,
            cursor=cursor,
            progress=progress,
            size_bytes=size_bytes,
            loss=loss,
            val_loss=val_loss,
            learning_rate=learning_rate,
            manifest_digest=manifest_digest,
            weights_digest=weights_digest,
        )
        for item_id, (at, at_step) in cursors.items():
            db.execute("UPDATE items SET cursor = ?, step = ? WHERE id = ?", (at, at_step, item_id))
        for one in whole:
            move_state(
                state,
                one.id,
                S.DONE,
                f"{one.name} done: checkpoint {name} contains it",
                cursor=(one.rows or 0) * (one.epochs or 1),
                step=one.steps or 0,
            )
        set_head(state, row, branch)
        journal.record(
            state,
            "checkpoint",
            _told(name, size_bytes, seconds, stall),
            item=item,
            branch=branch,
            step=step,
            data={"checkpoint": row, "bytes": size_bytes, "seconds": seconds, "stall": stall},
        )
        durable.crash_point("checkpoint.before_commit")
    durable.crash_point("checkpoint.committed")
    return checkpoint(state, row)


def _told(name: str, size_bytes: int, seconds: float, stall: float | None) -> str:
    text = f"checkpoint {name}, {size_bytes / 1e6:.1f} MB in {seconds:.2f} s"
    return text if stall is None else f"{text}, training stood for {stall:.2f} s"


def mark_deleted(state: State, checkpoint_id: int, why: str) -> None:
    """A checkpoint's folder is about to go by rule: journaled first, its row stays for the line."""
    with state.transaction() as db:
        found = checkpoint(state, checkpoint_id)
        db.execute("UPDATE checkpoints SET deleted = ? WHERE id = ?", (now(), checkpoint_id))
        text = f"checkpoint {found.name} removed: {why}"
        journal.record(state, "checkpoint.removed", text, branch=found.branch, step=found.step)


def start_run(state: State) -> Run:
    """A new stretch of steps from the head on. Called whenever the head's state is loaded."""
    with state.transaction() as db:
        at = head(state)
        if at is None:
            raise NotFound("no head to train from")
        cursor = db.execute(
            "INSERT INTO runs(branch, checkpoint, step, started) VALUES(?,?,?,?)",
            (at.branch, at.checkpoint.id, at.checkpoint.step, now()),
        )
        row = db.execute("SELECT * FROM runs WHERE id = ?", (cursor.lastrowid,)).fetchone()
        state.meta_set(_NEWEST_RUN, {"run": row["id"], "engine": _engine(state)})
        return Run(**dict(row))


def _engine(state: State) -> list[Any]:
    """Which engine holds the home, or held it last."""
    who = lock.read_holder(state.home)
    return [who["pid"], who["started"]]


def _goes_on(state: State, run: int) -> bool:
    """Whether the newest run is that of the engine which holds the home. One that has just come
    has not recovered yet, and what a killed one trained after its last checkpoint is lost."""
    newest = state.meta_get(_NEWEST_RUN)
    return newest is None or newest["run"] != run or newest["engine"] == _engine(state)


def line(state: State, *, live: bool) -> list[tuple[int, int | None]]:
    """The runs whose steps make up the present model, newest first, each with the last step of
    it that counts (None: all of them). `live`: an engine runs, so that its run counts whole."""
    result: list[tuple[int, int | None]] = []
    at = head(state)
    found: Checkpoint | None = at.checkpoint if at else None
    if live:
        row = state.db.execute("SELECT * FROM runs ORDER BY id DESC LIMIT 1").fetchone()
        if row is not None and _goes_on(state, row["id"]):
            result.append((row["id"], None))
            found = checkpoint(state, row["checkpoint"])
    while found is not None:
        if found.run is None:
            found = checkpoint(state, found.parent) if found.parent is not None else None
            continue
        result.append((found.run, found.step))
        row = state.db.execute("SELECT checkpoint FROM runs WHERE id = ?", (found.run,)).fetchone()
        found = checkpoint(state, row[0])
    return result
