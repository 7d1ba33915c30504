"""pause, resume, skip, stop, drain: words to a running engine; each needs one (exit 3).

`pause` returns when paused, `resume` when stepping, `stop` and `drain` when the engine has
saved, ended and let go of the home's lock.
"""

from __future__ import annotations

import argparse
from typing import Any

from queue_store.errors import NoEngine
from trainctl.context import Context
from trainctl.output import count, text

LOOK_SECONDS = 60.0


def pause(context: Context, arguments: argparse.Namespace) -> int:
    """Stop stepping; returns when paused. JSON: requested_step, step."""
    result = context.engine().request("pause", park=arguments.park)
    how = ", saved and parked: resume loads it again" if arguments.park else ""
    context.show(result, lambda: f"paused at step {count(result['step'])}{how}")
    return 0


def resume(context: Context, arguments: argparse.Namespace) -> int:
    """Step again; returns when stepping."""
    result = context.engine().request("resume")
    context.show(result, lambda: "resumed")
    return 0


def skip(context: Context, arguments: argparse.Namespace) -> int:
    """End the item that trains, or the one named; with --undo take back what it taught."""
    result = context.engine().request(
        "skip", item=arguments.id, undo=arguments.undo, reason=arguments.reason
    )
    context.show(result, lambda: _skipped(result))
    return 0


def _skipped(result: dict[str, Any]) -> str:
    if not result.get("undone"):
        return "skipped"
    at = f"step {count(result['global_step'])}"
    names = [text(name) for name in result.get("again", ())]
    more = f"; what had trained since then trains again: {', '.join(names)}" if names else ""
    return f"skipped, what it taught is taken back: {at}{more}"


def stop(context: Context, arguments: argparse.Namespace) -> int:
    """Save after the step and end the engine; returns when the lock is free."""
    return _end(context, "stop")


def drain(context: Context, arguments: argparse.Namespace) -> int:
    """Finish the item, save and end the engine; returns when the lock is free."""
    return _end(context, "drain")


def _end(context: Context, command: str) -> int:
    from queue_store import durable
    from queue_store.lock import holder, wait_free

    result: Any = {}
    asked_by_file = False
    stop_file = context.home.stop_file
    try:
        session = context.engine()
    except NoEngine:
        # Its supervisor alone may be there: it waits before a restart, or the engine loads.
        if command != "stop" or (holder(context.home) or {}).get("mode") != "daemon":
            raise
        durable.write_atomic(stop_file, b"")
        asked_by_file = True
    else:
        try:
            result = session.request(command)
        except NoEngine:
            # It ended before its answer was read: the lock tells whether it is gone.
            context.forget_engine()

    while not wait_free(context.home, LOOK_SECONDS):
        # A save of 20 GB or the rest of a long item takes its time; ctrl+c ends only the waiting.
        continue
    if asked_by_file:
        durable.remove_file(stop_file)  # had it ended before it read that
    context.show({**(result or {}), "stopped": True}, lambda: "stopped, everything is saved")
    return 0
