"""Answers to the commands that look after versions and trash: on threads of the dispatcher.

The functions of the floor below do the work; here stand the settings that they go by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from engine.reading.views import Views
from queue_store import config
from queue_store.errors import Refused
from snapshots import removal, retention, trash, versions
from snapshots.retention import Rules

Json = dict[str, Any]


def rules(views: Views) -> Rules:
    """The retention rules as config.toml has them now. Raises ConfigError."""
    return Rules.of(config.load(views.home.config).snapshots)


def removal_plan(views: Views, version: str) -> Json:
    """What deleting a version would mean; see removal.RemovalPlan."""
    return asdict(removal.plan(views.state, version, days=rules(views).trash_days))


def delete(views: Views, version: str, confirm: str) -> Json:
    """Delete a version whose name was typed again. {version, trash, freed_bytes}."""
    name = versions.get(views.state, version).name
    if confirm != name:
        raise Refused(f"{confirm!r} was typed, this is about {name}")
    made = removal.plan(views.state, name, days=rules(views).trash_days)
    thrown = removal.delete(
        views.state, name, why="deleted by hand", days=rules(views).trash_days, stop=views.closing
    )
    where = "quarantine" if thrown is None else "trash"
    return {"version": name, "where": where, "freed_bytes": made.freed_bytes}


def prune_plan(views: Views) -> list[Json]:
    """Every version and checkpoint, whether the rules keep it, and why."""
    return [entry.to_json() for entry in retention.plan(views.state, rules(views))]


def prune(views: Views) -> list[Json]:
    """Move what no rule keeps to the trash; see retention.prune."""
    return retention.prune(views.state, rules(views), stop=views.closing)


def trash_list(views: Views) -> list[Json]:
    """What is in the trash."""
    return trash.listed(views.state)


def trash_restore(views: Views, name: str) -> Json:
    """Bring something back from the trash."""
    return trash.restore(views.state, name)


def trash_empty(views: Views, name: str | None) -> list[Json]:
    """Unlink one thing of the trash, or all of it."""
    return trash.empty(views.state, name)


HANDLERS: dict[str, Callable[..., Any]] = {
    "removal_plan": removal_plan,
    "delete": delete,
    "prune_plan": prune_plan,
    "prune": prune,
    "trash": trash_list,
    "trash_restore": trash_restore,
    "trash_empty": trash_empty,
}
