"""What preparing a file would find, without preparing it: the report, and its rows as tokens.

It is prepare()'s own pass, written to a folder that the caller throws away; where prepare()
refuses a file this goes on and tells, so that a person sees everything that is wrong at once.
Publishes nothing and changes nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.checks import Checks
from engine.prepare import profiles
from engine.prepare.encode import EncodedRow, Encoder
from engine.prepare.mask_checks import MaskCheck
from engine.prepare.prepared import META
from engine.prepare.run import PrepareSettings, Run
from engine.prepare.segments import segments
from engine.prepare.template import ModelText
from queue_store.heldout import HeldOut
from queue_store.rows import BadRow, QuickCheck, Row, asks_one_of


@dataclass(frozen=True)
class Source:
    """A file and how its rows would train. `check` is that of its bytes as they are now."""

    path: Path
    check: QuickCheck
    model: ModelText
    settings: PrepareSettings
    held_out: HeldOut


@dataclass(frozen=True)
class Inspected:
    """`report`: as report.build makes it. `lengths` int64[R]: tokens of every row that trains,
    validates, or would if it were not too long."""

    report: dict[str, Any]
    lengths: np.ndarray


class _Inspection(Run):
    """A run that refuses nothing."""

    def __init__(self, source: Source, progress: Callable[[int, int], None]) -> None:
        super().__init__(
            source.path,
            source.path.name,
            source.check.digest,
            source.check.size,
            source.settings,
            source.held_out.digests,
            progress,
            lambda: False,
            source.held_out,
        )
        self.lengths = array("i")

    def _refuse_row(self, bad: BadRow) -> None:
        self.found.reject(bad)

    def _refuse_what_cannot_train(self) -> None:
        """The report tells it."""

    def _refuse_masks(self, masks: list[MaskCheck]) -> None:
        """The report has them."""

    def _keeps(self, row: EncodedRow) -> bool:
        kept = super()._keeps(row)
        if not self.held(row.row.line):
            self.lengths.append(len(row.ids))
        return kept

    def held(self, line: int) -> bool:
        """Whether the row just looked at is in an evaluation set."""
        return self.found.held_out[-1:] == [line]


def inspect(source: Source, folder: Path, progress: Callable[[int, int], None]) -> Inspected:
    """The report that preparing `source` would make, with all that is wrong in it.

    `folder` is empty and the caller's to throw away: it gets 5 bytes a token. `progress(done,
    total)` counts bytes of the file. Raises DataError where the file cannot be read, changes
    meanwhile, or the model cannot make tokens of its rows.
    """
    run = _Inspection(source, progress)
    run.write(source.model, profiles.find(source.settings.profile), folder, "")
    meta = orjson.loads((folder / META).read_bytes())
    return Inspected(meta["report"], np.array(run.lengths, dtype=np.int64))


def token_rows(source: Source, progress: Callable[[int, int], None]) -> Iterator[dict[str, Any]]:
    """Every row of the file as `row_json` or `error_json`, in order; a few chunks in memory."""
    run = _Inspection(source, progress)
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as executor:
        encoder = _encoder(source.model, source.settings, executor)
        for row in run.encoded(encoder):
            if isinstance(row, BadRow):
                yield error_json(row)
                continue
            left_out = "" if run._keeps(row) else _why(run.held(row.row.line), source.settings)
            yield row_json(source.model, row.row.line, row.ids, row.trained, left_out)


def one_row(
    model: ModelText, settings: PrepareSettings, held_out: HeldOut, row: Row | BadRow
) -> dict[str, Any]:
    """One row as `row_json` or `error_json`."""
    if isinstance(row, Row) and (reason := Checks(settings.level, held_out).look(row)):
        row = BadRow(row.line, reason)
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as executor:
        encoder = _encoder(model, settings, executor)
        found = encoder.collect(encoder.submit([row]))[0]
    if isinstance(found, BadRow):
        return error_json(found)
    held = asks_one_of(found.row, held_out.digests)
    left_out = _why(held, settings) if held or len(found.ids) > settings.max_length else ""
    return row_json(model, found.row.line, found.ids, found.trained, left_out)


def _encoder(model: ModelText, settings: PrepareSettings, executor: Executor) -> Encoder:
    profile = profiles.find(settings.profile)
    return Encoder(model, settings.system_prompt, executor, settings.thinking, profile)


def _why(held: bool, settings: PrepareSettings) -> str:
    return "in an evaluation set" if held else f"longer than max_length {settings.max_length}"


def row_json(
    model: ModelText, line: int, ids: np.ndarray, trained: np.ndarray, left_out: str
) -> dict[str, Any]:
    """A row as scripts get it: `ids` and `trained` (one for each), `segments` of its text.
    `left_out` says why the whole row does not train, "" where it does."""
    return {
        "line": line,
        "ids": ids.tolist(),
        "trained": trained.tolist(),
        "segments": segments(model.tokenizer, ids, trained),
        "left_out": left_out,
    }


def error_json(bad: BadRow) -> dict[str, Any]:
    """A row that cannot train, as scripts get it."""
    return {"line": bad.line, "error": bad.reason}
