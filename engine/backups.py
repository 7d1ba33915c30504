"""Backups beside training: the keeper's chore, and the command that a session sends.

The work is `snapshots.backup`; here stands what an engine adds: it breaks off when the engine
ends, and what keeps a target from being used is the status's hint.
Must never hold up a step: bytes move in children of the lowest priority.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.hints.rest import MEND_TARGET
from queue_store import config
from queue_store.database import State
from snapshots import backup, copies

if TYPE_CHECKING:
    from engine.thread import Engine
    from engine.views import Views


def look_after(engine: Engine, state: State) -> None:
    """What is due at the targets of config.toml as it is now."""
    settings = config.load(engine.home.config)
    stopping = engine.keeper.stopping.is_set
    hints = backup.look_after(state, settings, stopping) if settings.backups else []
    if hints:
        engine.board.tell("backup", hints[0], MEND_TARGET, targets=len(hints))
    else:
        engine.board.untell("backup")


def answer(views: Views, target: str | None, action: str, version: str | None) -> dict[str, Any]:
    """The command `backup`: {results, notes}, or {copies, notes} for the action "list"."""
    settings = config.load(views.home.config)
    if action == "list":
        return {"copies": copies.listing(views.state, settings.backups), "notes": []}
    results = backup.run(
        views.state,
        settings,
        name=target,
        action=action,
        version=version,
        alone=False,
        cancelled=views.closing.is_set,
    )
    return {"results": results, "notes": backup.notes(results, views.state)}
