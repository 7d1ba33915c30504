"""The session over engine.sock.

One reader thread matches answers to requests by id, so that a face's poll is answered while its
pause still waits for the step. Light to import: the command line starts in milliseconds.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import threading
from concurrent.futures import Future
from typing import Any

import orjson

from engine.faults import NoAnswer, TooLarge, error_from
from engine.messages import MAX_REQUEST, MAX_RESPONSE, PROTOCOL, spelled
from engine.sessions.session import wait
from engine.sessions.wire import at_socket, new_socket
from queue_store.errors import NoEngine, Refused, TrainctlError, UsageError
from queue_store.home import Home

SEND_SECONDS = 10
_START = "start it: trainctl, or trainctl --daemon --detach"


def connect(home: Home, timeout: float = 1.0) -> SocketSession:
    """A session with the engine of `home`; at most `timeout` seconds for each of connecting and
    the engine's hello.

    Raises NoEngine (no socket, or nobody behind it), Refused (another user's engine),
    ProtocolMismatch, NoAnswer (it is there and does not answer).
    """
    link = new_socket()
    try:
        # A blocking connect that the kernel gives up: with Python's own timeout, one to an engine
        # whose backlog is full for a moment would fail at once.
        _patience(link, timeout)
        at_socket(home, link.connect)
    except OSError as error:
        link.close()
        raise _unreachable(home, error) from None
    session = SocketSession(link, str(home.root))
    try:
        session.hello = session.request("hello", timeout=timeout, protocol=PROTOCOL)
    except TrainctlError:
        session.close()
        raise
    return session


def _patience(link: socket.socket, seconds: float) -> None:
    """How long connecting and sending may block; receiving has no limit."""
    whole = int(seconds)
    limit = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _unreachable(home: Home, error: OSError) -> TrainctlError:
    where = str(home.root)
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR, errno.ECONNRESET):
        return NoEngine("no engine is running for this home", where=where, mend=_START)
    if isinstance(error, PermissionError):
        return Refused("the engine belongs to another user", where=where)
    if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
        return NoAnswer("the engine does not accept connections", where=where)
    return NoEngine(f"the engine cannot be reached: {error.strerror}", where=where, mend=_START)


class SocketSession:
    """A session with an engine in another process. Made by `connect`."""

    local = False

    def __init__(self, link: socket.socket, where: str) -> None:
        self.hello: dict[str, Any] = {}
        """The engine's answer to hello: protocol, pid, mode, home."""
        self._link = link
        self._where = where
        self._ids = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._lost: TrainctlError | None = None
        self._guard = threading.Lock()
        """Over _waiting and _lost: no request may slip in after the reader gave up."""
        self._sending = threading.Lock()
        # An engine that has stopped reading must not hold a face for ever.
        _patience(link, SEND_SECONDS)
        self._reader = threading.Thread(target=self._read, name="trainctl-session", daemon=True)
        self._reader.start()

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """See Session.request."""
        answer: Future[Any] = Future()
        number = next(self._ids)
        line = _line({**spelled(arguments), "id": number, "command": command})
        if len(line) > MAX_REQUEST:
            raise TooLarge(f"{command}: {len(line)} bytes, a request has at most {MAX_REQUEST}")
        with self._guard:
            if self._lost is not None:
                raise _again(self._lost)
            self._waiting[number] = answer
        try:
            try:
                with self._sending:
                    self._link.sendall(line)
            except OSError:
                # Half a line may have gone out: nothing after it would be understood.
                self._give_up(self._ended())
            return wait(command, answer, timeout)
        finally:
            with self._guard:
                self._waiting.pop(number, None)

    def close(self) -> None:
        """See Session.close."""
        self._give_up(NoEngine("this session was closed", where=self._where))
        if threading.current_thread() is not self._reader:
            self._reader.join(timeout=1)

    def _ended(self) -> NoEngine:
        return NoEngine("the engine has ended", where=self._where, mend=_START)

    def _give_up(self, why: TrainctlError) -> None:
        """Fail all requests, now and later; the first reason stays. Wakes the reader."""
        with self._guard:
            if self._lost is not None:
                return
            self._lost = why
            left, self._waiting = self._waiting, {}
        for answer in left.values():
            answer.set_exception(_again(why))
        try:
            self._link.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise

    def _read(self) -> None:
        """The reader thread: lines of answers until the engine closes."""
        why: TrainctlError = self._ended()
        buffer = bytearray()
        try:
            while data := self._link.recv(1 << 18):
                seen = len(buffer)
                buffer += data
                while (end := buffer.find(b"\n", seen)) >= 0:
                    self._answered(orjson.loads(memoryview(buffer)[: end + 1]))
                    del buffer[: end + 1]
                    seen = 0
                if len(buffer) > MAX_RESPONSE:
                    why = NoEngine("the engine sent a line without an end", where=self._where)
                    break
        except orjson.JSONDecodeError:
            why = NoEngine("what answers there is no engine of trainctl", where=self._where)
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EBADF, errno.EPIPE):
                why = NoEngine(f"the connection broke: {os.strerror(error.errno or 0)}")
        self._give_up(why)
        self._link.close()

    def _answered(self, answer: Any) -> None:
        if not isinstance(answer, dict):
            return
        number, error = answer.get("id"), answer.get("error")
        if number is None:  # about the connection, not about a request
            self._give_up(error_from(error if isinstance(error, dict) else {}))
            return
        with self._guard:
            waiting = self._waiting.pop(number, None)
        if waiting is None:  # the asker's patience ended before
            return
        if answer.get("ok"):
            waiting.set_result(answer.get("result"))
        else:
            waiting.set_exception(error_from(error if isinstance(error, dict) else {}))


def _line(request: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(request) + b"\n"
    except TypeError as error:  # a path that is no UTF-8: changed on the way, it would be another
        raise UsageError(f"{request['command']}: {error}") from None


def _again(error: TrainctlError) -> TrainctlError:
    """A copy to raise: the same object raised at every poll would grow its traceback for ever."""
    return type(error)(error.what, where=error.where, mend=error.mend)
