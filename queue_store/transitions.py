"""Every move of an item's state, each in one transaction with its event.

`move_state` is the one place that changes a state; the functions below it are the moves that
the rest of the program speaks of (claim, trained, fail, skip, retry, …).
"""

from __future__ import annotations

from typing import Any

import orjson

from queue_store import journal, queue
from queue_store.database import State, now
from queue_store.errors import Refused
from queue_store.failures import TRANSIENT
from queue_store.items import ALLOWED, Item, ItemState

S = ItemState
MAX_CRASHES = 3
"""Crashes without a step beyond the item's highest ever, after which the item fails."""

LINES_TOLD = 10
"""Dropped lines that an event's text names; its data have more."""


def backoff(failures: int) -> float:
    """Seconds before the next try after so many transient failures: 2, 4, 8 … at most 60."""
    return float(min(60, 2**failures))


def move_state(
    state: State,
    item_id: int,
    to: ItemState,
    text: str,
    *,
    kind: str | None = None,
    data: dict[str, Any] | None = None,
    **columns: Any,
) -> Item:
    """Move an item to another state, set `columns`, and journal it as `kind` (`item.<state>`).

    Raises Refused for a move that the table of items.ALLOWED does not have.
    """
    with state.transaction() as db:
        item = queue.get(state, item_id)
        if to != item.state and to not in ALLOWED[item.state]:
            raise Refused(f"item {item.id} ({item.name}) is {item.state} and cannot become {to}")
        values = {"state": to.value, "updated": now(), **columns}
        sets = ", ".join(f"{name} = ?" for name in values)
        db.execute(f"UPDATE items SET {sets} WHERE id = ?", (*values.values(), item.id))
        journal.record(state, kind or f"item.{to.value}", text, item=item.id, data=data)
        return queue.get(state, item_id)


def claim(state: State) -> Item | None:
    """Take the next runnable item for training: it becomes `preparing` and an attempt begins."""
    with state.transaction() as db:
        item = queue.next_runnable(state)
        if item is None:
            return None
        n = db.execute("SELECT COUNT(*) FROM attempts WHERE item = ?", (item.id,)).fetchone()[0] + 1
        db.execute("INSERT INTO attempts(item, n, started) VALUES(?,?,?)", (item.id, n, now()))
        verb = "goes on" if item.cursor else "begins"
        return move_state(
            state, item.id, S.PREPARING, f"{item.name} {verb}", data={"attempt": n}, reason=""
        )


def end_attempt(state: State, item_id: int, cause: str, error: str = "") -> None:
    """Close the item's running attempt, if there is one."""
    state.db.execute(
        "UPDATE attempts SET ended = ?, cause = ?, error = ? WHERE item = ? AND ended IS NULL",
        (now(), cause, error, item_id),
    )


def prepared(
    state: State,
    item_id: int,
    *,
    key: str,
    settings: dict[str, Any],
    rows: int,
    epochs: int,
    steps: int,
    held_out: int,
    report: dict[str, Any],
    ahead: bool = False,
) -> Item:
    """Freeze what an item trains on: from now on edits of config.toml do not reach it. `ahead`:
    it is queued still, and will be prepared anew if they change before its turn."""
    with state.transaction() as db:
        db.execute(
            "UPDATE items SET prepared=?, settings=?, rows=?, epochs=?, steps=?, held_out=?,"
            " report=?, updated=? WHERE id=?",
            (
                key,
                orjson.dumps(settings).decode(),
                rows,
                epochs,
                steps,
                held_out,
                orjson.dumps(report).decode(),
                now(),
                item_id,
            ),
        )
        item = queue.get(state, item_id)
        dropped = report.get("rejected") or []
        text = f"{item.name} prepared{' ahead' * ahead}: {_counted(rows, 'row')},"
        text += f" {_counted(steps, 'step')}"
        text += _left_out(held_out, report)
        data = {"key": key, "held_out": held_out, "dropped": dropped}
        journal.record(state, "item.prepared", text, item=item_id, data=data)
        return item


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def halved(
    state: State, item_id: int, settings: dict[str, Any], text: str, *, branch: int, step: int
) -> None:
    """A step of the item did not fit the card: from it on fewer packs are computed at once, as its
    frozen `settings` now say."""
    with state.transaction() as db:
        text_of = orjson.dumps(settings).decode()
        db.execute("UPDATE items SET settings=?, updated=? WHERE id=?", (text_of, now(), item_id))
        journal.record(state, "item.halved", text, item=item_id, branch=branch, step=step)


def _left_out(held_out: int, report: dict[str, Any]) -> str:
    """What of a file does not train, and what its checks warn of, for the journal."""
    told = []
    if count := report.get("rejected_count"):
        lines = [str(bad["line"]) for bad in report["rejected"][:LINES_TOLD]]
        more = ", …" if count > len(lines) else ""
        plural = "" if count == 1 else "s"
        told.append(f"{count} bad row{plural} dropped (line{plural} {', '.join(lines)}{more})")
    if held_out:
        told.append(f"{held_out} ({report.get('held_out_share', 0):.1%}) in evaluation sets")
    for name, count in report.get("checks", {}).get("counts", {}).items():
        if count:
            told.append(f"{name} {count}")
    return "".join(f"; {one}" for one in told)


def training(state: State, item_id: int, text: str) -> Item:
    """The item's first step is about to run."""
    return move_state(state, item_id, S.TRAINING, text)


def trained(state: State, item_id: int, step: int) -> Item:
    """All rows have trained; the next checkpoint makes it done."""
    with state.transaction() as db:
        order = db.execute("SELECT COALESCE(MAX(trained_order), 0) + 1 FROM items").fetchone()[0]
        item = queue.get(state, item_id)
        end_attempt(state, item_id, "trained")
        text = f"{item.name} trained, every row, at step {step}"
        return move_state(state, item_id, S.TRAINED, text, trained_order=order, crashes=0)


def suspend(state: State, item_id: int, cause: str, text: str) -> Item:
    """Unfinished and not stepping: stopped, pre-empted, recovered."""
    with state.transaction():
        end_attempt(state, item_id, cause)
        return move_state(state, item_id, S.PAUSED, text, reason=cause)


def fail(state: State, item_id: int, cause: str, error: str, max_attempts: int) -> Item:
    """The item's try failed. A transient cause queues it again, after a pause, until
    `max_attempts` such failures; any other fails it at once."""
    with state.transaction():
        end_attempt(state, item_id, cause, error)
        item = queue.get(state, item_id)
        failures = sum(a.cause in TRANSIENT for a in queue.attempts(state, item_id))
        if cause in TRANSIENT and failures < max_attempts:
            wait = backoff(failures)
            text = f"{item.name}: {cause}, try {failures} of {max_attempts}, again in {wait:.0f} s"
            text = f"{text}: {error}"
            return move_state(
                state,
                item_id,
                S.PAUSED,
                text,
                kind="item.retry",
                data={"cause": cause, "error": error},
                reason=f"{cause}, waits {wait:.0f} s",
                error=error,
                not_before=now() + wait,
            )
        return move_state(
            state,
            item_id,
            S.FAILED,
            f"{item.name} failed: {cause}: {error}",
            data={"cause": cause, "error": error},
            reason=cause,
            error=error,
        )


def skip(state: State, item_id: int, reason: str, *, undone: bool = False) -> Item:
    """End an item early, keeping what it taught (or, undone, not)."""
    with state.transaction():
        item = queue.get(state, item_id)
        if item.state not in (S.QUEUED, S.PAUSED, S.PREPARING, S.TRAINING):
            raise Refused(f"item {item.id} ({item.name}) is {item.state}: nothing to skip")
        end_attempt(state, item_id, "skipped", reason)
        how = "undone" if undone else "what it taught is kept"
        text = f"{item.name} skipped ({how})" + (f": {reason}" if reason else "")
        return move_state(state, item_id, S.SKIPPED, text, reason=reason or "skipped by hand")


def retry(state: State, item_id: int) -> Item:
    """Queue a failed or skipped item again, where its cursor stands, with fresh attempts."""
    with state.transaction() as db:
        item = queue.get(state, item_id)
        if item.state not in (S.FAILED, S.SKIPPED):
            raise Refused(
                f"item {item.id} ({item.name}) is {item.state}",
                mend="retry takes failed and skipped items",
            )
        # The tries so far stay on record; they no longer count against the new ones.
        db.execute(
            "UPDATE attempts SET cause = cause || ', retried' WHERE item = ? AND cause <> ''",
            (item_id,),
        )
        to = S.PAUSED if item.cursor else S.QUEUED
        return move_state(
            state,
            item_id,
            to,
            f"{item.name} queued again",
            kind="item.retried",
            reason="",
            error="",
            crashes=0,
            crashed_at=-1,
            not_before=0,
            position=queue.last_position(state, item.priority) + 1,
        )


def crashed(
    state: State, item_id: int, highest: int, cause: str = "restart", error: str = ""
) -> Item:
    """The process died while it had the item (`highest`: the highest cursor it ever reached);
    `cause` and `error` are what its supervisor found out.

    Burns no attempt; three crashes without a row beyond that cursor fail it.
    """
    with state.transaction():
        item = queue.get(state, item_id)
        crashes = item.crashes + 1 if highest <= item.crashed_at else 1
        end_attempt(state, item_id, cause, error)
        if crashes >= MAX_CRASHES:
            last = f"; the last one: {cause}" if cause != "restart" else ""
            error = f"{crashes} crashes without a step beyond row {highest}{last}"
            return move_state(
                state,
                item_id,
                S.FAILED,
                f"{item.name} failed: {error}",
                reason="crashes",
                error=error,
                crashes=crashes,
                crashed_at=highest,
            )
        text = f"{item.name} recovered after the engine died ({cause})"
        return move_state(
            state,
            item_id,
            S.PAUSED,
            text,
            kind="item.recovered",
            reason="recovered",
            crashes=crashes,
            crashed_at=highest,
        )
