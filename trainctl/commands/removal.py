"""delete, prune, trash: how versions go, and how they come back.

A running engine does it; without one it is done here, under the home's lock. What goes is listed
first with the bytes that it truly frees; to delete one, its name is typed.
"""

from __future__ import annotations

import argparse
from typing import Any

from queue_store.errors import Refused
from queue_store.lock import EngineLock
from trainctl.confirm import confirm, confirm_name
from trainctl.context import Context
from trainctl.output import ago, clock, counted, size, table

Json = dict[str, Any]


def _ask(context: Context, command: str, **arguments: Any) -> Any:
    """The answer of the engine, or of the same handler in this process."""
    session = context.engine_if_any()
    if session is not None:
        return session.request(command, **arguments)
    from engine.messages import COMMANDS, Kind
    from engine.sessions.upkeep_handlers import HANDLERS

    if COMMANDS[command].kind is Kind.READ:
        return HANDLERS[command](context.views, **arguments)
    with EngineLock.acquire(context.home, command):
        return HANDLERS[command](context.views, **arguments)


def delete(context: Context, arguments: argparse.Namespace) -> int:
    """Delete a version: to the trash, or a damaged one to the quarantine. JSON: version, where,
    freed_bytes."""
    plan = _ask(context, "removal_plan", version=arguments.version)
    name = plan["version"]
    if plan["refused"]:
        raise Refused(f"{name} stays: {plan['refused']}", mend="trainctl versions says what keeps")
    agreed = name if arguments.yes == arguments.version else arguments.yes
    confirm_name("\n  ".join([f"delete {name}:", *plan["goes"]]), name, yes=agreed)
    done = _ask(context, "delete", version=name, confirm=name)
    back = f"; back with: trainctl trash restore {name}" if done["where"] == "trash" else ""
    context.show(done, lambda: f"{name} is in the {done['where']}{back}")
    return 0


def prune(context: Context, arguments: argparse.Namespace) -> int:
    """Remove what no rule keeps. JSON with --dry-run: every version and checkpoint {kind, name,
    keep, reasons[], size_bytes, freed_bytes}; else {name, removed, why} of each that was to go."""
    plan: list[Json] = _ask(context, "prune_plan")
    goes = [entry for entry in plan if not entry["keep"]]
    if arguments.dry_run:
        context.show(plan, lambda: _plan_table(plan))
        return 0
    going = [entry for entry in goes if entry["kind"] == "version"]
    if going:
        what = ", ".join(entry["name"] for entry in going)
        freed = size(sum(entry["freed_bytes"] for entry in going))
        confirm(
            f"{counted(len(going), 'version')} to the trash: {what}"
            f" ({freed} are freed when their time there is over)",
            yes=arguments.yes,
        )
    done: list[Json] = _ask(context, "prune") if going else []
    context.show(done, lambda: "\n".join(_pruned(done)) or "the rules keep every version")
    return 1 if any(not one["removed"] for one in done) else 0


def _plan_table(plan: list[Json]) -> str:
    return table(
        ("", "kind", "name", ">size", ">frees", "because"),
        [
            (
                "keep" if entry["keep"] else "GOES",
                *(entry["kind"], entry["name"], size(entry["size_bytes"])),
                *(size(entry["freed_bytes"]), ", ".join(entry["reasons"])),
            )
            for entry in plan
        ],
        empty="no version and no checkpoint yet",
    )


def _pruned(done: list[Json]) -> list[str]:
    return [
        f"{one['name']}  {'in the trash' if one['removed'] else 'stays'}: {one['why']}"
        for one in done
    ]


def trash_list(context: Context, arguments: argparse.Namespace) -> int:
    """What was removed and can come back. JSON: name, kind, why, size_bytes, freed_bytes,
    deleted, expires."""
    rows: list[Json] = _ask(context, "trash")
    context.show(
        rows,
        lambda: table(
            ("name", "kind", ">size", ">frees", "deleted", "goes for good", "why"),
            [
                (
                    *(row["name"], row["kind"], size(row["size_bytes"])),
                    *(size(row["freed_bytes"]), ago(row["deleted"])),
                    *(clock(row["expires"]), row["why"]),
                )
                for row in rows
            ],
            empty="the trash is empty",
        ),
    )
    return 0


def trash_restore(context: Context, arguments: argparse.Namespace) -> int:
    """Bring a version or an item back. JSON: the thing, as in the list."""
    done = _ask(context, "trash_restore", name=arguments.name)
    context.show(done, lambda: f"{done['restored']} is back")
    return 0


def trash_empty(context: Context, arguments: argparse.Namespace) -> int:
    """Unlink what is in the trash, or one thing of it. JSON: what went, with freed_bytes."""
    rows: list[Json] = _ask(context, "trash")
    if arguments.name is not None:
        rows = [row for row in rows if arguments.name in (row["name"], row["place"])]
    if rows or arguments.name is not None:
        what = ", ".join(row["name"] for row in rows) or arguments.name
        freed = size(sum(row["freed_bytes"] for row in rows))
        confirm(f"goes for good: {what}; {freed} are freed", yes=arguments.yes)
    gone = _ask(context, "trash_empty", name=arguments.name)
    freed = size(sum(row["freed_bytes"] for row in gone))
    context.show(gone, lambda: f"{counted(len(gone), 'thing')} gone, {freed} freed")
    return 0
