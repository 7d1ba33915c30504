"""What was acknowledged to somebody outside: each kind, and what must then hold in the home.

Each answers in words what does not hold, or "".
"""

from __future__ import annotations

import json

from tests.faults.looked import Ack, Looked


def _ack_item(looked: Looked, ack: Ack) -> str:
    row = looked.items.get(ack["id"])
    if row is None:
        return "" if looked.event("item.removed", item=ack["id"]) else "no such row"
    if (row["name"], row["digest"]) != (ack["name"], ack["digest"]):
        return f"it is {row['name']} {row['digest']}"
    return ""


def _ack_removed(looked: Looked, ack: Ack) -> str:
    back = looked.event("item.restored", item=ack["id"])
    return "its row is there" if ack["id"] in looked.items and not back else ""


def _ack_done(looked: Looked, ack: Ack) -> str:
    row = looked.items.get(ack["id"])
    if row is None:
        return "no such row"
    moves = [e["seq"] for e in looked.events if e["kind"] in ("rollback", "head")]
    at = [e["seq"] for e in looked.events if e["kind"] == "item.done" and e["item"] == ack["id"]]
    if not at:
        return "no event says so"
    # Only a move of the head that somebody asked for can take it back (or a damaged checkpoint).
    if row["state"] != "done" and not any(seq > at[-1] for seq in moves):
        return f"it is {row['state']}"
    return ""


def _ack_checkpoint(looked: Looked, ack: Ack) -> str:
    for row in looked.checkpoints.values():
        if row["name"] == ack["name"]:
            if row["weights_digest"] != ack["weights_digest"] or row["step"] != ack["step"]:
                return "the row says otherwise"
            if row["deleted"] is not None and not looked.gone(ack["name"]):
                return "removed without an event"
            return ""
    return "no such row"


def _ack_version(looked: Looked, ack: Ack) -> str:
    row = looked.versions.get(ack["name"])
    if row is None:
        return "" if looked.gone(ack["name"]) else "no such row"
    if row["weights_digest"] != ack["weights_digest"]:
        return "other weights"
    # A deletion that was cut off leaves a version to be verified anew.
    cut_off = looked.said_of(ack["name"], "version.deleting")
    excused = cut_off or ack["name"] in looked.damaged
    if ack.get("verified") and row["state"] != "verified" and not excused:
        return f"it is {row['state']}"
    return ""


def _ack_deleted(looked: Looked, ack: Ack) -> str:
    if not looked.gone(ack["name"]):
        return "no event says so"
    back = looked.said_of(ack["name"], "version.restor")
    return "its row is there" if ack["name"] in looked.versions and not back else ""


def _ack_rollback(looked: Looked, ack: Ack) -> str:
    row = looked.db.execute("SELECT * FROM branches WHERE id = ?", (ack["branch"],)).fetchone()
    if row is None or row["step"] != ack["step"]:
        return "no such branch"
    return "" if looked.event("rollback", branch=ack["branch"]) else "no event says so"


def _ack_paused(looked: Looked, ack: Ack) -> str:
    row = looked.db.execute("SELECT value FROM meta WHERE key = 'paused'").fetchone()
    return "" if bool(row and json.loads(row[0])) == ack["value"] else "it is otherwise"


def _ack_event(looked: Looked, ack: Ack) -> str:
    columns = {k: v for k, v in ack.items() if k not in ("kind", "event")}
    return "" if looked.event(ack["event"], **columns) else "not in the journal"


ACKS = {
    "item": _ack_item,
    "removed": _ack_removed,
    "done": _ack_done,
    "checkpoint": _ack_checkpoint,
    "version": _ack_version,
    "deleted": _ack_deleted,
    "rollback": _ack_rollback,
    "paused": _ack_paused,
    "event": _ack_event,
}
"""What can be acknowledged, and what must then hold. `paused` is the latest word, if repeated."""
