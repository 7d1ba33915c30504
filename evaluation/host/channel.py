"""The channel to a worker: one child process (ssh, or the worker itself), frames both ways.

A thread reads frames, one keeps the tail of stderr, one pings and ends the child where nothing
was heard for too long. A failure is raised by whoever waits next, once and by name. The child
gets the lowest priority and dies with the thread that opened the channel, which must outlive it.
"""

from __future__ import annotations

import contextlib
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from evaluation.host.errors import HostFailure, ended
from evaluation.host.pace import Limit, Pace
from evaluation.host.shipped.frames import MAGIC, BadFrame, Message, pack, read
from queue_store import programs
from queue_store.safe import safe_line

NOISE_LIMIT = 64 << 10
"""Bytes that a login may say before the worker's first word."""
TAIL = 8 << 10
"""Bytes of stderr that are kept."""
LOOK_SECONDS = 0.2
END_SECONDS = 5.0


class Channel:
    """`first` goes to the child before any frame; `where` and `host` name it in errors.

    `start` is how long the first word may take, `silence` how long nothing may be heard after it,
    both in seconds; `ping` how often it is asked; `limit` is for a child of this machine (pace).
    Not for several threads to receive from.
    """

    def __init__(
        self,
        command: Sequence[str],
        first: bytes,
        *,
        where: str,
        host: str,
        start: float = 40.0,
        silence: float = 45.0,
        ping: float = 5.0,
        limit: Limit | None = None,
    ) -> None:
        self.where, self.host = where, host
        self.silence, self.ping = silence, ping
        self.closed = threading.Event()
        self.started = threading.Event()
        self._failure: HostFailure | None = None
        self._arrived: queue.Queue[Message | None] = queue.Queue()
        self._writing = threading.Lock()
        self._tail = b""
        self._noise = b""
        self.child = subprocess.Popen(
            # What may stand stopped when we die hears nothing but SIGKILL.
            programs.lowered(command, signal.SIGKILL if limit else signal.SIGTERM),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=programs.environment(),
            bufsize=0,
        )
        self._pace = Pace(self.child, limit) if limit else None
        self._heard = time.monotonic()
        self._deadline = start
        self._threads = [
            threading.Thread(target=target, name=f"channel-{name}", daemon=True)
            for name, target in (
                ("errors", self._keep_errors),
                ("read", self._read),
                ("watch", self._watch),
                ("ping", self._pings),
            )
        ]
        for thread in self._threads:
            thread.start()
        self._write(first)

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: Message) -> None:
        """Send a frame. Raises HostFailure for one that is too large; a channel that has ended
        is told by `receive`, after every frame that arrived before."""
        try:
            data = pack(message)
        except BadFrame as error:
            raise HostFailure("config", str(error), where=self.where) from None
        self._write(data)

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next frame that is no pong; None where none comes within `timeout` seconds.

        Raises HostFailure: for the end of the channel, and for an error that the worker tells.
        """
        try:
            message = self._arrived.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            self._arrived.put(None)
            assert self._failure is not None
            raise self._failure
        if message["kind"] == "error":
            names = [str(name) for name in message.get("names", ())]
            what = str(message.get("text", ""))
            raise HostFailure(
                str(message.get("trouble", "failed")), what, where=self.where, names=names
            )
        return message

    def close(self) -> None:
        """Say goodbye and end the child; never raises. Idempotent."""
        if self._pace is not None:
            self._pace.close()
        if not self.closed.is_set():
            self.closed.set()
            assert self.child.stdin is not None
            with contextlib.suppress(OSError, ValueError):
                # To a peer that stands still a word would block, and the end of input is enough.
                if select.select([], [self.child.stdin], [], 0)[1] and self._writing.acquire(False):
                    self.child.stdin.write(pack({"kind": "bye"}))
                self.child.stdin.close()
            try:
                self.child.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._kill()
        self._kill()
        for thread in self._threads:
            thread.join(END_SECONDS)
        for pipe in (self.child.stdout, self.child.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def complaints(self) -> str:
        """The tail of what the other side said on stderr; not fit for a terminal as it is."""
        return self._tail.decode("utf-8", "replace")

    def _write(self, data: bytes) -> None:
        assert self.child.stdin is not None
        view = memoryview(data)
        try:
            with self._writing:
                while view:
                    view = view[self.child.stdin.write(view) :]
        except (OSError, ValueError):
            pass  # the reader sees the end too, and says why

    def _kill(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()

    def _fail(self, failure: HostFailure) -> None:
        if self._failure is None:
            self._failure = failure
        self._arrived.put(None)

    # -- threads ---------------------------------------------------------------------------

    def _read(self) -> None:
        assert self.child.stdout is not None
        try:
            if self._first_word(self.child.stdout):
                self.started.set()
                self._deadline = self.silence
                while (message := read(self.child.stdout)) is not None:  # type: ignore[arg-type]
                    self._heard = time.monotonic()
                    if message["kind"] != "pong" or "echo" in message:
                        self._arrived.put(message)
        except BadFrame as error:
            self._fail(HostFailure("protocol", f"the worker sent {error}", where=self.where))
            self._kill()
            return
        except (OSError, ValueError):
            pass
        try:
            status = self.child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            status = self.child.returncode
        self._threads[0].join(END_SECONDS)
        self._fail(
            ended(
                status,
                self.complaints,
                started=self.started.is_set(),
                where=self.where,
                host=self.host,
            )
        )

    def _first_word(self, stream: IO[bytes]) -> bool:
        """Skip what the login says before the worker's first word; False at an end before it."""
        while not self._noise.endswith(MAGIC):
            byte = stream.read(1)
            if not byte:
                return False
            self._noise += byte
            if len(self._noise) > NOISE_LIMIT:
                shown = safe_line(self._noise[:60].decode("utf-8", "replace"))
                raise BadFrame(f"no word of its own, but {shown!r} and more")
        self._heard = time.monotonic()
        return True

    def _keep_errors(self) -> None:
        assert self.child.stderr is not None
        try:
            while block := self.child.stderr.read(1 << 16):
                self._tail = (self._tail + block)[-TAIL:]
        except (OSError, ValueError):
            pass

    def _watch(self) -> None:
        """End a child that is silent for too long: a frozen peer, a dead link."""
        while not self.closed.wait(min(LOOK_SECONDS, self._deadline / 4)):
            if self.child.poll() is not None:
                return
            if time.monotonic() - self._heard > self._deadline:
                what = f"nothing was heard of the host for {self._deadline:g} s"
                kind = "frozen" if self.started.is_set() else "unreachable"
                self._fail(HostFailure(kind, what, where=self.where))
                self._kill()
                return

    def _pings(self) -> None:
        while not self.closed.wait(self.ping) and self._failure is None:
            if self.started.is_set():
                self._write(pack({"kind": "ping"}))


def expect(channel: Channel, kind: str, timeout: float, on_other: Any = None) -> Message:
    """The next frame of that kind; others go to `on_other` where it is given. Raises HostFailure,
    also where it does not come within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        message = channel.receive(max(0.0, deadline - time.monotonic()))
        if message is None:
            what = f"no {kind} within {timeout:g} s"
            raise HostFailure("frozen", what, where=channel.where)
        if message["kind"] == kind:
            return message
        if on_other is not None:
            on_other(message)
