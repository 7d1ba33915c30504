"""One client of engine.sock: its bytes in, its answers out, and what it may not do.

Runs on the server's loop and never blocks it. Requests of one connection are worked on at the
same time, so answers come in the order in which they are ready, told apart by id.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from engine.faults import Busy, Internal, TooLarge
from engine.messages import MAX_REQUEST
from engine.sessions.wire import BadRequest, Request, error_line, parse, result_line
from queue_store.errors import NoEngine, TrainctlError

if TYPE_CHECKING:
    from engine.sessions.server import Server

log = logging.getLogger("trainctl.session")
_BATCH = 64
"""Requests taken from one connection before the others get their turn."""


class Connection(asyncio.Protocol):
    """Made by asyncio for every accepted connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.heard = 0.0
        """Loop time of the last bytes."""
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._searched = 0
        self._in_flight = 0
        self._full = False
        """The client does not take its answers: read nothing more of it."""
        self._ended = False
        """The client has sent its last byte."""
        self._discarding = False
        """An oversized line is being thrown away; the connection ends with it."""
        self._pumping = False
        self._stall: asyncio.TimerHandle | None = None
        self._partial: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer or an answer for being taken."""
        return self._in_flight > 0 or self._transport.get_write_buffer_size() > 0

    def drop(self, why: str) -> None:
        """End this connection at once."""
        log.info("a client was dropped: %s", why)
        self.server.connections.pop(self, None)
        self._transport.abort()

    # -- called by asyncio ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.heard = self._loop.time()
        link = transport.get_extra_info("socket")
        credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        user = struct.unpack("3i", credentials)[1]
        if user != self.server.user:
            self.drop(f"user {user} is not the engine's")
            return
        transport.set_write_buffer_limits(high=self._limits.write_buffer)
        if not self.server.welcome(self):
            transport.write(error_line(None, Busy("the engine serves too many connections")))
            transport.close()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self._discarding:
            if b"\n" in data:
                self._transport.close()
            return
        self.server.partial_bytes += len(data)
        self._buffer += data
        if self.server.partial_bytes > self._limits.partial_bytes:
            self.drop("unfinished lines take too much memory")
            return
        self._pump()

    def eof_received(self) -> bool:
        self._ended = True
        self._pump()
        return True  # keep writing: answers are still owed

    def pause_writing(self) -> None:
        self._full = True
        self._transport.pause_reading()
        self._stall = self._loop.call_later(
            self._limits.stall_seconds, self.drop, "it does not read its answers"
        )

    def resume_writing(self) -> None:
        self._full = False
        if self._stall is not None:
            self._stall.cancel()
        self._pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.server.connections.pop(self, None)
        self.server.partial_bytes -= len(self._buffer)
        self._buffer.clear()
        for timer in (self._stall, self._partial):
            if timer is not None:
                timer.cancel()

    # -- lines in ------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Take the lines that have come, as far as the bounds allow."""
        if self._pumping or self._transport.is_closing():
            return
        self._pumping = True
        for _ in range(_BATCH):
            if self._full or self._in_flight >= self._limits.in_flight:
                break
            line = self._next_line()
            if line is None:
                break
            self._take(line)
        else:
            # More lines than a batch: let the other connections have their turn first.
            self._transport.pause_reading()
            self._pumping = False
            self._loop.call_soon(self._pump)
            return
        self._pumping = False
        self._settle()

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[: end + 1])
        self._consume(end + 1)
        return line

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        self._searched = 0
        self.server.partial_bytes -= count
        self._stop_partial()

    def _stop_partial(self) -> None:
        if self._partial is not None:
            self._partial.cancel()
            self._partial = None

    def _settle(self) -> None:
        """After a pump: read on or not, and what becomes of a line that has no end yet."""
        if self._transport.is_closing():
            return
        held = self._full or self._in_flight >= self._limits.in_flight
        if held:
            # What is not read cannot be blamed for having no end.
            self._stop_partial()
            self._transport.pause_reading()
            return
        if len(self._buffer) > MAX_REQUEST:
            self._refuse_oversized()
        elif self._ended:
            if self._buffer:
                self._consume(len(self._buffer))
                self._send(error_line(None, BadRequest("the last line has no end")))
            if not self._in_flight:
                self._transport.close()
        else:
            if self._buffer and self._partial is None:
                self._partial = self._loop.call_later(
                    self._limits.stall_seconds, self.drop, "it does not end its line"
                )
            self._transport.resume_reading()

    def _refuse_oversized(self) -> None:
        """Answer, then throw the rest of the line away before closing: closed at once, the
        client would get a reset instead of the answer."""
        self._consume(len(self._buffer))
        self._discarding = True
        self._send(error_line(None, _too_large()))
        self._partial = self._loop.call_later(self._limits.stall_seconds, self._transport.close)
        self._transport.resume_reading()

    # -- requests and answers ------------------------------------------------------------------

    def _take(self, line: bytes) -> None:
        if len(line) > MAX_REQUEST:
            self._send(error_line(None, _too_large()))
            self._transport.close()
            return
        try:
            request = parse(line)
        except BadRequest as error:
            self._send(error_line(error.id, error))
            return
        try:
            answer = self.server.dispatcher.begin(request.command, request.arguments)
        except TrainctlError as error:
            self._send(error_line(request.id, error))
            return
        except Exception as error:
            self._send(error_line(request.id, _fault(request, error)))
            return
        if answer.done():
            self._send(_line(request, answer))
            return
        self._in_flight += 1
        self.server.when_done(answer, lambda: self._done(request, answer))

    def _done(self, request: Request, answer: Future[Any]) -> None:
        self._in_flight -= 1
        if not self._transport.is_closing():
            self._send(_line(request, answer))
            self._pump()

    def _send(self, line: bytes) -> None:
        self._transport.write(line)


def _line(request: Request, answer: Future[Any]) -> bytes:
    """The response to a request whose future is done."""
    if answer.cancelled():
        return error_line(request.id, NoEngine("the engine has ended"))
    error = answer.exception()
    try:
        if error is None:
            return result_line(request.id, answer.result())
        if isinstance(error, TrainctlError):
            return error_line(request.id, error)
    except Internal as unwritable:
        error = unwritable
    return error_line(request.id, _fault(request, error))


def _fault(request: Request, error: BaseException) -> Internal:
    log.error("%s failed", request.command, exc_info=error)
    return Internal(f"{request.command} failed: {error}", mend="the engine's log tells more")


def _too_large() -> TooLarge:
    return TooLarge(f"the line is longer than {MAX_REQUEST} bytes", mend="the connection ends here")
