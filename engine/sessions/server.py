"""engine.sock: the session protocol for faces in other processes, on one thread of its own.

Whatever a client does (rubbish, endless lines, a thousand connections, not reading) costs at
most the bounds in Limits and ends at most its own connection. The engine thread is never
entered from here: requests go through the dispatcher, answers come back through futures.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from engine.sessions.connection import Connection
from engine.sessions.session import Begins
from engine.sessions.wire import at_socket, new_socket
from queue_store import durable
from queue_store.errors import TrainctlError
from queue_store.home import Home

log = logging.getLogger("trainctl.session")
_BACKLOG = 1024


@dataclass(frozen=True)
class Limits:
    """What clients may cost: counts, bytes, seconds."""

    connections: int = 2000
    in_flight: int = 32
    """Requests of one connection that wait for an answer; further ones are not read yet."""
    write_buffer: int = 1 << 20
    """Bytes of answers not taken, above which a connection is not read any more, and …"""
    stall_seconds: float = 10.0
    """… after which it is dropped. The same time bounds the end of a line that was begun."""
    partial_bytes: int = 64 << 20
    """Unfinished lines of all connections together."""


class Server:
    """Serves one home's engine.sock from `start` to `stop`. The caller holds engine.lock, so a
    socket that lies there belongs to an engine that died, and is replaced."""

    def __init__(self, home: Home, dispatcher: Begins, limits: Limits | None = None) -> None:
        self.home = home
        self.dispatcher = dispatcher
        self.limits = limits or Limits()
        self.user = os.geteuid()
        """The only user id that is served."""
        self.partial_bytes = 0
        self.connections: dict[Connection, None] = {}
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._listener: asyncio.Server | None = None

    def start(self) -> None:
        """Bind and serve; when this returns, connections are answered. Raises TrainctlError."""
        room = _raise_file_limit()
        # A connection is an open file: the larger part stays for the training itself.
        self._most = max(1, min(self.limits.connections, room // 2))
        link = self._bind()
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(link, ready), name="trainctl-server", daemon=True
        )
        self._thread.start()
        ready.result()

    def stop(self, seconds: float = 2.0) -> None:
        """Take no more connections, give answers under way up to `seconds`, close everything and
        remove the socket. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        durable.remove_file(self.home.socket)
        asyncio.run_coroutine_threadsafe(self._end(seconds), self._loop)
        thread.join(seconds + 5)

    # -- starting and ending -------------------------------------------------------------------

    def _bind(self) -> socket.socket:
        durable.make_folder(self.home.store)
        durable.remove_file(self.home.socket)
        link = new_socket()
        try:
            # The mode of the file that bind makes is that of the socket's inode: unlike a
            # umask around bind this does not touch what other threads create meanwhile.
            os.fchmod(link.fileno(), 0o600)
            at_socket(self.home, link.bind)
            link.listen(_BACKLOG)
        except OSError as error:
            link.close()
            raise TrainctlError(
                f"the engine's socket cannot be opened: {error.strerror}",
                where=str(self.home.socket),
            ) from None
        return link

    def _run(self, link: socket.socket, ready: Future[None]) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(_log_quietly)
        try:
            self._listener = self._loop.run_until_complete(
                self._loop.create_unix_server(lambda: Connection(self), sock=link, backlog=_BACKLOG)
            )
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _end(self, seconds: float) -> None:
        if self._listener is not None:
            self._listener.close()
        deadline = self._loop.time() + seconds
        while any(c.busy for c in self.connections) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.drop("the engine ends")
        await asyncio.sleep(0)
        self._loop.stop()

    # -- what connections ask of their server; on the loop's thread ------------------------------

    def welcome(self, connection: Connection) -> bool:
        """Whether a new connection may stay. At the limit the one that was silent longest, with
        nothing under way, makes room: a face that polls is never that one."""
        if len(self.connections) >= self._most:
            silent = [c for c in self.connections if not c.busy]
            if not silent:
                return False
            min(silent, key=lambda c: c.heard).drop("silent, and others want to connect")
        self.connections[connection] = None
        return True

    def when_done(self, answer: Future[Any], then: Any) -> None:
        """Call `then` on the loop's thread when the answer is there."""

        def done(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(then)

        answer.add_done_callback(done)


def _log_quietly(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would print goes to the log: the terminal belongs to the console."""
    log.warning("socket: %s", context.get("message"), exc_info=context.get("exception"))


def _raise_file_limit(wanted: int = 8192) -> int:
    """Raise the soft limit of open files (often 1,024) as far as allowed; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return wanted if soft == resource.RLIM_INFINITY else soft
