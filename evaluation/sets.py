"""Held-out sets: the JSONL files in a home's evaluation/ folder, which never train.

A row is a conversation whose last turn is the expected answer; the turns before it are asked.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from evaluation.skills import TIERS
from queue_store.errors import DataError, NotFound
from queue_store.heldout import held_out
from queue_store.heldout import set_files as set_files
from queue_store.home import Home
from queue_store.rows import BadRow, Row, read_rows


@dataclass(frozen=True)
class Example:
    id: str
    """Unique in its set: the row's puzzle_id, sample_id or id, else its line."""
    prompt: tuple[dict[str, str], ...]
    """What is asked: every turn before the expected answer, as {"role": …, "content": …}."""
    expected: str
    skill: str
    level: int | None
    tier: str
    """easy, medium or hard: the row's `tier`, else its `difficulty`, else one of its
    `tags`; "" where it names none."""
    metadata: dict[str, Any]
    row: Row
    """The row itself, for who renders it as training renders rows."""


@dataclass(frozen=True)
class EvalSet:
    name: str
    """The file's name without .jsonl."""
    digest: str
    """BLAKE3 of the file's bytes, hexadecimal."""
    examples: tuple[Example, ...]


def example_of(row: Row, path: Path, taken: set[str]) -> Example:
    """A row as it is asked; its id is added to those `taken` in the set. Raises DataError where
    it has no expected answer."""
    where = f"{path}:{row.line}"
    if not row.messages or row.messages[-1].role != "assistant":
        raise DataError("has no expected answer", where=where, mend="end it with an assistant turn")
    data = row.metadata
    named = next((data[k] for k in ("puzzle_id", "sample_id", "id") if data.get(k)), None)
    name = f"line {row.line}" if named is None else str(named)
    if name in taken:
        # Ids of other generators repeat (they restart at every level).
        name = f"{name} (line {row.line})"
    taken.add(name)
    level = data.get("level")
    return Example(
        id=name,
        prompt=tuple({"role": m.role, "content": m.content} for m in row.messages[:-1]),
        expected=row.messages[-1].content,
        skill=str(data.get("skill", "")),
        level=level if type(level) is int else None,
        tier=_tier(data),
        metadata=data,
        row=row,
    )


def _tier(data: dict[str, Any]) -> str:
    tags = data.get("tags")
    said = [data.get("tier"), data.get("difficulty"), *(tags if isinstance(tags, list) else ())]
    return next((word for word in said if word in TIERS), "")


def load_set(path: Path) -> EvalSet:
    """Read one set. Raises DataError with file and line for a row that cannot be asked."""
    taken: set[str] = set()
    examples = []
    for row in read_rows(path):
        if isinstance(row, BadRow):
            raise DataError(row.reason, where=f"{path}:{row.line}", mend="mend or remove the row")
        examples.append(example_of(row, path, taken))
    return EvalSet(path.stem, blake3(path.read_bytes()).hexdigest(), tuple(examples))


def load_sets(home: Home, names: Sequence[str] = ()) -> list[EvalSet]:
    """The named sets in the order given; all of them, by name, where `names` is empty.

    Raises NotFound that names the neighbour of an unknown set, DataError for a bad row.
    """
    files = set_files(home)
    for name in names:
        if name not in files:
            near = difflib.get_close_matches(name, files, 1)
            known = f"known: {', '.join(files) or 'none'}"
            raise NotFound(
                f"no evaluation set {name!r}",
                where=str(home.evaluation),
                mend=f"did you mean {near[0]}?" if near else known,
            )
    return [load_set(files[name]) for name in (names or files)]


def held_out_digests(home: Home) -> frozenset[str]:
    """`prompt_digest` of every row of every set: a row with one of these never trains.

    Rows that cannot be read as rows have no prompt and are passed over; `load_sets` names them.
    """
    return held_out(home).digests
