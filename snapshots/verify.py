"""`python -m snapshots.verify FOLDER [MANIFEST_DIGEST]`: re-read a folder against its manifest.

A process of its own, because a read error or a broken disk must not take the engine along, and
so that the reading runs at idle I/O priority. Prints one JSON object and exits with 0 (all as
recorded) or 4 (not). Read-only: it must never change, repair or move anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from queue_store.errors import VerificationFailed
from snapshots.manifest import Problem, check, read_manifest

MISMATCH = 4
TIMEOUT = 6 * 3600.0
"""Seconds after which a verification counts as failed: a disk that hangs."""


def verify(folder: Path, expected: str | None = None) -> dict[str, Any]:
    """Read the folder from the medium; `{folder, ok, problems[{kind,name,text}], seconds,
    bytes, weights_digest}`."""
    started = time.monotonic()
    problems = check(folder, deep=True, from_medium=True, expected=expected)
    result: dict[str, Any] = {
        "folder": str(folder),
        "ok": not problems,
        "problems": [{"kind": p.kind, "name": p.name, "text": p.text} for p in problems],
        "seconds": round(time.monotonic() - started, 3),
    }
    if not problems:
        manifest = read_manifest(folder)
        result |= {"bytes": manifest.size_bytes, "weights_digest": manifest.weights_digest}
    return result


def verify_in_child(folder: Path, expected: str | None = None) -> list[Problem]:
    """Verify in a child process and wait; an empty list means that every byte is as recorded.

    Raises VerificationFailed where the child gave no answer (killed, hanging disk).
    """
    # -P: the folder one stands in must not be able to put its own `snapshots` in front of ours.
    command = [sys.executable, "-P", "-m", "snapshots.verify", str(folder)]
    ours = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")]))
    try:
        child = subprocess.run(
            [*command, *([expected] if expected else [])],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        answer = json.loads(child.stdout)
        if child.returncode not in (0, MISMATCH) or answer["ok"] != (child.returncode == 0):
            raise ValueError(f"exit status {child.returncode}")
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
        raise VerificationFailed(
            f"the verification did not finish: {error}", where=str(folder), mend="verify it again"
        ) from None
    return [Problem(p["kind"], p["name"], p["text"]) for p in answer["problems"]]


def _be_idle() -> None:
    """Give way to training on the processor and on the disk, where the system knows how."""
    import psutil

    process = psutil.Process()
    process.nice(max(process.nice(), 10))
    if hasattr(psutil, "IOPRIO_CLASS_IDLE"):
        try:
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
        except (psutil.Error, OSError) as error:
            print(f"reading at normal I/O priority: {error}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print("usage: python -m snapshots.verify FOLDER [MANIFEST_DIGEST]", file=sys.stderr)
        return 2
    _be_idle()
    result = verify(Path(arguments[0]), arguments[1] if len(arguments) == 2 else None)
    print(json.dumps(result))
    return 0 if result["ok"] else MISMATCH


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
