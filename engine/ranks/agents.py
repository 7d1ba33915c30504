"""The agent's process as who starts it has it, and the note that further hosts read. No torch."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import IO

from engine.ranks.order import Order
from queue_store import durable, programs
from queue_store.home import Home

AGENT = "engine.ranks.agent"
LOG_BYTES, LOGS = 4 << 20, 3


def start_agent(home: Home, order: Order) -> subprocess.Popen[bytes]:
    """The agent with its order. It and its ranks die with this thread; what they print goes to
    store/logs/ranks.log."""
    place = home.logs / "ranks.log"
    if place.exists() and place.stat().st_size > LOG_BYTES:
        durable.rotate(place, LOGS)
    with _log_file(place) as file:
        agent = subprocess.Popen(
            programs.python(AGENT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env=programs.environment(),
            start_new_session=True,
        )
    assert agent.stdin is not None and agent.stdout is not None
    os.set_blocking(agent.stdout.fileno(), False)
    with contextlib.suppress(BrokenPipeError):  # its end tells more
        agent.stdin.write(order.dumps().encode() + b"\n")
        agent.stdin.flush()
    return agent


def _log_file(place: Path) -> IO[bytes]:
    file = place.open("ab")
    os.fchmod(file.fileno(), 0o600)
    return file


def write_note(home: Home, order: Order) -> None:
    """What a further host needs to come to this launch (`join`)."""
    durable.write_atomic(home.launch_note, order.dumps().encode())


def noted(home: Home) -> Order | None:
    """The launch that hosts are to come to, if there is one."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Order.loads(home.launch_note.read_bytes())
    return None


def forget_note(home: Home) -> None:
    """An engine that died left a launch behind to which nobody need come."""
    if home.launch_note.exists():
        durable.remove_file(home.launch_note)


def drop_note(home: Home, launch: str) -> None:
    """That launch is over: nobody need come any more."""
    order = noted(home)
    if order is not None and order.id == launch:
        durable.remove_file(home.launch_note)


def ended(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit status {code}"
