"""Asking before something goes: what goes is listed, the answer defaults to no.

Without a terminal nobody can be asked: then `--yes` (or `--yes NAME`) must say it, or the
command is refused.
"""

from __future__ import annotations

import sys

from queue_store.errors import Refused, UsageError
from queue_store.safe import safe


def confirm(what: str, *, yes: bool) -> None:
    """Go on if `yes` or if a person at the terminal agrees. Raises Refused otherwise."""
    if yes:
        return
    if not _somebody_there():
        raise Refused("not done: nobody can be asked here", mend="say it with --yes")
    if _ask(f"{what}\nGo on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("not done")


def confirm_name(what: str, name: str, *, yes: str | None) -> None:
    """Go on if `yes` is exactly `name` or a person types it. Raises Refused, UsageError."""
    if yes is not None:
        if yes != name:
            raise UsageError(f"--yes {yes}: this is about {name}", mend=f"--yes {name}")
        return
    if not _somebody_there():
        raise Refused("not done: nobody can be asked here", mend=f"say it with --yes {name}")
    if _ask(f"{what}\nType {name} to go on: ").strip() != name:
        raise Refused("not done")


def _somebody_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _ask(question: str) -> str:
    # On stderr: stdout may be a pipe that wants JSON.
    sys.stderr.write(safe(question))
    sys.stderr.flush()
    return sys.stdin.readline()
