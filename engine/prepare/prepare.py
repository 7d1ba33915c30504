"""A file to prepared data on disk: read, render, tokenize, mask, choose, pack, publish.

One pass in chunks, with the tokenizer at work on one chunk while the next is read, so memory
does not grow with the file beyond a few numbers a row. What is prepared once is found again by
its key. Nothing appears under `root` before it is complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
from blake3 import blake3

from engine.prepare import mask_checks, packing, profiles, report, thinking
from engine.prepare.encode import Batch, EncodedRow, Encoder
from engine.prepare.mask_notes import MaskNotes
from engine.prepare.prepared import ARRAYS, FORMAT, META, Prepared, digest_of, file_of
from engine.prepare.template import ModelText
from queue_store import durable
from queue_store.errors import DataError, VerificationFailed
from queue_store.home import Home
from queue_store.rows import BadRow, Row, prompt_digest, read_rows
from snapshots.upkeep import quarantine

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


@dataclass
class _Kept:
    """One entry for every row that trains or validates, in the order of the file."""

    lengths: list[int]
    lines: list[int]
    ranks: list[int]


def prepare(
    source: Path,
    *,
    model_folder: Path,
    settings: PrepareSettings,
    held_out: frozenset[str],
    root: Path,
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool],
    called: str = "",
    accepted: str = "",
) -> Prepared:
    """The prepared data of `source` for the model in `model_folder`, under `root` (a home's
    store/prepared), made or found there.

    `called`: the file's name as a person knows it, for what is wrong with it (by default that
    of `source`). `held_out`: prompt digests that never train. `progress(done, total)` counts
    bytes of the file. `accepted`: the digest that the file must have (BLAKE3, "" for any).
    A damaged folder that is found is set apart and made anew. Raises DataError where the file
    cannot train or fails a mask check, ConfigError for an unknown profile, Cancelled when
    `cancelled()` is true.
    """
    profile = profiles.find(settings.profile)
    model = ModelText(model_folder)
    source_digest, size = _digest(source)
    if accepted and source_digest != accepted:
        raise DataError(
            "its bytes are not those that were accepted",
            where=called or source.name,
            mend="add the file anew; the damaged one stays where it is",
        )
    key = _key(source_digest, model, settings, profile, held_out)
    folder = root / key
    home = Home(root.parent.parent)
    if home.prepared != root:
        raise ValueError(f"{root} is not the store/prepared folder of a home")
    if folder.exists():
        try:
            prepared = Prepared.open(folder, verify=True)
            progress(size, size)
            return prepared
        except VerificationFailed:
            quarantine(home, folder)
    durable.make_folder(root)
    tmp = durable.new_tmp(home, "prepared")
    try:
        name = called or source.name
        run = _Run(source, name, source_digest, size, settings, held_out, progress, cancelled)
        run.write(model, profile, tmp, key)
        try:
            durable.publish(tmp, folder)
        except FileExistsError:
            durable.discard(tmp, home)  # another run of the same key was first
    except BaseException:
        durable.discard(tmp, home)
        raise
    return Prepared.open(folder)


def _digest(source: Path) -> tuple[str, int]:
    try:
        hasher = blake3()
        with source.open("rb") as file:
            size = 0
            while chunk := file.read(1 << 22):
                hasher.update(chunk)
                size += len(chunk)
        return hasher.hexdigest(), size
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(source)) from None


def _key(
    source_digest: str,
    model: ModelText,
    settings: PrepareSettings,
    profile: profiles.Profile,
    held_out: frozenset[str],
) -> str:
    """blake3 hex over everything that decides the arrays."""
    parts = {
        "format": FORMAT,
        "source": source_digest,
        "tokenizer": model.fingerprint.tokenizer,
        "template": model.fingerprint.template,
        "profile": profiles.digest(profile),
        "settings": asdict(settings),
        "held_out": sorted(held_out),
    }
    return blake3(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


class _Run:
    """One preparing of one file."""

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
        self.kept = _Kept([], [], [])
        self.notes = MaskNotes()
        self.done = 0
        self.hasher = blake3()

    def write(self, model: ModelText, profile: profiles.Profile, folder: Path, key: str) -> None:
        """All arrays and prepared.json into `folder`."""
        settings = self.settings
        with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as executor:
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
        checks = checker.run(Prepared(folder, {}, arrays))
        mask_checks.refuse(checks, self.name)
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
                checks=mask_checks.as_json(checks),
                end_tokens=checker.end_tokens,
                rendering=rendering,
                thinking={"setting": settings.thinking, **self.notes.thinking},
            ),
        }
        (folder / META).write_bytes(orjson.dumps(meta, option=orjson.OPT_INDENT_2))

    def _encode_all(self, encoder: Encoder, tokens: BinaryIO, trained: BinaryIO) -> None:
        """Every row through the tokenizer, a few chunks in flight."""
        flying: deque[tuple[Batch, int]] = deque()
        for chunk in self._chunks():
            flying.append((encoder.submit(chunk), self.done))
            while len(flying) > _IN_FLIGHT:
                self._land(encoder, *flying.popleft(), tokens, trained)
        while flying:
            self._land(encoder, *flying.popleft(), tokens, trained)

    def _land(
        self, encoder: Encoder, batch: Batch, done: int, tokens: BinaryIO, trained: BinaryIO
    ) -> None:
        if self.cancelled():
            raise Cancelled
        for row in encoder.collect(batch):
            self.found.lines += 1
            if isinstance(row, BadRow):
                self._refuse_row(row)
            elif self._keeps(row):
                tokens.write(row.ids.astype("<i4", copy=False).data)
                trained.write(row.trained.data)
        self.progress(done, self.size)

    def _chunks(self) -> Iterator[list[Row | BadRow]]:
        def on_bytes(data: bytes) -> None:
            self.hasher.update(data)
            self.done += len(data)

        chunk: list[Row | BadRow] = []
        characters = 0
        for row in read_rows(self.source, on_bytes=on_bytes):
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
        if digest in self.held_out:
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
            return
        reasons = [
            (found.rejected_count, "refused"),
            (len(found.over_length), f"longer than max_length {settings.max_length}"),
            (len(found.held_out), "in an evaluation set"),
        ]
        told = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
        first = "".join(f"; line {bad.line}: {bad.reason}" for bad in found.rejected[:1])
        raise DataError(f"no row can train: {told or 'the file has none'}{first}", where=self.name)

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
            offsets, places = packing.best_fit(lengths[rows], self.settings.max_length)
        else:
            offsets, places = packing.one_each(len(rows))
        return offsets, rows[places]


def _written(folder: Path, name: str) -> np.ndarray:
    """An array that has just been streamed to its file."""
    return np.memmap(folder / file_of(name), dtype=ARRAYS[name], mode="r")
