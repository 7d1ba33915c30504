"""The rows that are trained on: the skills' own, or files of a person."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from engine.prepare import Prepared, PrepareSettings, prepare
from evaluation.make import make_file
from queue_store.home import Home

MADE = (("syllo", 1), ("binary", 2))
"""Skills and levels, as many rows of each."""


def write_rows(folder: Path, count: int, files: Sequence[str]) -> Path:
    """One file of `count` rows: of `files`, begun again where they end; of the skills without."""
    if files:
        lines = [line for file in files for line in Path(file).read_text().splitlines() if line]
        # The first line of a set may be its header: it has no row.
        lines = [line for line in lines if "messages" in json.loads(line)]
        lines = list(itertools.islice(itertools.cycle(lines), count))
    else:
        made = [
            make_file(skill, level, -(-count // len(MADE)), 1, False, folder / f"{skill}.jsonl")
            for skill, level in MADE
        ]
        pairs = zip(*(path.read_text().splitlines() for path in made), strict=True)
        lines = [line for pair in pairs for line in pair]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def prepared(rows: Path, model: Path, home: Path, length: int) -> Prepared:
    """The rows packed to `length`, as the engine packs an item's."""
    Home(home).create()
    return prepare(
        rows,
        model_folder=model,
        settings=PrepareSettings(
            max_length=length,
            packing=True,
            profile="none",
            system_prompt="",
            over_length="drop",
            bad_rows="drop",
            validation_split=0.0,
            seed=1,
            bad_rows_limit=1.0,
        ),
        held_out=frozenset(),
        root=Home(home).prepared,
        progress=lambda done, total: None,
        cancelled=lambda: False,
    )
