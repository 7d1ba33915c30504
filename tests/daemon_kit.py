"""The real daemon in processes of its own: what tests of its life and death drive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.sessions.client import connect
from queue_store.errors import TrainctlError
from queue_store.home import Home
from queue_store.lock import holder, wait_free
from tests import engine_kit as kit
from tests.conftest import ROOT
from tests.waiting import wait_until

SECONDS = 180.0


def status(home: Home) -> dict[str, Any]:
    """The engine's own word; {} where none answers."""
    try:
        session = connect(home, timeout=60)
    except TrainctlError:
        return {}
    try:
        found: dict[str, Any] = session.request("snapshot", timeout=60)
        return found
    except TrainctlError:
        return {}
    finally:
        session.close()


class Daemon:
    """`trainctl --daemon` in the foreground of a process group of its own."""

    def __init__(self, home: Home, **environment: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trainctl", "--daemon", "--json", "--home", home.root],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.pids: set[int] = set()

    def started(self) -> dict[str, Any]:
        """The line that it prints once it listens."""
        assert self.process.stdout is not None and self.process.stderr is not None
        text = self.process.stdout.readline()
        assert text, self.process.stderr.read().decode()
        found: dict[str, Any] = json.loads(text)
        self.pids.add(found["pid"])
        return found

    def engine_pid(self, not_this: int = 0) -> int:
        """The process that trains, once it answers (another one than `not_this`)."""

        def pid() -> int:
            found = (status(self.home).get("engine") or {}).get("pid", 0)
            return found if found != not_this else 0

        found = wait_until(pid, SECONDS, every=0.1, what="an engine answers")
        self.pids.add(found)
        return found

    def wait_step(self, step: int) -> None:
        wait_until(
            lambda: status(self.home).get("global_step", 0) >= step,
            SECONDS,
            every=0.05,
            what=f"step {step}",
        )

    def wait_idle(self) -> None:
        def idle() -> bool:
            left = {s for s in kit.states(self.home).values()} - {"done", "failed", "skipped"}
            return not left and status(self.home).get("state") == "idle"

        wait_until(idle, SECONDS, every=0.1, what="all is trained")

    def end(self) -> tuple[int, str]:
        """SIGTERM, and wait; exit code and what it said on stderr."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, err.decode()


@contextmanager
def daemon(home: Home, **environment: str) -> Iterator[Daemon]:
    """A daemon, and nothing of it left afterwards."""
    running = Daemon(home, **environment)
    try:
        yield running
    finally:
        who = holder(home)
        running.process.kill()
        running.process.communicate()
        for pid in {*running.pids, who["pid"] if who else 0} - {0, os.getpid()}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        wait_free(home, 20)


def stacks(home: Home) -> str:
    place: Path = home.logs / "stacks.log"
    return place.read_text() if place.exists() else ""
