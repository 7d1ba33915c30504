"""One pass over a file: read, render, tokenize, mask, check, choose, pack, write.

In chunks, with the tokenizer at work on one chunk while the next is read, so memory does not grow
with the file beyond a few numbers a row. Writes into a folder that its caller publishes or throws
away.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
from blake3 import blake3

from engine import checks
from engine.prepare import mask_checks, packing, profiles, report, thinking
from engine.prepare.encode import Batch, EncodedRow, Encoder
from engine.prepare.mask_notes import MaskNotes
from engine.prepare.prepared import ARRAYS, FORMAT, META, Prepared, digest_of, file_of
from engine.prepare.template import ModelText
from queue_store.errors import DataError
from queue_store.heldout import HeldOut
from queue_store.rows import BadRow, Row, asks_one_of, prompt_digest, read_rows

VALIDATION_FROM = 2000
"""Rows that a file must have before any of them is kept for validation."""

_CHUNK_CHARACTERS = 1_000_000
_CHUNK_ROWS = 2048
_IN_FLIGHT = 2


class Cancelled(Exception):
    """Preparing was called off between two chunks; nothing was left behind."""


@dataclass(frozen=True)
class PrepareSettings:
    """What of config.toml decides how rows become packs; frozen with the item."""

    max_length: int
    packing: bool
    profile: str
    system_prompt: str
    over_length: str
    bad_rows: str
    validation_split: float
    seed: int
    thinking: str = thinking.TEMPLATE
    bad_rows_limit: float = 0.1
    level: str = "standard"


class _Kept:
    """One entry for every row that trains or validates, in the order of the file. Packed numbers:
    a file may have tens of millions of rows."""

    def __init__(self) -> None:
        self.lengths = array("i")
        self.lines = array("q")
        self.ranks = array("Q")


class Run:
    """One preparing of one file. `inspect` overrides what refuses the file."""

    def __init__(
        self,
        source: Path,
        name: str,
        source_digest: str,
        size: int,
        settings: PrepareSettings,
        held_out: frozenset[str],
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
        near: HeldOut,
    ) -> None:
        self.source = source
        self.name = name
        self.source_digest = source_digest
        self.size = size
        self.settings = settings
        self.held_out = held_out
        self.progress = progress
        self.cancelled = cancelled
        self.found = report.Findings()
        self.checks = checks.Checks(settings.level, near)
        self.kept = _Kept()
        self.notes = MaskNotes()
        self.done = 0
        self.hasher = blake3()

    def write(self, model: ModelText, profile: profiles.Profile, folder: Path, key: str) -> None:
        """All arrays and prepared.json into `folder`."""
        settings = self.settings
        # Two: the tokenizer's threads get the next chunk while one makes arrays of the last.
        with ThreadPoolExecutor(2, thread_name_prefix="tokenize") as executor:
            encoder = Encoder(model, settings.system_prompt, executor, settings.thinking, profile)
            with (
                (folder / file_of("tokens")).open("wb") as tokens,
                (folder / file_of("trained")).open("wb") as trained,
            ):
                self._encode_all(encoder, tokens, trained)
        if self.hasher.hexdigest() != self.source_digest:
            raise DataError("changed while it was being read", where=self.name)
        self._refuse_what_cannot_train()
        lengths = np.array(self.kept.lengths, dtype=np.int64)
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        train, held = self._split()
        packs, validation = self._pack(lengths, train), self._pack(lengths, held)
        arrays = {
            "tokens": _written(folder, "tokens"),
            "trained": _written(folder, "trained"),
            "offsets": offsets,
            "lines": np.array(self.kept.lines, dtype=np.int64),
            "pack_offsets": packs[0],
            "pack_rows": packs[1],
            "validation_pack_offsets": validation[0],
            "validation_pack_rows": validation[1],
        }
        for name in ARRAYS:
            arrays[name] = np.ascontiguousarray(arrays[name], dtype=ARRAYS[name])
            if name not in ("tokens", "trained"):
                arrays[name].tofile(folder / file_of(name))
        checker = mask_checks.MaskChecks(
            self.notes, model.tokenizer, model.eos_id, settings.thinking
        )
        masks = checker.run(Prepared(folder, {}, arrays)) if len(lengths) else []
        self._refuse_masks(masks)
        rendering = {
            "profile": profile.name,
            "profile_version": str(profile.version),
            "profile_digest": profiles.digest(profile),
            "template_digest": model.fingerprint.template,
            "thinking": settings.thinking,
        }
        meta = {
            "format": FORMAT,
            "key": key,
            "digest": digest_of(arrays),
            "source": self.source_digest,
            "tokenizer": model.fingerprint.tokenizer,
            "template": model.fingerprint.template,
            "rendering": rendering,
            "settings": asdict(self.settings),
            "counts": {name: len(array) for name, array in arrays.items()},
            "report": report.build(
                self.found,
                max_length=self.settings.max_length,
                kept=lengths,
                packs=packs,
                validation=validation,
                ways=encoder.ways,
                checks=mask_checks.as_json(masks),
                end_tokens=checker.end_tokens,
                rendering=rendering,
                thinking={"setting": settings.thinking, **self.notes.thinking},
            )
            | {"checks": self.checks.report().to_json()},
        }
        (folder / META).write_bytes(orjson.dumps(meta, option=orjson.OPT_INDENT_2))

    def _encode_all(self, encoder: Encoder, tokens: BinaryIO, trained: BinaryIO) -> None:
        for row in self.encoded(encoder):
            self.found.lines += 1
            if isinstance(row, BadRow):
                self._refuse_row(row)
            elif self._keeps(row):
                tokens.write(row.ids.astype("<i4", copy=False).data)
                trained.write(row.trained.data)

    def encoded(self, encoder: Encoder) -> Iterator[EncodedRow | BadRow]:
        """Every row through the tokenizer, in the order of the file, a few chunks in flight."""
        flying: deque[tuple[Batch, int]] = deque()
        for chunk in self._chunks():
            flying.append((encoder.submit(chunk), self.done))
            while len(flying) > _IN_FLIGHT:
                yield from self._land(encoder, *flying.popleft())
        while flying:
            yield from self._land(encoder, *flying.popleft())

    def _land(self, encoder: Encoder, batch: Batch, done: int) -> Iterator[EncodedRow | BadRow]:
        if self.cancelled():
            raise Cancelled
        yield from encoder.collect(batch)
        self.progress(done, self.size)

    def _chunks(self) -> Iterator[list[Row | BadRow]]:
        def on_bytes(data: bytes) -> None:
            self.hasher.update(data)
            self.done += len(data)

        chunk: list[Row | BadRow] = []
        characters = 0
        for row in read_rows(self.source, on_bytes=on_bytes):
            if isinstance(row, Row) and (reason := self.checks.look(row)):
                row = BadRow(row.line, reason)
            if isinstance(row, Row):
                contents = [message.content for message in row.messages or ()]
                characters += sum(map(len, contents)) + len(row.text or "")
            chunk.append(row)
            if characters >= _CHUNK_CHARACTERS or len(chunk) >= _CHUNK_ROWS:
                yield chunk
                chunk, characters = [], 0
        if chunk:
            yield chunk

    def _refuse_row(self, bad: BadRow) -> None:
        """Count a row that cannot train; refuse the file where the settings say so."""
        if self.settings.bad_rows == "reject_file":
            raise DataError(
                bad.reason,
                where=f"{self.name}:{bad.line}",
                mend='mend the row, or set data.bad_rows = "drop"',
            )
        self.found.reject(bad)

    def _keeps(self, row: EncodedRow) -> bool:
        """Note a row's numbers; whether it trains (or validates)."""
        found, length, line = self.found, len(row.ids), row.row.line
        found.lengths.append(length)
        digest = prompt_digest(row.row)
        if self.held_out and asks_one_of(row.row, self.held_out):
            found.held_out.append(line)
            return False
        found.longest = max(found.longest, (length, line), key=lambda entry: entry[0])
        if length > self.settings.max_length:
            found.over_length.append(line)
            return False
        if row.row.messages is not None:
            found.chats += 1
        else:
            found.completions += 1
        found.trained_tokens += int(row.trained.sum())
        self.kept.lengths.append(length)
        self.kept.lines.append(line)
        rank = blake3(f"validation/{self.settings.seed}/{digest}".encode()).digest(length=8)
        self.kept.ranks.append(int.from_bytes(rank, "little"))
        self.notes.note(row, self.kept.ranks[-1])
        return True

    def _refuse_what_cannot_train(self) -> None:
        found, settings = self.found, self.settings
        if found.over_length and settings.over_length == "refuse":
            raise DataError(
                f"{len(found.over_length)} of {len(found.lengths)} rows are longer than"
                f" max_length {settings.max_length} (first: line {found.over_length[0]};"
                f" longest: {found.longest[0]} tokens, line {found.longest[1]})",
                where=self.name,
                mend=f'set training.max_length = {found.longest[0]}, or data.over_length = "drop"',
            )
        if self.kept.lengths:
            report.refuse_if_too_bad(found, settings.bad_rows_limit, self.name)
            return
        reasons = [
            (found.rejected_count, "refused"),
            (len(found.over_length), f"longer than max_length {settings.max_length}"),
            (len(found.held_out), "in an evaluation set"),
        ]
        told = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
        first = "".join(f"; line {bad.line}: {bad.reason}" for bad in found.rejected[:1])
        raise DataError(f"no row can train: {told or 'the file has none'}{first}", where=self.name)

    def _refuse_masks(self, masks: list[mask_checks.MaskCheck]) -> None:
        mask_checks.refuse(masks, self.name)

    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers that train, and that validate.

        Rows with one prompt stay together, so that no answer to a validation prompt is trained.
        Which prompts: those that rank first by a hash with the seed, whatever their place in
        the file; a group that would overshoot the share is passed over.
        """
        ranks = np.array(self.kept.ranks, dtype=np.uint64)
        everything = np.arange(len(ranks), dtype=np.int64)
        accepted = self.found.lines - self.found.rejected_count
        wanted = round(len(ranks) * self.settings.validation_split)
        if accepted < VALIDATION_FROM or not wanted:
            return everything, everything[:0]
        values, counts = np.unique(ranks, return_counts=True)
        chosen = []
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if count <= wanted:
                chosen.append(value)
                wanted -= count
            if not wanted:
                break
        held = np.isin(ranks, np.array(chosen, dtype=np.uint64))
        return everything[~held], everything[held]

    def _pack(self, lengths: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(offsets, row numbers) of the packs of `rows`."""
        if self.settings.packing:
            offsets, places = packing.tightest(lengths[rows], self.settings.max_length)
        else:
            offsets, places = packing.one_each(len(rows))
        return offsets, rows[places]


def _written(folder: Path, name: str) -> np.ndarray:
    """An array that has just been streamed to its file."""
    if not (folder / file_of(name)).stat().st_size:
        return np.zeros(0, dtype=ARRAYS[name])  # an empty file cannot be mapped
    return np.memmap(folder / file_of(name), dtype=ARRAYS[name], mode="r")
