"""A file validated deep beside training: in a process of its own, at the lowest priority.

`check` is called by a console; `python -m engine.inspecting.deepcheck HOME FILE` is its child,
which tells how far it is and answers with the report of `trainctl validate --level deep`. Loads
no torch, changes nothing in the home.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from queue_store.errors import TrainctlError
from queue_store.home import Home
from snapshots import child

SHOWN = 100
"""Rejected lines that the report names; its count covers all."""

Progress = Callable[[int, int], None]
"""(bytes read, of how many)"""


def check(home: Home, file: Path, stop: child.Stop, progress: Progress) -> dict[str, Any]:
    """The deep report of a file; blocks until it is there. `stop` breaks it off within moments.

    Raises TrainctlError where there is none: broken off, unreadable, no model.
    """
    return child.run(
        "engine.inspecting.deepcheck",
        [str(home.root), str(file)],
        where=file.name,
        stop=stop,
        progress=progress,
        what="the validation",
        mend="v tries again",
    )


def main(root: str, file: str) -> int:
    """The child: JSON lines on its output, the last of which is the report."""
    from engine.inspecting.validating import place, tokenized
    from engine.rowcheck import quick
    from queue_store.rows import quick_check

    told = time.monotonic()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= child.TELL_SECONDS:
            told = time.monotonic()
            print(json.dumps({"read": done, "of": total}), flush=True)

    path = Path(file)
    try:
        with place(Home(Path(root))) as at:
            found = quick_check(path, limit=SHOWN)
            report = (
                tokenized(path, found, "deep", at, progress)
                if found.accepted
                else {**quick(found), "level_reason": "no row can be made tokens of"}
            )
    except TrainctlError as error:
        print(json.dumps({"ok": False, "unfinished": str(error)}), flush=True)
        return 1
    print(json.dumps({"ok": True, **report}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
