"""The link of the engine thread and rank 0: JSON objects over a Unix socket, each behind its
length in four bytes. What is no such frame ends the launch: there is nothing to go on with.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from typing import Any

from queue_store.errors import TrainctlError

Json = dict[str, Any]
LONGEST = 64 << 20
"""Bytes of a message; the longest are the fixed examples of an item, some MB."""
SEND_SECONDS = 60.0
"""How long the other side may take to read what was written."""
_BLOCK = 1 << 20


class LinkBroken(TrainctlError):
    """The other side is gone, or said what makes no sense."""

    code = "link_broken"


class Link:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel
        channel.settimeout(SEND_SECONDS)
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._rest = bytearray()
        self._sending = threading.Lock()

    def send(self, message: Json) -> None:
        """Raises LinkBroken where nobody reads it."""
        data = json.dumps(message).encode()
        if len(data) > LONGEST:
            raise LinkBroken(f"a message of {len(data)} bytes is too long for the link")
        try:
            with self._sending:
                self._socket.sendall(len(data).to_bytes(4, "big") + data)
        except OSError as error:
            raise LinkBroken(f"the link is broken: {error}") from None

    def receive(self, seconds: float | None = None) -> Json | None:
        """The next message, None where none came in that time (default: wait for ever).

        Raises LinkBroken at the end of the link, and for what is no message.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            message = self._taken()
            if message is not None:
                return message
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._poll.poll(None if left is None else 1000 * left):
                return None
            try:
                data = self._socket.recv(_BLOCK)
            except OSError as error:
                raise LinkBroken(f"the link is broken: {error}") from None
            if not data:
                raise LinkBroken("the other end of the link is closed")
            self._rest += data

    def _taken(self) -> Json | None:
        """The first message of what was read, if it is whole."""
        if len(self._rest) < 4:
            return None
        length = int.from_bytes(self._rest[:4], "big")
        if length > LONGEST:
            raise LinkBroken(f"a message of {length} bytes came over the link: too long")
        if len(self._rest) < 4 + length:
            return None
        data = bytes(self._rest[4 : 4 + length])
        del self._rest[: 4 + length]
        try:
            message = json.loads(data)
        except ValueError:
            raise LinkBroken("what came over the link is no JSON") from None
        if not isinstance(message, dict):
            raise LinkBroken("what came over the link is no message")
        return message

    def close(self) -> None:
        self._socket.close()
