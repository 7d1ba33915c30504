"""rebuild: state.db anew, where it is gone or unreadable. Under the home's lock, without an engine.

Deletes nothing: the old file is set apart in store/quarantine.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from queue_store.lock import EngineLock
from trainctl.confirm import confirm
from trainctl.context import Context
from trainctl.output import count, counted


def rebuild(context: Context, arguments: argparse.Namespace) -> int:
    """Make the database anew. JSON: the plan; with `done`, a line each, once it was carried out."""
    from snapshots import rebuild as store

    with EngineLock.acquire(context.home, "rebuild"):
        made = store.plan(context.home, arguments.source or "")
        lines = [
            f"state.db: {made.problem or 'sound'}",
            f"  of        {made.copy or 'ledgers, manifests and item files alone'}",
            f"  then      {counted(made.checkpoints, 'checkpoint')},"
            f" {counted(made.versions, 'version')}, {counted(made.items, 'item file')} are there",
            f"  newest    {made.head}, step {count(made.step)}",
            *(f"  damaged   {line}" for line in made.damaged),
            "  kept      the old file, in store/quarantine; training starts paused",
        ]
        if arguments.dry_run:
            context.show(asdict(made), lambda: "\n".join(lines))
            return 0
        confirm("\n".join(lines), yes=arguments.yes)
        told = store.rebuild(context.home, made)
    context.show({**asdict(made), "done": told}, lambda: "\n".join(told))
    return 0
