"""Engines in forks of one process that has imported torch once, killed at a named point.

    python -m tests.engine_forks FOLDER auto|off POINT…

Checkpoints are written beside training (auto) or in line (off). For each point a home of its own:
an engine carries out a story (steps, a version, a file in the inbox, a pre-emption, a rollback, an
undo) until the kill; recovery runs, twice; an engine trains what is left. Prints one JSON object a
point: what was wrong when, and what the items became.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from queue_store.home import Home
from queue_store.items import Priority
from queue_store.metrics import Metrics
from tests import engine_kit as kit
from tests.faults.checker import check
from tests.waiting import wait_until

LIMIT_SECONDS = 120.0
_PR_SET_CHILD_SUBREAPER = 36


def story(home: Home) -> None:
    with kit.Running(home) as running:
        running.pause_at(2)
        running.ask("snapshot_version")
        kit.write_rows(home.root / "new", 12, 3).rename(home.inbox / "c.jsonl")
        wait_until(lambda: "c.jsonl" in kit.states(home), timeout=60)
        kit.add(home, "d.jsonl", 12, 4, Priority.HIGH)
        running.engine.wake()
        running.pause_at(5)
        running.ask("snapshot_version")
        running.pause_at(8)
        running.ask("rollback", version="v001")
        running.pause_at(4)
        running.ask("skip", undo=True)
        running.ask("resume")
        running.wait_trained()


def recovers(home: Home) -> None:
    from engine.loop.recovery import recover

    with kit.opened(home) as state:
        metrics = Metrics(home)
        recover(state, metrics)
        again = recover(state, metrics)
        metrics.close()
    assert not again, again


def trains(home: Home) -> None:
    with kit.Running(home) as running:
        running.unpause()
        running.wait_trained()


def forked(act: Callable[[Home], None], home: Home, point: str = "") -> int:
    """Run `act` in a child; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["TRAINCTL_CRASH_AT"] = point
            act(home)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + LIMIT_SECONDS
    ended: list[int] = []

    def over() -> bool:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            ended.append(os.waitstatus_to_exitcode(status))
        return bool(gone) or time.monotonic() > deadline

    wait_until(over, timeout=LIMIT_SECONDS + 10)
    if not ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise TimeoutError(f"{act.__name__} did not end, killed at {point or 'no point'}")
    # Its children die with it, at the lowest priority: on a busy machine that takes a while.
    wait_until(lambda: not _descendants(), timeout=LIMIT_SECONDS, what="the end of its children")
    return ended[0]


def _descendants() -> list[int]:
    """The processes that forks of this one started and that have not ended. What a killed fork
    leaves is this process's child then, also one that was just born and has no environment yet.
    Nobody waits for it: recovery sees it as in a container without an init."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process.pid] * (process.status() != psutil.STATUS_ZOMBIE)
    return found


def audit(home: Home, *, recovered: bool = True) -> list[str]:
    """What the independent checker finds, a line each."""
    return [str(violation) for violation in check(home.root, recovered=recovered)]


def story_home(folder: Path, background: str) -> Home:
    """A home that saves often and keeps few checkpoints."""
    return kit.make_home(
        folder,
        training={"save_steps": 2},
        snapshots={"keep_checkpoints": 1, "background": background},
    )


def killed_at(home: Home, point: str) -> dict[str, Any]:
    kit.add(home, "a.jsonl", 24)
    kit.add(home, "b.jsonl", 16, 2)
    told: dict[str, Any] = {"point": point, "ended": forked(story, home, point)}
    told["killed"] = audit(home, recovered=False)
    told["recovers"], told["recovered"] = forked(recovers, home), audit(home)
    told["trains"], told["trained"] = forked(trains, home), audit(home)
    told["states"] = kit.states(home)
    return told


def main() -> None:
    import engine.loop.worker  # noqa: F401 - once, for all forks

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder, background = Path(sys.argv[1]), sys.argv[2]
    for point in sys.argv[3:]:
        home = story_home(folder / point.replace(":", "-"), background)
        print(json.dumps(killed_at(home, point)), flush=True)


if __name__ == "__main__":
    main()
