"""How a step's packs are divided over the ranks: a pure function of the step, the same on all.

Micro-batch m of a step gives rank r of W the packs [(m*W + r) * B : +B] of the step's packs, B
being batch_size. All ranks do the same number of micro-batches. In an epoch's last step, which may
be smaller, a rank can be left without a pack of its own: it takes NO_PACK, of which nothing trains.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.prepare.prepared import Sequence

NO_PACK = -1
"""In the place of a pack's number: one token that has no loss, so that the rank's part of the
step's loss and gradients is exactly 0."""

NOTHING = Sequence(np.zeros(1, np.int32), np.zeros(1, np.bool_), np.zeros(1, np.int32), lines=(0,))


class RankBatches:
    """A rank's micro-batches over `packs`, which begin with a step, as lists of places in `packs`
    (NO_PACK for none): a batch sampler."""

    def __init__(
        self, packs: int, *, effective_batch: int, batch_size: int, rank: int = 0, size: int = 1
    ) -> None:
        self.packs = packs
        self.effective_batch = effective_batch
        self.batch_size = batch_size
        self.rank = rank
        self.size = size

    def _micro_batches(self, packs: int) -> int:
        return -(-packs // (self.batch_size * self.size))

    def __len__(self) -> int:
        steps, rest = divmod(self.packs, self.effective_batch)
        return steps * self._micro_batches(self.effective_batch) + self._micro_batches(rest)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.packs, self.effective_batch):
            end = min(start + self.effective_batch, self.packs)
            for micro in range(self._micro_batches(end - start)):
                first = start + (micro * self.size + self.rank) * self.batch_size
                yield list(range(first, min(first + self.batch_size, end))) or [NO_PACK]
