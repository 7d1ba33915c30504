"""An engine whose items train in several processes, and what of them is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil

from queue_store import queue
from queue_store.home import Home
from tests import engine_kit as kit
from tests.waiting import wait_until

ROWS = 40


def make_home(folder: Path, **changes: dict[str, Any]) -> Home:
    """A home whose items train in two processes, one of them queued."""
    training = {"processes": 2, **changes.pop("training", {})}
    home = kit.make_home(folder, training=training, **changes)
    kit.add(home, "a.jsonl", ROWS, 1)
    return home


def ranks(running: kit.Running) -> list[dict[str, Any]]:
    """The ranks of the status, once there are some."""

    def found() -> Any:
        return running.status["processes"].get("ranks")

    there: list[dict[str, Any]] = wait_until(found, timeout=120, what="ranks")
    return there


def agent_of(rank: dict[str, Any]) -> psutil.Process:
    """The agent that started a rank."""
    parent = psutil.Process(rank["pid"]).parent()
    assert parent is not None and "engine.ranks.agent" in parent.cmdline()
    return parent


def free_port() -> int:
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def below() -> list[psutil.Process]:
    """Processes of launches that this one started and that live."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if any("engine.ranks" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def wait_gone(*pids: int) -> None:
    """Until none of these processes lives."""
    wait_until(lambda: not any(lives(pid) for pid in pids), timeout=20, what=f"the end of {pids}")


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def attempts(home: Home, item: int = 1) -> list[tuple[str, str]]:
    """(cause, error) of the item's tries."""
    with kit.opened(home) as state:
        return [(one.cause, one.error) for one in queue.attempts(state, item)]
