"""A further host's side of a training on several: its agent comes to each launch of the engine.

The engine leaves a note in the home, on a folder that all hosts see at the same path, for as long
as a launch lives. An agent whose launch is over is ended; it comes again to the next one, not to
the same one twice. No torch here: the agent has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable

import psutil

from engine.ranks.agents import ended, noted, start_agent
from engine.ranks.order import Order
from queue_store.errors import NotFound, Refused
from queue_store.home import Home

log = logging.getLogger("trainctl.join")
LOOK_SECONDS = 0.5
NOT_THERE = ("RendezvousConnectionError", "RendezvousTimeoutError")
"""What an agent says that did not find the engine's: it may try the same launch again."""

Told = Callable[[str], None]


def serve(home: Home, told: Told, ending: Callable[[], bool], address: str = "") -> None:
    """Come to every launch until `ending`; `told` gets a line for what happens. `address`: by which
    the other hosts reach this one, "" for the one that the way to them has.

    Raises Refused where the home is at another path than on the engine's host.
    """
    over, waits = "", False
    while not ending():
        order = noted(home)
        if order is None or order.id == over:
            if not waits:
                waits = True
                told("waiting for a launch")
            time.sleep(LOOK_SECONDS)
            continue
        waits = False
        if not _come(home, order, told, ending, address):
            over = order.id
        else:
            time.sleep(LOOK_SECONDS)


def way_to(rendezvous: str) -> str:
    """The address of this host on its way to `rendezvous`. Raises NotFound."""
    name, _, port = rendezvous.rpartition(":")
    try:
        found = socket.getaddrinfo(name.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[4])  # sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise NotFound(
            f"{rendezvous} cannot be reached: {error.strerror or error}",
            where="launch.rendezvous",
            mend="name the engine's host as this one knows it",
        ) from None


def _come(home: Home, order: Order, told: Told, ending: Callable[[], bool], address: str) -> bool:
    """One agent's life; whether it may come to the same launch again."""
    if order.home != str(home.root):
        raise Refused(
            f"on the engine's host this home is {order.home}, here {home.root}",
            mend="all hosts must see it at the same path",
        )
    told(f"launch {order.id}: {order.each} of {order.size} processes, at {order.rendezvous}")
    with tempfile.TemporaryDirectory(prefix="trainctl-") as folder:
        own = dataclasses.replace(
            order,
            parent=os.getpid(),
            socket="",
            folder=folder,
            address=address or way_to(order.rendezvous),
        )
        agent = start_agent(home, own)
        try:
            while agent.poll() is None:
                now = noted(home)
                if ending() or now is None or now.id != order.id:
                    break
                time.sleep(LOOK_SECONDS)
        finally:
            said = _end(agent)
    told(f"launch {order.id} is over" + (f": {said}" if said else ""))
    return any(word in said for word in NOT_THERE)


def _end(agent: subprocess.Popen[bytes]) -> str:
    """No process of it is left; what it said, "" where it ended well or was ended by us."""
    running = agent.poll() is None
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(agent.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    agent.kill()
    agent.wait()
    assert agent.stdout is not None and agent.stdin is not None
    with contextlib.suppress(BlockingIOError):
        report = agent.stdout.read() or b""
    for pipe in (agent.stdin, agent.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
    if running:
        return ""
    try:
        words = json.loads(report.splitlines()[-1])
    except (ValueError, IndexError):
        return f"the agent {ended(agent.returncode)}"
    if words.get("error"):
        return str(words["error"])
    if words.get("words"):
        return str(words["words"]["error"].get("message") or words["words"]["error"])
    return "" if words.get("ok") else f"rank process {words.get('pid')} {ended(words['exit'])}"
