"""The queue's verbs: add, queue, show, priority, move, retry, remove, unremove.

They change the store themselves, so that they work with no engine; a running engine is told
over its socket instead, for then it looks at once. Never touches a file that was named: it is
copied.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from queue_store import intake, transitions
from queue_store import queue as store
from queue_store.errors import TrainctlError, UsageError
from queue_store.items import Item, ItemState, Priority
from queue_store.safe import safe_line
from trainctl.commands import lineage
from trainctl.commands.rows import prepared_text
from trainctl.confirm import confirm
from trainctl.context import Context
from trainctl.output import (
    ago,
    clock,
    count,
    counted,
    duration,
    known,
    pairs,
    percent,
    progress,
    size,
    table,
    text,
)

Json = dict[str, Any]
ADD_SECONDS = 600.0


def add(context: Context, arguments: argparse.Namespace) -> int:
    """Copy files into the queue and print their ids; exit 1 if any was not taken or rejected.

    Every file is tried: one that is wrong does not keep the others out.
    """
    priority = Priority.of(arguments.priority)
    added: list[Json] = []
    wrong: list[str] = []
    for name in arguments.files:
        path = Path(name).expanduser().absolute()
        try:
            item = _add(context, path, priority)
        except TrainctlError as error:
            wrong.append(str(error))
            continue
        except OSError as error:
            # The file may be sound, and the store the place that cannot be written.
            at = os.fsdecode(error.filename) if error.filename else str(path)
            place = f"{path}: " if at == str(path) else f"{path}: not copied: {at}: "
            wrong.append(f"{place}{error.strerror or error}")
            continue
        added.append(item)
        if item["state"] == "rejected":
            wrong.append(f"{path}: rejected: {item['error']} (kept as item {item['id']})")
    context.show(added, lambda: "\n".join(_added(context, added)))
    sys.stdout.flush()
    for line in wrong:
        print(f"trainctl: {safe_line(line)}", file=sys.stderr)
    return 1 if wrong else 0


def _add(context: Context, path: Path, priority: Priority) -> Json:
    def add_here() -> int:
        return intake.add_file(context.state, path, priority=priority, source=str(path)).id

    if not str(path).isprintable():
        # JSON carries no bytes that are not UTF-8; the engine finds the item by itself.
        return context.views.item(add_here())
    return _change(context, "add", add_here, path=str(path), priority=priority.word)


def _added(context: Context, added: list[Json]) -> Iterator[str]:
    digests = {item["id"]: item["digest"] for item in added}
    twice = store.same_content(context.views.state, digests)
    return (_one_added(item, twice.get(item["id"])) for item in added)


def _one_added(item: Json, same: Item | None) -> str:
    lines = counted(item["lines"], "line")
    told = f"{item['id']}  {text(item['name'])}  {text(item['state'])}, {lines}"
    if same is not None:
        told += f"; item {same.id}, {text(same.name)} ({same.state}), has the same content"
    bad = item["rejected"] if item["state"] != "rejected" else ()
    if not bad:
        return told
    # What becomes of them is said by data.bad_rows as it stands when the item's turn comes.
    more = f", and {counted(len(bad) - 1, 'more bad line')}" if len(bad) > 1 else ""
    return f"{told}; line {bad[0]['line']} is bad: {text(bad[0]['reason'])}{more} (data.bad_rows)"


def _change(context: Context, command: str, change: Callable[[], int], **words: Any) -> Json:
    """Let the running engine make the change, or make it here; the item as it is then.

    `change` returns the item's id.
    """
    session = context.engine_if_any()
    if session is None:
        return context.views.item(change())
    result = session.request(command, timeout=ADD_SECONDS, **words)
    item: Json = result[0] if isinstance(result, list) else result
    return item


def queue(context: Context, arguments: argparse.Namespace) -> int:
    """The items in the order in which they train, then the ended ones."""
    rows = _live(context, context.views.queue(arguments.state))
    live = context.views.live()
    context.show(
        rows,
        lambda: table(
            (">id", "state", "priority", "name", ">rows", ">step", ">of", ">done", "note"),
            [
                (
                    row["id"] if known(row["id"]) else "",
                    _state(row, live),
                    row["priority"],
                    row["name"],
                    count(row["rows"])
                    if known(row["rows"])
                    else counted(row["lines"], "line")
                    if known(row["lines"])
                    else "",
                    row["step"] if known(row["step"]) else "",
                    row["steps"] if known(row["steps"]) else "",
                    percent(row["step"], row["steps"]),
                    row.get("error") or row.get("reason") or _stopped(row, live),
                )
                for row in rows
            ],
            empty="the queue is empty: trainctl add FILE…, or put files into the inbox",
        ),
    )
    return 0


def _stopped(row: Json, live: bool) -> str:
    """What a killed engine left as it was: the store says training until the next one starts."""
    begun = row["state"] in (ItemState.TRAINING, ItemState.PREPARING)
    return "" if live or not begun else "no engine runs: it goes on when one starts"


def _state(row: Json, live: bool) -> str:
    """In the word that `status` has for it."""
    return "stopped" if _stopped(row, live) else row["state"]


def _live(context: Context, rows: list[Json]) -> list[Json]:
    """The rows with what a running engine alone knows: how far the item that trains is."""
    session = context.engine_if_any()
    item = session.request("snapshot").get("item") if session is not None else None
    for row in rows:
        if item is not None and row["id"] == item["id"]:
            row.update({key: item[key] for key in ("step", "cursor")})
    return rows


def show(context: Context, arguments: argparse.Namespace) -> int:
    """One item. JSON: a list of one, as `queue`. With --row one row of it, as `validate
    --tokens` has it."""
    if arguments.row is not None:
        from trainctl.commands.rows import show_row

        return show_row(context, arguments.id, arguments.row)
    item = _live(context, [context.views.item(arguments.id)])[0]
    live = context.views.live()
    context.show([item], lambda: _item(item, live))
    return 0


def _item(item: Json, live: bool) -> str:
    lines = pairs(
        [
            ("id", item["id"]),
            ("name", item["name"]),
            ("state", _state(item, live)),
            ("priority", item["priority"]),
            ("lines", count(item["lines"])),
            ("rows", count(item["rows"])),
            ("epochs", item["epochs"]),
            ("steps", progress(item["step"], item["steps"])),
            ("cursor", count(item["cursor"])),
            ("size", size(item["size"]) if known(item.get("size")) else ""),
            ("digest", item["digest"]),
            ("reason", item.get("reason") or _stopped(item, live)),
            ("error", item["error"] or ""),
        ]
    )
    attempts = table(
        (">attempt", "started", "took", "ended by", "error", "what to do"),
        [
            (
                attempt["n"],
                clock(attempt["started"]),
                _took(attempt),
                attempt["cause"],
                attempt["error"],
                attempt.get("advice", ""),
            )
            for attempt in item["attempts"]
        ],
    )
    rejected = table(
        (">line", "rejected because"),
        [(bad["line"], bad["reason"]) for bad in item.get("rejected") or []],
    )
    report = item.get("report")
    found = prepared_text(report) if isinstance(report, dict) and known(report) else ""
    origin = lineage.block(item["lineage"])
    return "\n\n".join(part for part in (lines, origin, found, attempts, rejected) if part)


def _took(attempt: Json) -> str:
    if not known(attempt["ended"]):
        return f"since {ago(attempt['started']).removesuffix(' ago')}"
    return duration(attempt["ended"] - attempt["started"])


def priority(context: Context, arguments: argparse.Namespace) -> int:
    """Give an item another priority; it goes to that priority's end."""
    to = Priority.of(arguments.priority)
    item = _change(
        context,
        "priority",
        lambda: store.set_priority(context.state, arguments.id, to).id,
        id=arguments.id,
        priority=arguments.priority,
    )
    return _moved(context, item)


def move(context: Context, arguments: argparse.Namespace) -> int:
    """Put an item first of its priority, right before another one, or so many places on."""
    if arguments.by is not None:
        return _shift(context, arguments.id, arguments.by)
    words: Json = {"id": arguments.id}
    words.update({"first": True} if arguments.first else {"before": arguments.before})

    def change() -> int:
        if arguments.first:
            return store.move_first(context.state, arguments.id).id
        return store.move_before(context.state, arguments.id, arguments.before).id

    return _moved(context, _change(context, "move", change, **words))


def _shift(context: Context, item: int, by: int) -> int:
    if by == 0:
        raise UsageError("--by 0 moves nothing", mend="give 1, 2, …, or -1 for earlier")
    session = context.engine_if_any()
    if session is None:
        store.shift(context.state, [item], by)
    else:
        session.request("shift", items=[item], by=by)
    return _moved(context, context.views.item(item))


def retry(context: Context, arguments: argparse.Namespace) -> int:
    """Queue a failed or skipped item again."""
    item = _change(
        context,
        "retry",
        lambda: transitions.retry(context.state, arguments.id).id,
        id=arguments.id,
    )
    return _moved(context, item)


def _moved(context: Context, item: Json) -> int:
    context.show([item], lambda: _place(context, item))
    return 0


def _place(context: Context, item: Json) -> str:
    """Where the item stands now, with what comes before it."""
    ahead = [row for row in context.views.queue() if row["state"] in ("queued", "paused")]
    place = next((n for n, row in enumerate(ahead, 1) if row["id"] == item["id"]), None)
    where = f"number {place} of {len(ahead)} in the queue" if place else text(item["state"])
    return f"{item['id']}  {text(item['name'])}  {text(item['priority'])}, {where}"


def remove(context: Context, arguments: argparse.Namespace) -> int:
    """Take an item that has not trained out of the queue; its file goes to the trash folder."""
    item = context.views.item(arguments.id)
    confirm(
        f"remove item {item['id']}, {text(item['name'])} ({text(item['state'])},"
        f" {counted(item['lines'], 'line')}): it will not train; its file goes to the trash",
        yes=arguments.yes,
    )
    session = context.engine_if_any()
    if session is None:
        intake.remove(context.state, arguments.id, days=context.config.snapshots.trash_days)
    else:
        session.request("remove", id=arguments.id)
    gone = {**item, "removed": True}
    back = f"; back with: trainctl unremove {item['id']}"
    context.show([gone], lambda: f"{item['id']}  {text(item['name'])}  removed{back}")
    return 0


def unremove(context: Context, arguments: argparse.Namespace) -> int:
    """Take back the removal of an item, as long as it is in the trash."""
    from snapshots import trash

    item = _change(
        context,
        "unremove",
        lambda: trash.restore_item(context.state, arguments.id).id,
        id=arguments.id,
    )
    return _moved(context, item)
