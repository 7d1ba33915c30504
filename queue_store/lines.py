"""Bytes to lines to JSON values: what a line of a JSONL file holds, or why it holds nothing.

Never holds more than one line, never repairs one, and never passes over in silence what a JSON
parser would: of two equal keys in an object it would keep the last. Reads with one core at
hundreds of MB/s, so what is rare is looked at closely only where a cheap count says that it may
be there.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from queue_store.errors import DataError

MAX_LINE = 16 * 1024 * 1024
"""Longest line that is read, in bytes. A longer one is refused without being held in memory."""

MAX_VALUES = 1_000_000
"""Most JSON values in one line: a line of MAX_LINE brackets would be 400 MB of objects."""

OnBytes = Callable[[bytes], object]
"""Gets every chunk of a file as it is read (for its digest, for progress)."""

_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_NUL = "contains NUL bytes; not a text file, or one that was not fully written"
_KINDS = (
    (b"\x1f\x8b", "gzip-compressed; unpack the file first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack the file first"),
    (b"\xfd7zXZ\x00", "xz-compressed; unpack the file first"),
    (b"BZh", "bzip2-compressed; unpack the file first"),
    (b"PK\x03\x04", "a zip archive; unpack the file first"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack the file first"),
    (b"\x04\x22\x4d\x18", "lz4-compressed; unpack the file first"),
    (b"PAR1", "a Parquet file; export it as JSON lines"),
    (b"ARROW1", "an Arrow file; export it as JSON lines"),
    (b"\xff\xfe\x00\x00", "UTF-32 text; save the file as UTF-8"),
    (b"\xff\xfe", "UTF-16 text; save the file as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save the file as UTF-8"),
    (b"{\x00", "UTF-16 text; save the file as UTF-8"),
    (b"\x00{", "UTF-16 text; save the file as UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text; save the file as UTF-8"),
    (b"\x00", _NUL),
)
"""First bytes of what is no JSON lines file, and what it is instead."""

_ARRAY = re.compile(rb"\[(?:.*,)?\s*", re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NO_NUMBER = re.compile(rb"-?(?:NaN|Infinity|nan|inf)")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_RAW_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line (counted from 1) that cannot train, and the reason for a person to read."""

    line: int
    reason: str


class Document:
    """The lines of one file as JSON values, read once, from its start to its end."""

    def __init__(self, path: Path, on_bytes: OnBytes | None = None) -> None:
        self._chunks = _chunks(path, on_bytes)
        self.lines = 0
        """Lines read so far, blank ones too."""

    def __iter__(self) -> Iterator[tuple[int, Any, bool]]:
        """(line number, value or BadRow, whether a string in it may have a NUL character) of
        every line that is not blank. A byte order mark on line 1 is passed over; a file that is
        none of lines of text is one BadRow. Raises DataError where it cannot be read.
        """
        first = next(self._chunks, b"")
        if kind := _kind(first):
            yield 1, BadRow(1, kind), False
            self.drain()
            return
        for number, line in _lines(chain((first,), self._chunks)):
            self.lines = number
            if line is None:
                yield number, BadRow(number, f"longer than {MAX_LINE >> 20} MiB"), False
                continue
            if number == 1:
                line = line.removeprefix(_BOM)
            if len(line) > MAX_VALUES and (reason := _too_many(line)):
                yield number, BadRow(number, reason), False
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if not line or line.isspace():
                    continue
                if number == 1 and _ARRAY.fullmatch(line):
                    yield 1, BadRow(1, "begins a JSON array; write one object a line"), False
                    self.drain()
                    return
                yield number, BadRow(number, _why_not_json(line, error)), False
                continue
            if _may_hide_a_key(line, value) and (reason := _hidden_key(line)):
                yield number, BadRow(number, reason), False
                continue
            yield number, value, b"\\u0000" in line

    def drain(self) -> None:
        """Read on to the end, for `on_bytes` alone."""
        deque(self._chunks, maxlen=0)


def _chunks(path: Path, on_bytes: OnBytes | None) -> Iterator[bytes]:
    """The file's bytes; raises DataError where it cannot be read."""
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "no such file"
            raise DataError(what, where=str(path), mend="give a JSONL file")
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                if on_bytes is not None:
                    on_bytes(chunk)
                yield chunk
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot be read: {reason}", where=str(path)) from None


def _lines(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """(line number, bytes without the line feed); None for a line longer than MAX_LINE."""
    number = 1
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        for piece in pieces[:-1]:
            if size + len(piece) > MAX_LINE:
                yield number, None
            else:
                yield number, b"".join([*held, piece]) if held else piece
            number += 1
            held, size = [], 0
        size += len(pieces[-1])
        if size > MAX_LINE:
            held = []
        elif pieces[-1]:
            held.append(pieces[-1])
    if size > MAX_LINE:
        yield number, None
    elif held:
        yield number, b"".join(held)


def _kind(line: bytes) -> str | None:
    """What a file is that begins so, where it is none of JSON lines."""
    return next((what for magic, what in _KINDS if line.startswith(magic)), None)


def _why_not_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    """The reason that helps most: a wrong kind of file rather than a wrong comma."""
    if kind := _kind(line):
        return kind
    if b"\x00" in line:
        return _NUL
    if found := _RAW_SURROGATE.search(line):
        return f"not UTF-8: a lone surrogate at column {found.start() + 1}"
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as fault:
        return f"not UTF-8: byte 0x{line[fault.start]:02x} at column {fault.start + 1}"
    if text.startswith("\ufeff"):
        return "a byte order mark in the middle of the file; were two files joined?"
    if "depth" in error.msg or "recursion" in error.msg.lower():
        return "nested too deeply"
    # orjson counts characters; what stands there is looked up in those.
    at = text[max(0, error.pos - 1) : error.pos + 10].encode()
    if found := _NO_NUMBER.search(at):
        return f"not JSON: {found[0].decode()} is no JSON value (column {error.colno})"
    if "infinity" in error.msg:
        return f"not JSON: a number too large for a double (column {error.colno})"
    if "surrogate" in error.msg and (escape := _SURROGATE.search(line)):
        return f"not JSON: a lone surrogate, {escape[0].decode()}, near column {error.colno}"
    return f"not JSON: {error.msg} at column {error.colno}"


def _may_hide_a_key(line: bytes, value: Any) -> bool:
    """Whether an object of the line may have more keys than the parser kept.

    Every key has its colon, and all other colons stand in strings: so where the line has as many
    as its value shows, no key was lost, unless a colon is written as an escape.
    """
    if b"\\u003a" in line or b"\\u003A" in line:
        return True
    shown = line.count(b":")
    if type(value) is dict and len(value) == 1:
        # Most lines are nothing but turns of a role and a text.
        turns = value.get("messages")
        if type(turns) is list:
            left = shown - 1
            for turn in turns:
                if type(turn) is not dict or len(turn) != 2:
                    break
                text = turn.get("content")
                if type(text) is not str or "role" not in turn:
                    break
                left -= 2 + text.count(":")
            if left == 0:
                return False
    return shown != _colons(value)


def _colons(value: Any) -> int:
    """How many colons the JSON of `value` has, in strings and behind keys."""
    found = 0
    left = [value]
    while left:
        one = left.pop()
        if type(one) is str:
            found += one.count(":")
        elif type(one) is dict:
            found += len(one) + "".join(one).count(":")
            left += one.values()
        elif type(one) is list:
            left += one
    return found


def _hidden_key(line: bytes) -> str | None:
    """The reason where an object of the line has a key twice."""
    twice: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                twice.append(key)
            seen.add(key)

    try:
        json.loads(line, object_pairs_hook=look)
    except RecursionError:
        return "nested too deeply"  # orjson reads 1024 levels; a row needs a dozen
    return f"key {twice[0][:40]!r} occurs twice in one object" if twice else None


def _too_many(line: bytes) -> str | None:
    """The reason where a long line has more than MAX_VALUES values."""
    if sum(map(line.count, (b",", b"[", b"{"))) <= MAX_VALUES:
        return None
    bare = _STRING.sub(b"", line)
    if sum(map(bare.count, (b",", b"[", b"{"))) <= MAX_VALUES:
        return None
    return f"more than {MAX_VALUES:,} values in one line"
