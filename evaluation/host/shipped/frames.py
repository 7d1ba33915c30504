"""Frames of the channel, for both sides: a length of four bytes (big endian), then JSON.

A frame is an object with a `kind`. What comes before MAGIC is noise of the login (a banner, an
echo in a profile). Must never believe a length: a frame beyond LIMIT is an error.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

PROTO = 1
MAGIC = b"\0trainctl-worker\n"
LIMIT = 32 << 20
"""Bytes of the longest frame."""

Message = dict[str, Any]


class BadFrame(ValueError):
    """What came is no frame: too long, no JSON object, no kind, or cut."""


def pack(message: Message) -> bytes:
    """The frame of a message. Raises BadFrame where it is too long."""
    data = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
    if len(data) > LIMIT:
        raise BadFrame(f"a frame of {len(data):,} bytes; the limit is {LIMIT:,}")
    return len(data).to_bytes(4, "big") + data


def read(stream: BinaryIO) -> Message | None:
    """The next message of a stream; None at its end. Blocks. Raises BadFrame, OSError."""
    head = _exactly(stream, 4)
    if not head:
        return None
    size = int.from_bytes(head, "big")
    if len(head) < 4 or size > LIMIT:
        raise BadFrame("a cut frame" if len(head) < 4 else f"a frame of {size:,} bytes")
    data = _exactly(stream, size)
    if len(data) < size:
        raise BadFrame("a cut frame")
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise BadFrame("a frame that is no JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise BadFrame("a frame that is no object with a kind")
    return message


def _exactly(stream: BinaryIO, size: int) -> bytes:
    parts, left = [], size
    while left and (block := stream.read(min(left, 1 << 20))):
        parts.append(block)
        left -= len(block)
    return b"".join(parts)


class Trouble(Exception):
    """What the worker cannot do, told to the other side as `error{trouble, text}`.

    `trouble`: busy, config, digest, disk_full, no_memory, no_packages, model, store, failed.
    `names` are the files that it is about.
    """

    def __init__(self, trouble: str, text: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.trouble, self.text, self.names = trouble, text, names
