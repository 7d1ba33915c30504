"""Prepared data: a file's rows as tokens, masks and packs, memory-mapped from the store.

Opened read-only and never changed: a folder's name is the key of all that went into it. The
order of training is computed here, as a pure function of (seed, digest, epoch).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from blake3 import blake3

from queue_store.errors import VerificationFailed

FORMAT = 2
"""Raised with every change of what the same rows become: old folders are then not reused."""

META = "prepared.json"
ARRAYS: dict[str, str] = {
    "tokens": "<i4",  # all rows after one another
    "trained": "|b1",  # one for each token
    "offsets": "<i8",  # rows + 1: where each row starts in `tokens`
    "lines": "<i8",  # the line of the file that each row stands on
    "pack_offsets": "<i8",  # packs + 1, into `pack_rows`
    "pack_rows": "<i8",
    "validation_pack_offsets": "<i8",
    "validation_pack_rows": "<i8",
}
"""Name to dtype of the raw arrays; the file is `name.bin`, little-endian."""


def file_of(name: str) -> str:
    return f"{name}.bin"


@dataclass(frozen=True)
class Sequence:
    """One pack, not padded. `input_ids` int32[n], `trained` bool[n], `position_ids` int32[n],
    which restart at 0 with every row. `lines` are the file's lines of its rows.
    """

    input_ids: np.ndarray
    trained: np.ndarray
    position_ids: np.ndarray
    lines: tuple[int, ...]


@dataclass(frozen=True)
class EpochOrder:
    """`packs` int64[P]: pack ids in the order of training. `rows_before` int64[P + 1]: rows in
    the packs before each place of this order; the last entry is all of them.
    """

    packs: np.ndarray
    rows_before: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """The prepared rows of a file; open with `Prepared.open`.

    `digest` (blake3 hex) covers the arrays, `key` all that went into them. `lines` counts the
    file's rows, bad ones included; `rows` those of this set that train in an epoch.
    """

    folder: Path
    meta: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    part: str = "train"

    @staticmethod
    def open(folder: Path, *, verify: bool = False) -> Prepared:
        """Map a complete folder. `verify` reads all of it and compares the digest.

        Raises VerificationFailed where a file is missing, has the wrong size or wrong bytes.
        """
        try:
            meta = orjson.loads((folder / META).read_bytes())
            arrays = {name: _map(folder, name, meta["counts"][name]) for name in ARRAYS}
        except (OSError, ValueError, KeyError) as error:
            raise VerificationFailed(
                f"prepared data is damaged: {error}",
                where=str(folder),
                mend="move the folder away and retry the item",
            ) from None
        if verify and digest_of(arrays) != meta["digest"]:
            raise VerificationFailed(
                "prepared data has other bytes than were recorded",
                where=str(folder),
                mend="move the folder away and retry the item",
            )
        return Prepared(folder, meta, arrays)

    @property
    def digest(self) -> str:
        return str(self.meta["digest"])

    @property
    def key(self) -> str:
        return str(self.meta["key"])

    @property
    def report(self) -> dict[str, Any]:
        """Counts, token statistics, masks, packing: see `report.py`."""
        return dict(self.meta["report"])

    @property
    def rendering(self) -> dict[str, str]:
        """What made text of the rows: profile, profile_version, profile_digest, template_digest,
        thinking. Part of the identity of what trains on them; empty in data that an earlier
        release prepared, for an item that goes on with it."""
        return dict(self.meta.get("rendering", {}))

    @property
    def lines(self) -> int:
        return int(self.meta["report"]["lines"])

    @property
    def over_length(self) -> list[int]:
        """Lines of rows that are longer than max_length and do not train."""
        return list(self.meta["report"]["over_length"])

    @property
    def held_out(self) -> list[int]:
        """Lines of rows whose prompt is in an evaluation set; they do not train."""
        return list(self.meta["report"]["held_out"])

    @property
    def packs(self) -> int:
        return len(self._offsets) - 1

    @property
    def rows(self) -> int:
        return int(self._offsets[-1])

    @property
    def validation(self) -> Prepared:
        """The rows of this file that are kept for validation, in packs of their own."""
        return dataclasses.replace(self, part="validation")

    def order(self, seed: int, epoch: int) -> EpochOrder:
        """The packs of an epoch in the order of training: a pure function of (seed, digest,
        epoch), the same on every machine and with every version of numpy.
        """
        key = blake3(f"order/{seed}/{self.digest}/{self.part}/{epoch}".encode()).digest(length=16)
        # numpy promises Philox's raw output for ever, and not what Generator makes of it.
        raw = np.random.Philox(key=np.frombuffer(key, dtype="<u8")).random_raw(self.packs)
        packs = np.argsort(np.atleast_1d(raw), kind="stable").astype(np.int64)
        rows_before = np.zeros(self.packs + 1, dtype=np.int64)
        np.cumsum(np.diff(self._offsets)[packs], out=rows_before[1:])
        return EpochOrder(packs, rows_before)

    def steps_per_epoch(self, effective_batch: int) -> int:
        """Optimizer steps of an epoch; the last may be short, as no step spans two epochs."""
        return -(-self.packs // effective_batch)

    def rows_of(self, pack: int) -> np.ndarray:
        """Row numbers (into the arrays) of a pack, in the order of the file."""
        return self._rows[self._offsets[pack] : self._offsets[pack + 1]]

    def pack_of(self, row: int) -> int | None:
        """The pack that holds a row (its number, as in `rows_of`), None where none of this part
        does."""
        places = np.flatnonzero(self._rows == row)
        if not len(places):
            return None
        return int(np.searchsorted(self._offsets, places[0], side="right")) - 1

    def sequence(self, pack: int) -> Sequence:
        """The tokens of one pack. Raises IndexError for a pack that is not there."""
        if not 0 <= pack < self.packs:
            raise IndexError(f"pack {pack} of {self.packs}")
        offsets, tokens, trained = (self.arrays[n] for n in ("offsets", "tokens", "trained"))
        rows = self.rows_of(pack)
        spans = [(int(offsets[row]), int(offsets[row + 1])) for row in rows]
        return Sequence(
            input_ids=np.concatenate([tokens[a:b] for a, b in spans]),
            trained=np.concatenate([trained[a:b] for a, b in spans]),
            position_ids=np.concatenate([np.arange(b - a, dtype=np.int32) for a, b in spans]),
            lines=tuple(self.arrays["lines"][rows].tolist()),
        )

    @property
    def _offsets(self) -> np.ndarray:
        prefix = "" if self.part == "train" else "validation_"
        return self.arrays[f"{prefix}pack_offsets"]

    @property
    def _rows(self) -> np.ndarray:
        prefix = "" if self.part == "train" else "validation_"
        return self.arrays[f"{prefix}pack_rows"]


def _map(folder: Path, name: str, count: int) -> np.ndarray:
    path = folder / file_of(name)
    dtype = np.dtype(ARRAYS[name])
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes")
    if not count:
        return np.zeros(0, dtype=dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype=dtype, mode="r", shape=(count,))


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """blake3 hex over names, lengths and bytes of the arrays."""
    hasher = blake3()
    for name in ARRAYS:
        array = arrays[name]
        hasher.update(f"{name}:{ARRAYS[name]}:{len(array)}\n".encode())
        if len(array):
            hasher.update(np.ascontiguousarray(array).view(np.uint8).data)
    return hasher.hexdigest()
