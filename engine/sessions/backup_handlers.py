"""Answers to the commands about backups. The work is `snapshots.backup`: bytes move in children of
the lowest priority, and a copy breaks off when the server closes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from engine.messages import unknown
from queue_store import config
from snapshots import backup, copies, targets

if TYPE_CHECKING:
    from engine.reading.views import Views

_copying: dict[str, dict[str, Any]] = {}
"""By target, how far a copy is that a session asked for; written by its thread alone."""


def answer(views: Views, target: str | None, action: str, version: str | None) -> dict[str, Any]:
    """The command `backup`: {results, notes}, or {copies, notes} for the action "list"."""
    settings = config.load(views.home.config)
    if action == "list":
        return {"copies": copies.listing(views.state, settings.backups), "notes": []}
    results: list[dict[str, Any]] = []
    chosen: list[str | None] = [*targets.names(settings, target)]
    for one in chosen or [None]:  # without any target the run says so
        try:
            results += backup.run(
                views.state,
                settings,
                name=one,
                action=action,
                version=version,
                alone=False,
                progress=partial(_copied, one),
                cancelled=views.closing.is_set,
            )
        finally:
            _copying.pop(str(one), None)
    return {"results": results, "notes": backup.notes(results, views.state)}


def _copied(target: str | None, version: str, done: int, size: int) -> None:
    _copying[str(target)] = {"version": version, "copied_bytes": done, "size_bytes": size}


def listed(views: Views) -> list[dict[str, Any]]:
    """The command `backup_targets`: [{name, place, when, what, error, copying}], one a
    target of config.toml. `error` is what went wrong the last time, "" for nothing; `copying`
    {version, copied_bytes, size_bytes} of a copy that a session asked for, or unknown."""
    settings = config.load(views.home.config)
    nothing = unknown("nothing is being copied there")
    return [
        {
            "name": name,
            "place": str(targets.open_target(settings, name).place),
            "when": rules.when,
            "what": rules.what,
            "error": targets.remembered(views.state, name).get("error", ""),
            "copying": _copying.get(name, nothing),
        }
        for name, rules in settings.backups.items()
    ]
