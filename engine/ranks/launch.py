"""One launch as the engine thread has it: the agent, the ranks behind it, the link with rank 0.

Everything that goes wrong with any of them ends all of them, and comes out as one LaunchFailed that
names the rank and the host, whose own words count before what the others felt of it. When `end` or
a failure returns, no process of this host's launch is left.
Must never give two launches the same name, nor let a rank of another one in.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from engine.ranks import words
from engine.ranks.agents import drop_note, ended, start_agent, write_note
from engine.ranks.link import Json, Link, LinkBroken
from engine.ranks.order import Order
from engine.ranks.plan import Processes
from engine.ranks.words import LaunchFailed
from queue_store.failures import Cause
from queue_store.home import Home

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("trainctl.engine")
LOOK_SECONDS = 0.02
"""How soon what waits for rank 0 is told to it, and a dead process is noticed."""
REPORT_SECONDS = 10.0
"""How long to wait for who failed first, where one rank only felt another one missing."""
END_SECONDS = 10.0
STACK_SECONDS = 1.0
STARTING_FACTOR = 4
"""Starting and loading read the model of every rank: it may take so many times longer."""
SILENT_SECONDS = 5.0
"""A process that did not beat for so long is stopped, or its host is out of reach."""

Heard = Callable[[Json], None]
Idle = Callable[[], None]


def nothing() -> None:
    """While nobody has anything to say."""


class Launch:
    """Used by the engine thread alone. `begin` comes first."""

    def __init__(self, home: Home, processes: Processes) -> None:
        self.home = home
        self.processes = processes
        self.id = secrets.token_hex(8)
        self.ranks: list[Json] = []
        """{rank, host, pid, device, memory} of each, once they are there."""
        self.over: Exception | None = None
        """Why this launch is of no more use."""
        self._folder = tempfile.TemporaryDirectory(prefix="trainctl-")
        self._agent: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._known: dict[int, psutil.Process] = {}
        """The ranks of this host, by their process ids."""
        self._report = b""
        self._moved = time.monotonic()
        self._silent: list[int] = []
        self._beat = time.monotonic()

    # -- beginning ------------------------------------------------------------------------------

    def begin(self, idle: Idle = nothing) -> None:
        """Start the ranks; returns when all are there. `idle` is called meanwhile, and may raise to
        break it off. Raises LaunchFailed, or what a rank raised."""
        place = Path(self._folder.name) / "link.sock"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                os.fchmod(listener.fileno(), 0o600)
                listener.bind(str(place))
                listener.listen(4)
                listener.settimeout(LOOK_SECONDS)
                self._start(str(place))
                self._link = self._accept(listener, idle)
            self.ranks = self._wait(_unheard, idle, STARTING_FACTOR)["ranks"]
        except BaseException:
            self.kill()
            raise
        assert self._agent is not None
        with contextlib.suppress(psutil.Error):
            here = psutil.Process(self._agent.pid).children(recursive=True)
            self._known = {process.pid: process for process in here}

    def _start(self, place: str) -> None:
        wanted = self.processes
        order = Order(
            id=self.id,
            home=str(self.home.root),
            parent=os.getpid(),
            each=wanted.each,
            nodes=wanted.nodes,
            kind=wanted.kind,
            device=wanted.device,
            rendezvous=wanted.rendezvous,
            address=wanted.rendezvous.rpartition(":")[0].strip("[]") or "localhost",
            join_seconds=wanted.join_seconds,
            timeout_seconds=wanted.timeout_seconds,
            folder=self._folder.name,
            stacks=str(self.home.logs / "stacks.log"),
            socket=place,
        )
        self._agent = start_agent(self.home, order)
        if wanted.nodes > 1:
            write_note(self.home, order)
        log.info("launch %s: %d processes (%s), agent %d", self.id, *self._sizes(), self._agent.pid)

    def _sizes(self) -> tuple[int, str]:
        return self.processes.size, self.processes.kind

    def _accept(self, listener: socket.socket, idle: Idle) -> Link:
        """The link with rank 0, which says the name of the launch; others are turned away."""
        until = time.monotonic() + self._patience()
        while time.monotonic() < until:
            idle()
            if self._agent is not None and self._agent.poll() is not None:
                raise self._failed()
            try:
                channel, _ = listener.accept()
            except TimeoutError:
                continue
            link = Link(channel)
            with contextlib.suppress(LinkBroken):
                if (link.receive(REPORT_SECONDS) or {}).get("hello") == self.id:
                    return link
            link.close()
        raise self._late()

    def _patience(self) -> float:
        """Seconds in which the ranks have to come together."""
        stall = STARTING_FACTOR * self.processes.stall_seconds or 3600.0
        return stall if self.processes.nodes == 1 else self.processes.join_seconds + 60.0

    def _late(self) -> Exception:
        if self.processes.nodes == 1:
            return self._failed(_lost(Cause.HANG, "its ranks did not come up"))
        return self._failed(_lost(Cause.KILLED, self._not_all()))

    def _not_all(self) -> str:
        wanted = self.processes
        return (
            f"not all of {wanted.nodes} hosts came to {wanted.rendezvous} within"
            f" {wanted.join_seconds / 60:g} min (trainctl join on each of the others)"
        )

    # -- asking ---------------------------------------------------------------------------------

    def send(self, message: Json) -> None:
        """Raises LaunchFailed, or what a rank raised."""
        self._check()
        assert self._link is not None
        try:
            self._link.send(message)
        except LinkBroken:
            raise self._failed() from None

    def ask(
        self, message: Json, heard: Heard | None = None, idle: Idle = nothing, factor: float = 1.0
    ) -> Any:
        """What comes of an act of all ranks. `heard` gets what rank 0 tells meanwhile, `idle` is
        called while it tells nothing; it may stand `factor` stalls.

        Raises what the act raised, after which the ranks are as they were; or LaunchFailed, or
        what a rank raised that ended them all.
        """
        self.send(message)
        return self._wait(heard or _unheard, idle, factor)

    def _wait(self, heard: Heard, idle: Idle, factor: float) -> Any:
        self._moved = time.monotonic()
        while True:
            said = self._next(idle, factor)
            if "done" in said:
                return said["done"]
            if "failed" in said:
                raise words.error_of(said["failed"])
            heard(said)
            self._moved = time.monotonic()

    def _next(self, idle: Idle, factor: float) -> Json:
        """The next thing that rank 0 says of what it is at."""
        while True:
            said = self._receive(LOOK_SECONDS)
            if said is not None:
                return said
            idle()
            self._check()
            limit = factor * self.processes.stall_seconds
            if limit and time.monotonic() - self._moved > limit:
                raise self._hung(time.monotonic() - self._moved)

    def look(self) -> None:
        """Raises LaunchFailed, or what a rank raised, where a rank or the agent is no more."""
        while self.over is None:
            said = self._receive(0.0)
            if said is None:
                break
            raise self._failed(_lost(Cause.UNKNOWN, f"rank 0 said {sorted(said)} unasked"))
        self._check()

    def _receive(self, seconds: float) -> Json | None:
        """What rank 0 says, but for its signs of life."""
        self._raise()
        assert self._link is not None
        deadline = time.monotonic() + seconds
        while True:
            try:
                said = self._link.receive(max(0.0, deadline - time.monotonic()))
            except LinkBroken as error:
                raise self._failed(None, str(error)) from None
            if said is None:
                return None
            if "lost" in said:
                raise self._failed(said["lost"])
            if "alive" not in said:
                return said
            self._take_beat(said["alive"])

    def _take_beat(self, alive: Json) -> None:
        self._beat, self._silent = time.monotonic(), list(alive["silent"])
        for rank in self.ranks:  # none while they still come together
            rank["memory"] = alive["memory"].get(str(rank["rank"]), rank["memory"])

    def _check(self) -> None:
        self._raise()
        if self._agent is None or self._agent.poll() is not None:
            raise self._failed()

    def _raise(self) -> None:
        if self.over is not None:
            raise self.over

    # -- failing --------------------------------------------------------------------------------

    def _failed(self, said: Json | None = None, why: str = "") -> Exception:
        """All are ended; what to raise. `said`: what rank 0 told of it, if it did."""
        found, until = said, time.monotonic() + REPORT_SECONDS
        while (found is None or found.get("felt")) and time.monotonic() < until:
            report = self._reported()
            if report is not None:
                found = report if not report.get("felt") or found is None else found
                break
            found = self._last_words() or found
        self.kill()
        self.over = self._error(found or _lost(Cause.KILLED, why or "the link with it broke"))
        log.warning("launch %s failed: %s", self.id, self.over)
        return self.over

    def _last_words(self) -> Json | None:
        """What rank 0's watch still tells of the rank that failed."""
        if self._link is None:
            time.sleep(LOOK_SECONDS)
            return None
        try:
            said = self._link.receive(LOOK_SECONDS)
        except LinkBroken:
            self._link.close()
            self._link = None
            return None
        lost: Json | None = (said or {}).get("lost")
        return lost

    def _reported(self) -> Json | None:
        """What the agent tells of how its ranks ended, None while it runs."""
        agent = self._agent
        if agent is None:
            return _lost(Cause.KILLED, "there is no agent")
        assert agent.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while data := os.read(agent.stdout.fileno(), 1 << 16):
                self._report += data
        if agent.poll() is None:
            return None
        try:
            told = json.loads(self._report.splitlines()[-1])
        except (ValueError, IndexError):
            return _lost(Cause.KILLED, f"the agent (pid {agent.pid}) {ended(agent.returncode)}")
        if told.get("ok"):
            return _lost(Cause.UNKNOWN, "the ranks ended by themselves")
        if "error" in told:
            late = self.processes.nodes > 1 and not self.ranks
            text = f"{self._not_all()}: {told['error']}" if late else told["error"]
            return _lost(Cause.KILLED if late else Cause.UNKNOWN, text)
        if told["words"]:
            own: Json = told["words"]
            return own
        lost = _lost(Cause.KILLED, f"its process (pid {told['pid']}) {ended(told['exit'])}")
        return {**lost, "rank": told["rank"], "host": words.host()}

    def _error(self, said: Json) -> Exception:
        where = f"{self.processes.size} processes"
        if said.get("rank") is not None:
            where = f"rank {said['rank']} on {said.get('host') or words.host()}"
        if said.get("felt"):  # nobody said more: the other one's host is gone, perhaps
            return words.error_of(_felt(said["error"]), where)
        return words.error_of(said["error"], where)

    def _hung(self, seconds: float) -> Exception:
        """No rank goes on: have their stacks written, and end them."""
        silent = self._silent
        if time.monotonic() - self._beat > SILENT_SECONDS:
            silent = [0]
        for process in self._known.values():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGUSR2)
        time.sleep(STACK_SECONDS)
        text = f"no step for {seconds / 60:.2g} min; stacks are in {self.home.logs / 'stacks.log'}"
        lost = _lost(Cause.HANG, text)
        if silent:
            lost = _lost(Cause.HANG, f"its process does not move: {text}")
            named = next((one for one in self.ranks if one["rank"] == silent[0]), {})
            lost |= {"rank": silent[0], "host": named.get("host", "")}
        return self._failed(lost)

    # -- the end --------------------------------------------------------------------------------

    def end(self) -> None:
        """The ranks leave by themselves where they can; then none is left. Idempotent."""
        if self.over is None and self._link is not None and self._agent is not None:
            with contextlib.suppress(Exception):
                self._link.send({"leave": True})
                self._agent.wait(END_SECONDS)
        self.over = self.over or LaunchFailed(Cause.UNKNOWN, "the launch has ended")
        self.kill()

    def abandon(self, why: str) -> None:
        """The ranks stand in the middle of something that is not to go on: they are ended."""
        self.over = self.over or LaunchFailed(Cause.UNKNOWN, why)
        self.kill()

    def kill(self) -> None:
        """End every process of this host's launch and wait until none is left."""
        agent, self._agent = self._agent, None
        if agent is not None:
            found = dict(self._known)
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(agent.pid).children(recursive=True):
                    found[child.pid] = child
            if agent.poll() is None:
                agent.kill()
            for process in found.values():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            agent.wait()
            _, left = psutil.wait_procs([p for p in found.values() if p.is_running()], END_SECONDS)
            for process in left:  # in the driver, perhaps: it writes nowhere any more
                log.error("process %d of launch %s does not die", process.pid, self.id)
            for pipe in (agent.stdin, agent.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            if self.processes.nodes > 1:
                drop_note(self.home, self.id)
        link, self._link = self._link, None
        if link is not None:
            link.close()
        self._folder.cleanup()


def _lost(cause: str, message: str) -> Json:
    return {"error": _words(cause, message)}


def _words(cause: str, message: str) -> Json:
    return {"kind": "failed", "cause": str(cause), "message": message}


def _felt(error: Json) -> Json:
    """What a rank told that only missed another one: that may not come again."""
    message = str(error.get("message") or error.get("what"))
    late = "imed out" in message
    told = "another rank did not answer" if late else "another rank is gone"
    return _words(Cause.HANG if late else Cause.KILLED, f"{told}: {message}")


def _unheard(said: Json) -> None:
    log.debug("rank 0 said %s to nobody", sorted(said))
