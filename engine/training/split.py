"""How a step's packs are divided over the ranks: a pure function of the step, the same on all.

Micro-batch m of a step gives rank r of W the packs [(m*W + r) * B : +B] of the step's packs, B
being batch_size. All ranks do the same number of micro-batches. In an epoch's last step, which may
be smaller, a rank can be left without a pack of its own: it takes NO_PACK, of which nothing trains.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.prepare.prepared import Sequence
from queue_store.config import Training
from queue_store.errors import ConfigError

NO_PACK = -1
"""In the place of a pack's number: one token that has no loss, so that the rank's part of the
step's loss and gradients is exactly 0."""

NOTHING = Sequence(np.zeros(1, np.int32), np.zeros(1, np.bool_), np.zeros(1, np.int32), lines=(0,))


def check_split(training: Training, size: int) -> None:
    """Raises ConfigError where a step cannot be divided over `size` ranks."""
    if size > 1 and getattr(training, "in_backward", False):
        raise ConfigError(
            f"in_backward steps before the gradients of {size} processes are summed",
            where="training.in_backward",
            mend="switch it off, or set training.processes = 1",
        )
    whole = training.batch_size * size
    effective = training.effective_batch
    if effective % whole == 0:
        return
    near = [str(n * whole) for n in (effective // whole, effective // whole + 1) if n]
    raise ConfigError(
        f"effective_batch {effective} is not a multiple of batch_size {training.batch_size}"
        f" times {size} processes",
        where="training.effective_batch",
        mend=f"set it to {' or '.join(near)}, or change training.processes",
    )


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
