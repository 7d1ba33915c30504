"""`python -m snapshots.verify FOLDER [MANIFEST_DIGEST]`: re-read a folder against its manifest.

A process of its own, because a read error or a broken disk must not take the engine along, and
so that the reading runs at idle I/O priority. Prints one JSON object and exits with 0 (all as
recorded) or 4 (not). Read-only: it must never change, repair or move anything.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queue_store.errors import VerificationFailed
from snapshots import child
from snapshots.child import MISMATCH, Progress
from snapshots.manifest import Problem, check, read_manifest, seen_now


@dataclass(frozen=True)
class Outcome:
    """What a process found: `problems` (none: as recorded), and `seen`, which files it read, so
    that one can tell later whether they are still those; `checks` are a deep verification's
    [{check, ok, text}]."""

    problems: list[Problem]
    seen: str
    checks: list[dict[str, Any]]

    @staticmethod
    def of(answer: dict[str, Any]) -> Outcome:
        """From a child's answer. Raises KeyError, TypeError where it is none."""
        problems = [Problem(p["kind"], p["name"], p["text"]) for p in answer["problems"]]
        return Outcome(problems, str(answer.get("seen", "")), list(answer.get("checks", ())))


def verify(folder: Path, expected: str | None = None, *, tell: bool = False) -> dict[str, Any]:
    """Read the folder from the medium; `{folder, ok, problems[{kind,name,text}], seconds, seen,
    bytes, weights_digest}`, or `{ok: False, unfinished: why}`. `tell`: print how far it is,
    meanwhile."""
    started = time.monotonic()
    before = seen_now(folder)
    teller = child.Teller(_bytes(folder)) if tell else None
    problems = check(folder, deep=True, from_medium=True, expected=expected, seen=teller)
    if not problems and seen_now(folder) != before:
        # What was read is as recorded; what lies there now may not be.
        return {"ok": False, "unfinished": "files were written while they were read"}
    result: dict[str, Any] = {
        "folder": str(folder),
        "ok": not problems,
        "problems": [{"kind": p.kind, "name": p.name, "text": p.text} for p in problems],
        "seconds": round(time.monotonic() - started, 3),
        "seen": before,
    }
    if not problems:
        manifest = read_manifest(folder)
        result |= {"bytes": manifest.size_bytes, "weights_digest": manifest.weights_digest}
    return result


def _bytes(folder: Path) -> int:
    try:
        return read_manifest(folder).size_bytes
    except VerificationFailed:
        return 0


def read_back(
    folder: Path,
    expected: str | None = None,
    *,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Verify in a child process and wait. `stop` breaks it off.

    Raises child.Unfinished where the child gave no answer (killed, broken off, hanging disk).
    """
    arguments = ["--tell", str(folder), *([expected] if expected else [])]
    answer = child.run(
        "snapshots.verify", arguments, where=str(folder), stop=stop, progress=progress
    )
    return Outcome.of(answer)


def verify_in_child(
    folder: Path, expected: str | None = None, *, stop: threading.Event | None = None
) -> list[Problem]:
    """As `read_back`; an empty list means that every byte is as recorded."""
    return read_back(folder, expected, stop=stop).problems


def main(arguments: list[str]) -> int:
    tell = arguments[:1] == ["--tell"]
    words = arguments[1:] if tell else arguments
    if len(words) not in (1, 2):
        print("usage: python -m snapshots.verify FOLDER [MANIFEST_DIGEST]", file=sys.stderr)
        return 2
    result = verify(Path(words[0]), words[1] if len(words) == 2 else None, tell=tell)
    print(json.dumps(result))
    if "unfinished" in result:
        return 1
    return 0 if result["ok"] else MISMATCH


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
