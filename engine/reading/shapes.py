"""Rows of the store in the JSON shapes that scripts rely on: pure functions, one a shape.

Fields may be added, none removed or renamed. What is not known is {"unknown": why}; a field that
does not apply to an event is left out.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from engine.messages import known, unknown
from queue_store import journal
from queue_store.items import Item, ItemState

NOT_A_NUMBER = "not a number"


def step(row: sqlite3.Row, taken_back: bool) -> dict[str, Any]:
    """A row of `history`: one optimizer step."""
    return {
        "branch": row["branch"],
        "step": row["step"],
        "item": row["item"],
        "cursor_from": row["cursor_from"],
        "cursor_to": row["cursor_to"],
        "loss": known(row["loss"], NOT_A_NUMBER),
        "learning_rate": row["learning_rate"],
        "grad_norm": known(row["grad_norm"], NOT_A_NUMBER),
        "tokens": row["tokens"],
        "seconds": row["seconds"],
        "memory": known(row["memory"], "not measured"),
        "time": row["time"],
        "run": row["run"],
        "taken_back": taken_back,
    }


def whole(state: str, epochs: Any, rows: Any, steps: Any) -> tuple[int, int] | None:
    """Step and cursor of an item whose rows are all trained; None of any other.

    The table has those that a checkpoint contains, from which the item would go on after a crash.
    """
    if state != ItemState.TRAINED or None in (epochs, rows, steps):
        return None
    return int(steps), int(rows) * int(epochs)


def further(step: int, cursor: int, unsaved: tuple[int, int]) -> tuple[int, int]:
    """Step and cursor of the table, with what trained since its checkpoint (cursor, steps)."""
    return step + unsaved[1], max(cursor, unsaved[0])


def item(
    found: Item, attempts: list[dict[str, Any]], unsaved: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    why = "not prepared yet"
    all_of_it = whole(found.state, found.epochs, found.rows, found.steps)
    step, cursor = all_of_it or further(found.step, found.cursor, unsaved)
    return {
        "id": found.id,
        "name": found.name,
        "state": found.state.value,
        "priority": found.priority.word,
        "position": found.position,
        "lines": found.lines,
        "accepted": found.accepted,
        # Preparing knows more: rows that the template or a check refused.
        "rejected": (found.report or {}).get("rejected") or found.rejected,
        "rows": known(found.rows, why),
        "held_out": known(found.held_out, why),
        "epochs": known(found.epochs, why),
        "step": step,
        "steps": known(found.steps, why),
        "cursor": cursor,
        "attempts": attempts,
        "reason": found.reason,
        "error": found.error,
        "spec": found.spec,
        "badge": found.badge,
        "size": found.size,
        "source": found.source,
        "digest": found.digest,
        "created": found.created,
        "updated": found.updated,
    }


def waiting(file: dict[str, Any]) -> dict[str, Any]:
    """A file in the inbox that is not an item yet, in an item's shape."""
    nothing = unknown("waits in the inbox")
    words = ("high", "normal", "low")
    return {
        "id": nothing,
        "name": file["name"],
        "state": ItemState.WAITING.value,
        "priority": words[file["priority"]],
        "position": nothing,
        **dict.fromkeys(("lines", "accepted", "rows", "held_out", "epochs", "steps"), nothing),
        "rejected": [],
        "step": 0,
        "cursor": 0,
        "attempts": [],
        "reason": file["reason"],
        "error": "",
        "spec": "",
        "badge": {},
        "size": nothing,
        "source": file["path"],
        "digest": nothing,
        "created": file["since"],
        "updated": file["since"],
    }


def event(happened: journal.Event) -> dict[str, Any]:
    """`item`, `branch` and `step` are there where the event is about one."""
    about = {"item": happened.item, "branch": happened.branch, "step": happened.step}
    return {
        "seq": happened.seq,
        "time": happened.time,
        "kind": happened.kind,
        "text": happened.text,
        **{key: value for key, value in about.items() if value is not None},
        "data": happened.data,
    }
