"""Where a cursor stands in an item: epoch, pack and step, as a pure function of the prepared data.

A cursor counts trained rows in the order in which they train, on through the epochs. Steps cut an
epoch into groups of `effective_batch` packs; the last group of an epoch may be smaller, and no
step spans two epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from queue_store.errors import VerificationFailed


class EpochOrder(Protocol):
    """The packs of one epoch in training order."""

    @property
    def packs(self) -> np.ndarray: ...  # int64[P], pack ids
    @property
    def rows_before(self) -> np.ndarray: ...  # int64[P + 1], rows before each pack in this order


class Packs(Protocol):
    """What a run needs of prepared data (engine.prepare's `Prepared` has it)."""

    @property
    def rows(self) -> int: ...  # rows that train in an epoch
    @property
    def packs(self) -> int: ...
    def order(self, seed: int, epoch: int) -> EpochOrder: ...
    def sequence(self, pack: int) -> Any: ...  # .input_ids .trained .position_ids, each [n]


@dataclass(frozen=True)
class Position:
    """`pack` is an index into the epoch's order; `step` counts the item's steps done."""

    epoch: int
    pack: int
    step: int


class Plan:
    """The steps of one item: `epochs` passes over `prepared`, `effective_batch` packs a step."""

    def __init__(self, prepared: Packs, *, seed: int, epochs: int, effective_batch: int) -> None:
        self.prepared = prepared
        self.seed = seed
        self.epochs = epochs
        self.effective_batch = effective_batch
        self._epoch = -1
        self._order: EpochOrder | None = None

    @property
    def steps_per_epoch(self) -> int:
        return -(-int(self.prepared.packs) // self.effective_batch)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def rows(self) -> int:
        """Rows trained when the item is done, over all epochs."""
        return int(self.prepared.rows) * self.epochs

    def order(self, epoch: int) -> EpochOrder:
        """The epoch's order (kept for the epoch asked for last)."""
        if self._order is None or epoch != self._epoch:
            self._order, self._epoch = self.prepared.order(self.seed, epoch), epoch
        return self._order

    def cursor(self, epoch: int, pack: int) -> int:
        """Rows trained before the `pack`-th pack of the epoch's order."""
        return epoch * int(self.prepared.rows) + int(self.order(epoch).rows_before[pack])

    def position(self, cursor: int) -> Position:
        """The place of a cursor; at an epoch's end it is the beginning of the next.

        Raises VerificationFailed for a cursor at which no step of this data ends: then the data
        or the settings are not those that the cursor was recorded with.
        """
        rows = int(self.prepared.rows)
        if not 0 <= cursor <= self.rows:
            raise VerificationFailed(f"cursor {cursor} is outside of the item's {self.rows} rows")
        if rows == 0 or cursor == self.rows:
            return Position(self.epochs, 0, self.steps)
        epoch, within = divmod(cursor, rows)
        before = self.order(epoch).rows_before
        pack = int(np.searchsorted(before, within))
        if int(before[pack]) != within or pack % self.effective_batch:
            raise VerificationFailed(
                f"no step ends at cursor {cursor}",
                mend="the prepared data or effective_batch changed since it was recorded",
            )
        return Position(epoch, pack, epoch * self.steps_per_epoch + pack // self.effective_batch)
