"""The rows of the evaluation sets, as digests: what must never train (D14), and what nearly does.

Read once and kept until a set's file changes, so that a thousand files in the inbox do not cost
a thousand readings. Lies on the lowest floor because intake asks it; the sets themselves are
the evaluation floor's.
"""

from __future__ import annotations

import contextlib
import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from blake3 import blake3

from queue_store.errors import DataError
from queue_store.home import Home
from queue_store.rows import (
    QuickCheck,
    Row,
    asks_one_of,
    prompt_digest,
    quick_check,
    read_rows,
)
from queue_store.specs import Message, turns_of

FEW_WORDS = 4
"""A question of fewer words is compared together with its system turn, which says what it asks."""

_OPENING = 12
_READ = 64


@dataclass(frozen=True)
class HeldOut:
    """`digests`: `prompt_digest` of every row of every set. `near`: `near_digest` of the same
    rows, each with its set's name and its line (the first that has it)."""

    digests: frozenset[str]
    near: Mapping[bytes, tuple[str, int]]
    _openings: frozenset[str]

    def holds(self, value: dict[str, Any]) -> bool:
        """Whether the row that `value` (a row of a file, without a fault) holds is in a set."""
        if not self.digests:
            return False
        if all(opening and opening not in self._openings for opening in _openings_of(value)):
            return False
        turns = turns_of(value)
        row = Row(0, turns, None if turns is not None else value["text"])
        return asks_one_of(row, self.digests)


NOTHING = HeldOut(frozenset(), {}, frozenset())
"""Held out where there is no set."""


def set_files(home: Home) -> dict[str, Path]:
    """The names and files of the home's sets, in the order of their names."""
    if not home.evaluation.is_dir():
        return {}
    files = (p for p in home.evaluation.glob("*.jsonl") if not p.name.startswith("."))
    return {path.stem: path for path in sorted(files)}


def held_out(home: Home) -> HeldOut:
    """What the home's sets hold now. Rows that cannot be read as rows have no prompt and are
    passed over. Raises DataError where a set cannot be read."""
    seen = []
    for path in set_files(home).values():
        try:
            info = path.stat()
        except OSError:  # a link that leads nowhere: reading it says what is wrong
            seen.append((path, 0, 0, 0, 0))
            continue
        seen.append((path, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns))
    return _read(tuple(seen))


@functools.lru_cache(maxsize=2)
def _read(files: tuple[tuple[Path, int, int, int, int], ...]) -> HeldOut:
    digests: set[str] = set()
    near: dict[bytes, tuple[str, int]] = {}
    openings: set[str] = set()
    for path, *_ in files:
        for row in read_rows(path):
            if isinstance(row, Row):
                digests.add(prompt_digest(row))
                openings.add(_whole_opening(_asked_last(row)))
                found = near_digest(row)
                if found is not None:
                    near.setdefault(found, (path.stem, row.line))
    return HeldOut(frozenset(digests), near, frozenset(openings))


def checked(path: Path, home: Home | None = None) -> QuickCheck | DataError:
    """What a file holds, or why it holds no rows; with `home`, how many of them are in its
    evaluation sets."""
    holds = None
    if home is not None:
        # A set that cannot be read is no fault of this file: its preparation will name it.
        with contextlib.suppress(DataError):
            holds = held_out(home).holds
    try:
        return quick_check(path, held_out=holds)
    except DataError as problem:
        return problem


# -- a look that costs next to nothing, before the digest -----------------------------------------


def _whole_opening(text: str) -> str:
    """The first characters, without white space, of a set's text in its normal form."""
    return "".join(unicodedata.normalize("NFC", text).split())[:_OPENING]


def _opening(text: str) -> str:
    """The same of a text of which only the start is read; "" where that does not decide it: too
    few characters, or accents whose form may differ."""
    head = text[:_READ]
    if not head.isascii():
        return ""
    found = "".join(head.split())
    return found[:_OPENING] if len(found) > _OPENING else ""


def _asked_last(row: Row) -> str:
    """The last turn before the last answer that is not the assistant's; a text as it is."""
    if row.messages is None:
        return row.text or ""
    turns = row.messages
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    asked = turns[: answers[-1]] if answers else turns
    return next((turn.content for turn in reversed(asked) if turn.role != "assistant"), "")


def _openings_of(value: dict[str, Any]) -> Iterator[str]:
    """`_opening` of what is asked before each answer of the row that `value` holds, without making
    the row; "" where that is not simple."""
    turns = value.get("messages")
    if turns is None:
        yield ""
        return
    for asked, answer in pairwise(turns):
        if answer["role"] == "assistant":
            yield _opening(asked["content"]) if asked["role"] == "user" else ""


# -- nearly the same ------------------------------------------------------------------------------


class _Bare(dict[int, str]):
    """For str.translate: punctuation becomes a space. Digits, letters and signs (+ = < * / % ^,
    currency, emoji) stay, for they can make another question of the same words."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        bare = unicodedata.category(character)[0] == "P" and character not in "*/%-−"
        self[code] = " " if bare else character
        return self[code]


_BARE = _Bare()
_HYPHEN = re.compile(r"-(?!\s*[\d(.])")


def bare(text: str) -> str:
    """One form for texts that differ in case, accents' form, punctuation and white space alone."""
    text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "-" in text:
        text = _HYPHEN.sub(" ", text)
    return " ".join(text.translate(_BARE).split())


def near_digest(row: Row) -> bytes | None:
    """Eight bytes that are equal for rows that ask nearly the same: the turns of user and tools
    before the last answer, bare of case, punctuation and white space, whatever the system turn
    says; a text, bare. None where there is nothing to compare.
    """
    turns: tuple[Message, ...] = row.messages or (Message("user", row.text or ""),)
    answers = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    asked = turns[: answers[-1]] if answers else turns
    text = bare("\n".join(turn.content for turn in asked if turn.role in ("user", "tool")))
    if text.count(" ") < FEW_WORDS - 1:
        system = bare("\n".join(turn.content for turn in asked if turn.role == "system"))
        text = f"{system}\x1f{text}"
    if not text.strip("\x1f"):
        return None
    return blake3(text.encode("utf-8", "surrogatepass")).digest(length=8)
