"""The rows of a JSONL file: which lines can train, and why the others cannot.

`lines` makes JSON values of the bytes, `specs` says what a row must have; here the two meet, a
chunk at a time. It must never change a file, never hold more of it than one line, never guess
at broken content, and never import torch or numpy: intake runs it in the console's process.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from queue_store.lines import MAX_LINE as MAX_LINE
from queue_store.lines import BadRow, Document, OnBytes
from queue_store.specs import (
    Message,
    header_fault,
    is_header,
    metadata_of,
    row_fault,
    spec_of,
    tools_of,
    turns_of,
)

MIXED = "mixed"
"""`QuickCheck.spec` of a file whose rows are of several specs."""

_BADGE = re.compile(r"train_(.+)_level(\d+)_(\d+)_(\d{8}_\d{6})\.jsonl")


@dataclass(frozen=True, slots=True)
class Row:
    """A line that can train: `messages` of a chat, or the `text` of a completion row."""

    line: int
    messages: tuple[Message, ...] | None
    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)
    tools: tuple[dict[str, Any], ...] = ()
    """The tools that the conversation declares, for the template."""


@dataclass(frozen=True)
class QuickCheck:
    """What one pass over a file found. `accepted == 0` means that nothing in it can train.

    `lines` counts rows (no header, no blank lines): accepted + `rejected_count`. `rejected`
    holds the first of them, at least one where nothing was accepted. `digest` is the blake3
    of the bytes, `size` their number. `held_out` of the accepted are in an evaluation set.
    """

    spec: str
    lines: int
    accepted: int
    rejected: tuple[BadRow, ...]
    rejected_count: int
    digest: str
    size: int
    held_out: int = 0


class _Tally:
    """Digest and size of the bytes that have been read."""

    def __init__(self) -> None:
        self.hasher = blake3()
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self.hasher.update(chunk)
        self.size += len(chunk)


Found = tuple[int, dict[str, Any], str]
"""A row that can train: line, value, and the spec that the file's header declares or ""."""


def _scan(path: Path, on_bytes: OnBytes | None = None) -> Iterator[Found | BadRow]:
    """Every row, and the header's spec with it."""
    document = Document(path, on_bytes)
    declared = ""
    rows = 0
    for number, value, nul in document:
        if isinstance(value, BadRow):
            rows += 1
            yield value
            continue
        if number == 1 and is_header(value):
            if reason := header_fault(value):
                # Deny by default: what an unknown spec means by its rows is not for us to guess.
                yield BadRow(1, reason)
                document.drain()
                return
            declared = value["schema_id"]
            continue
        rows += 1
        if reason := row_fault(value, declared, nul):
            yield BadRow(number, reason)
        else:
            yield number, value, declared
    if not rows:
        yield BadRow(1, "the file has no rows" if document.lines else "the file is empty")


def read_rows(path: Path, *, on_bytes: OnBytes | None = None) -> Iterator[Row | BadRow]:
    """Every row of the file in order, as a Row, or as a BadRow with its reason.

    `on_bytes` sees every chunk as it is read: a digest or progress costs no second pass.

    A header (line 1 with schema_id and no content) binds every row to its spec. Blank lines are
    passed over; a byte order mark, CRLF and a last line without a line feed are fine. A file
    with no rows gives one BadRow. Memory: one line. Raises DataError where the file cannot be
    read.
    """
    for found in _scan(path, on_bytes):
        if isinstance(found, BadRow):
            yield found
            continue
        number, value, _ = found
        turns = turns_of(value)
        text = value["text"] if turns is None else None
        yield Row(number, turns, text, metadata_of(value), tools_of(value))


def quick_check(
    path: Path, *, limit: int = 100, held_out: Callable[[dict[str, Any]], bool] | None = None
) -> QuickCheck:
    """Counts, spec and digest of a file in one pass; `rejected` holds at most `limit` rows.
    `held_out` tells of a row (as JSON has it) whether it is in an evaluation set.

    Raises DataError where the file cannot be read; everything else is in the result.
    """
    tally = _Tally()
    specs: dict[str, int] = {}
    bad = held = 0
    rejected: list[BadRow] = []
    for found in _scan(path, tally.add):
        if isinstance(found, BadRow):
            bad += 1
            if len(rejected) < max(1, limit):
                rejected.append(found)
        else:
            spec = spec_of(found[1], found[2])
            specs[spec] = specs.get(spec, 0) + 1
            if held_out is not None:
                held += held_out(found[1])
    accepted = sum(specs.values())
    return QuickCheck(
        spec=next(iter(specs)) if len(specs) == 1 else MIXED if specs else "",
        lines=accepted + bad,
        accepted=accepted,
        rejected=tuple(rejected),
        rejected_count=bad,
        digest=tally.hasher.hexdigest(),
        size=tally.size,
        held_out=held,
    )


def _normal(text: str) -> str:
    """One form for texts that differ only in white space or in how accents are composed."""
    text = " ".join(text.split())
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def messages_digest(messages: Sequence[Message]) -> str:
    """`prompt_digest` of a conversation that is not a file's row."""
    *_, last = prompt_digests(messages)
    return last


def prompt_digests(messages: Sequence[Message]) -> Iterator[str]:
    """The digest of what is asked before each answer of a conversation, in order (of all of it
    where there is no answer): every one of them trains. The last is its `prompt_digest`."""
    hasher = blake3()
    answers = 0
    for message in messages:
        if message.role == "assistant":
            answers += 1
            yield hasher.hexdigest()
        else:
            part = f"{message.role}\x1f{_normal(message.content)}\x1e"
            hasher.update(part.encode("utf-8", "surrogatepass"))
    if not answers:
        yield hasher.hexdigest()


def asks_one_of(row: Row, digests: Container[str]) -> bool:
    """Whether the prompt of any answer of the row is one of `digests`: such a row never trains
    where they are an evaluation set's (D14)."""
    if row.messages is None:
        return prompt_digest(row) in digests
    return any(digest in digests for digest in prompt_digests(row.messages))


def prompt_digest(row: Row) -> str:
    """blake3 hex of the system and user turns before the last assistant answer, of the whole
    text for a completion row; white space is normalised. Equal digests ask the same."""
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
