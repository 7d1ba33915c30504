"""The rows of a JSONL file: which lines can train, and why the others cannot.

Reads messages rows, prompt/response rows of older files and `text` rows (formats F1, F3), a
chunk at a time. It must never change a file, never hold more of it than one line, never guess
at broken content, and never import torch or numpy: intake runs it in the console's process.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from blake3 import blake3

from queue_store.errors import DataError

MAX_LINE = 16 * 1024 * 1024
"""Longest line that is read, in bytes. A longer one is refused without being held in memory."""

ROLES = ("system", "user", "assistant")
CHAT, COMPLETION = "chat_sft_v1", "completion_v1"
SPECS = (CHAT, "syllo_v1", COMPLETION)
"""Known values of `schema_id`; anything else is refused."""

PAIRS = (
    ("prompt", "response"),
    ("prompt", "completion"),
    ("instruction", "output"),
    ("user_prompt", "assistant_response"),
)
"""Keys of rows that older tools wrote: (user's turn, assistant's turn)."""

OnBytes = Callable[[bytes], object]
"""Gets every chunk of a file as it is read (for its digest, for progress)."""

_CHUNK = 1 << 20
_BADGE = re.compile(r"train_(.+)_level(\d+)_(\d+)_(\d{8}_\d{6})\.jsonl")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `role` is one of ROLES. `tool_calls` (as the file has them) are an assistant's,
    `name` is the tool's that answered ("" where the file does not say)."""

    role: str
    content: str
    tool_calls: tuple[dict[str, Any], ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line that can train: `messages` of a chat, or the `text` of a completion row."""

    line: int
    messages: tuple[Message, ...] | None
    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)
    tools: tuple[dict[str, Any], ...] = ()
    """The tools that the conversation declares, for the template."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line (counted from 1) that cannot train, and the reason for a person to read."""

    line: int
    reason: str


@dataclass(frozen=True)
class QuickCheck:
    """What one pass over a file found. `accepted == 0` means that nothing in it can train.

    `lines` counts rows (no header, no blank lines): accepted + `rejected_count`. `rejected`
    holds the first of them, at least one where nothing was accepted. `digest` is the blake3
    of the bytes, `size` their number.
    """

    spec: str
    lines: int
    accepted: int
    rejected: tuple[BadRow, ...]
    rejected_count: int
    digest: str
    size: int


class _Tally:
    """Digest and size of the bytes that have been read."""

    def __init__(self) -> None:
        self.hasher = blake3()
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self.hasher.update(chunk)
        self.size += len(chunk)


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


def _why_not_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    """The reason that helps most: a wrong kind of file rather than a wrong comma."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 text; save the file as UTF-8"
    if line.startswith(b"\x1f\x8b"):
        return "gzip-compressed; unpack the file first"
    if b"\x00" in line:
        return "contains NUL bytes; not a text file, or one that was not fully written"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as fault:
        return f"not UTF-8: byte 0x{line[fault.start]:02x} at column {fault.start + 1}"
    if "depth" in error.msg or "recursion" in error.msg.lower():
        return "nested too deeply"
    return f"not JSON: {error.msg} at column {error.colno}"


def _no_text(name: str, value: object) -> str | None:
    """Why `value` of field `name` cannot be content; None where it can."""
    if not isinstance(value, str):
        kind = {type(None): "null", dict: "an object", list: "a list", bool: "a boolean"}
        return f"{name} is {kind.get(type(value), 'a number')}, not a string"
    if "\x00" in value:
        return f"{name} contains a NUL character"
    return None


def _turns(value: object) -> list[tuple[str, str]] | str:
    """(role, content) of every message, or the reason why they cannot train."""
    if not isinstance(value, list):
        return "messages is not a list"
    if not value:
        return "messages is empty"
    turns: list[tuple[str, str]] = []
    roles = set()
    for index, message in enumerate(value):
        if not isinstance(message, dict):
            return f"messages[{index}] is not an object"
        role = message.get("role")
        content = message.get("content")
        if role not in ROLES:
            if role is None:
                return f"messages[{index}] has no role"
            shown = role[:40] if isinstance(role, str) else role.__class__.__name__
            return f"messages[{index}].role is {shown!r}; known: {', '.join(ROLES)}"
        if content is None and "content" not in message:
            return f"messages[{index}] has no content"
        if not isinstance(content, str) or "\x00" in content:
            return _no_text(f"messages[{index}].content", content) or ""
        roles.add(role)
        turns.append((role, content))
    for needed in ("user", "assistant"):
        if needed not in roles:
            return f"messages has no {needed} turn"
    return turns


def _content(row: object) -> list[tuple[str, str]] | str | BadRow:
    """The turns of a chat row, the text of a completion row, or a BadRow (its line not set)."""
    if not isinstance(row, dict):
        return BadRow(0, "not a JSON object")
    spec = row.get("schema_id")
    if spec is not None and spec not in SPECS:
        return BadRow(0, f"schema_id {str(spec)[:40]!r} is unknown; known: {', '.join(SPECS)}")
    turns: list[tuple[str, str]] | None = None
    if "messages" in row:
        found = _turns(row["messages"])
        if isinstance(found, str):
            return BadRow(0, found)
        turns = found
    else:
        for user, assistant in PAIRS:
            if user in row and assistant in row:
                for name in (user, assistant):
                    if reason := _no_text(name, row[name]):
                        return BadRow(0, reason)
                turns = [("user", row[user]), ("assistant", row[assistant])]
                break
    if turns is not None:
        system = row.get("system_prompt")
        if isinstance(system, str) and system and turns[0][0] != "system":
            turns.insert(0, ("system", system))
        return turns
    if "text" in row:
        reason = _no_text("text", row["text"])
        if reason is None and not row["text"]:
            reason = "text is empty"
        return BadRow(0, reason) if reason else str(row["text"])
    for user, assistant in PAIRS:
        if user in row:
            return BadRow(0, f"{user} without {assistant}")
    return BadRow(0, "has no messages, no prompt and response, and no text")


Found = tuple[int, list[tuple[str, str]] | str | BadRow, dict[str, Any]]


def _scan(path: Path, on_bytes: OnBytes | None = None) -> Iterator[Found | str]:
    """Every row's content; first the file's schema_id where line 1 is a header."""
    chunks = _chunks(path, on_bytes)
    rows = number = 0
    for number, line in _lines(chunks):
        if line is None:
            rows += 1
            yield number, BadRow(number, f"longer than {MAX_LINE >> 20} MiB"), {}
            continue
        if number == 1 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
        if not line or line.isspace():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            rows += 1
            yield number, BadRow(number, _why_not_json(line, error)), {}
            continue
        if number == 1 and isinstance(row, dict) and "schema_id" in row and "messages" not in row:
            found = _content(row)
            if row["schema_id"] not in SPECS:
                # Deny by default: what an unknown spec means by its rows is not for us to guess.
                yield number, BadRow(1, found.reason if isinstance(found, BadRow) else ""), {}
                deque(chunks, maxlen=0)  # the digest covers the whole file
                return
            if isinstance(found, BadRow):
                yield str(row["schema_id"])
                continue
        rows += 1
        found = _content(row)
        if isinstance(found, BadRow):
            yield number, BadRow(number, found.reason), {}
        else:
            yield number, found, row
    if not rows:
        yield 1, BadRow(1, "the file has no rows" if number else "the file is empty"), {}


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    """The row's metadata; `skill`, `level` and `type` may also stand beside it (formats F1)."""
    given = row.get("metadata")
    metadata = dict(given) if isinstance(given, dict) else {}
    for key in ("skill", "level", "type"):
        if key in row:
            metadata.setdefault(key, row[key])
    return metadata


def read_rows(path: Path, *, on_bytes: OnBytes | None = None) -> Iterator[Row | BadRow]:
    """Every row of the file in order, as a Row, or as a BadRow with its reason.

    `on_bytes` sees every chunk as it is read: a digest or progress costs no second pass.

    A header (line 1 with schema_id and no content) and blank lines are passed over; a byte
    order mark, CRLF and a last line without a line feed are fine. A file with no rows gives one
    BadRow. Memory: one line. Raises DataError where the file cannot be read.
    """
    for found in _scan(path, on_bytes):
        if isinstance(found, str):
            continue
        number, content, row = found
        if isinstance(content, BadRow):
            yield content
        elif isinstance(content, str):
            yield Row(number, None, content, _metadata(row))
        else:
            turns = tuple(Message(role, text) for role, text in content)
            yield Row(number, turns, None, _metadata(row))


def quick_check(path: Path, *, limit: int = 100) -> QuickCheck:
    """Counts, spec and digest of a file in one pass; `rejected` holds at most `limit` rows.

    Raises DataError where the file cannot be read; everything else is in the result.
    """
    tally = _Tally()
    declared = ""
    chats = texts = bad = 0
    rejected: list[BadRow] = []
    for found in _scan(path, tally.add):
        if isinstance(found, str):
            declared = found
            continue
        content = found[1]
        if isinstance(content, BadRow):
            bad += 1
            if len(rejected) < max(1, limit):
                rejected.append(content)
        elif isinstance(content, str):
            texts += 1
        else:
            chats += 1
    kinds = "mixed" if chats and texts else COMPLETION if texts else CHAT
    return QuickCheck(
        spec=declared or kinds,
        lines=chats + texts + bad,
        accepted=chats + texts,
        rejected=tuple(rejected),
        rejected_count=bad,
        digest=tally.hasher.hexdigest(),
        size=tally.size,
    )


def _normal(text: str) -> str:
    """One form for texts that differ only in white space or in how accents are composed."""
    text = " ".join(text.split())
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def messages_digest(messages: Sequence[Message]) -> str:
    """`prompt_digest` of a conversation that is not a file's row."""
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    prompt = messages[: answers[-1]] if answers else messages
    parts = [
        f"{message.role}\x1f{_normal(message.content)}\x1e"
        for message in prompt
        if message.role != "assistant"
    ]
    return blake3("".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def prompt_digest(row: Row) -> str:
    """blake3 hex of the system and user turns before the last assistant answer, of the whole
    text for a completion row; white space is normalised. Equal digests ask the same: rows whose
    digest is that of an evaluation row never train (D14).
    """
    if row.messages is not None:
        return messages_digest(row.messages)
    text = f"text\x1f{_normal(row.text or '')}\x1e"
    return blake3(text.encode("utf-8", "surrogatepass")).hexdigest()


def badge(name: str) -> dict[str, Any] | None:
    """`train_SKILL_levelN_COUNT_YYYYMMDD_HHMMSS.jsonl` in its parts: skill, level, count,
    timestamp; None for any other name.
    """
    match = _BADGE.fullmatch(name)
    if match is None:
        return None
    skill, level, count, timestamp = match.groups()
    return {"skill": skill, "level": int(level), "count": int(count), "timestamp": timestamp}
