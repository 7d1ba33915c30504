"""Lines of the session protocol: bytes to requests, answers to bytes. Pure functions.

Whatever bytes come in, `parse` returns a request or raises Malformed; it never raises anything
else, and never takes longer than its input is long.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from engine.faults import Internal, Malformed, error_object
from queue_store.errors import TrainctlError
from queue_store.home import Home

RequestId = int | str | None


@dataclass(frozen=True)
class Request:
    """A well-formed line; its arguments are not checked yet."""

    id: RequestId
    command: str
    arguments: dict[str, Any]


class BadRequest(Malformed):
    """Malformed, with the request's id as far as it could be read (else None)."""

    def __init__(self, what: str, id: RequestId = None) -> None:
        super().__init__(what, mend='write {"id": 1, "command": "snapshot"}, one object a line')
        self.id = id


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= 100
    return isinstance(value, int) and not isinstance(value, bool)


def parse(line: bytes | bytearray) -> Request:
    """The request on a line. Raises BadRequest."""
    try:
        value = orjson.loads(line)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("the line is JSON but no object")
    id = value.pop("id", None)
    if not _is_id(id):
        raise BadRequest("id must be an integer or a string of at most 100 characters")
    command = value.pop("command", None)
    if not isinstance(command, str):
        raise BadRequest("command must be a string", id)
    return Request(id, command, value)


def _readable(value: Any) -> Any:
    """`value` with strings that UTF-8 can carry: a file name may hold bytes that are none."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(_readable(key)): _readable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(entry) for entry in value]
    return value


def encode(value: Any) -> bytes:
    """A value as one line, newline included. Raises Internal if it is not JSON."""
    for attempt in (lambda: value, lambda: _readable(value)):
        try:
            return orjson.dumps(attempt()) + b"\n"
        except (TypeError, UnicodeError) as error:
            reason = error
    raise Internal(f"the answer is not JSON: {reason}")


def result_line(id: RequestId, result: Any) -> bytes:
    return encode({"id": id, "ok": True, "result": result})


def error_line(id: RequestId, error: TrainctlError) -> bytes:
    return encode({"id": id, "ok": False, "error": error_object(error)})


def at_socket(home: Home, act: Callable[[str], None]) -> None:
    """Call `act` (bind, connect) with a path of engine.sock that is never too long.

    A socket address holds 107 bytes and a home's path may be longer, so the folder is opened
    and named through /proc. Raises what `act` raises, and FileNotFoundError without the folder.
    """
    folder = os.open(home.store, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        act(f"/proc/self/fd/{folder}/{home.socket.name}")
    finally:
        os.close(folder)


def new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
