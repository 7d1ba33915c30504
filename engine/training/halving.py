"""Half the micro-batch where a step does not fit the card: the same step, in smaller parts.

A batch of the loader is computed in parts of `Halving.size` packs. Each part is, number for number,
the batch that a loader of that size would give (the padding of the longest of the part), so that
training goes on as if batch_size had been that from this step on. Which step that was is kept with
the item: what trains again after a kill changes its size at the same cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from engine.prepare.collate import padded
from engine.training.controls import Halved
from engine.training.failures import lacks_memory
from queue_store.failures import Cause


def half(size: int) -> int:
    """The largest divisor of a batch size below it, at most its half; 0 where there is none."""
    return next((n for n in range(size // 2, 0, -1) if size % n == 0), 0)


@dataclass(frozen=True)
class Batch:
    """A batch of the loader: `tensors` [B, L], and of each of its B packs the length and the
    longest row as (tokens, line)."""

    tensors: dict[str, torch.Tensor]
    lengths: list[int]
    longest: list[tuple[int, int]]

    @staticmethod
    def of(collated: dict[str, Any]) -> Batch:
        tensors = {k: v for k, v in collated.items() if isinstance(v, torch.Tensor)}
        # Pinning makes lists of tuples.
        longest = [(int(tokens), int(line)) for tokens, line in collated["longest"]]
        return Batch(tensors, collated["lengths"], longest)

    def parts(self, size: int) -> Iterator[Batch]:
        """Its packs in their order, `size` at a time."""
        if size >= len(self.lengths):
            yield self
            return
        for at in range(0, len(self.lengths), size):
            packs = slice(at, at + size)
            length = padded(max(self.lengths[packs]))
            tensors = {k: v[packs, :length].contiguous() for k, v in self.tensors.items()}
            yield Batch(tensors, self.lengths[packs], self.longest[packs])


class Halving:
    """How many packs of an item are computed at once: `batch_size`, and from the cursor on at which
    a step did not fit, half of them.

    `before`: that (cursor, size), where the item has met it already. `tell` hears of it before the
    step is tried again; what it keeps must be on disk when it returns.
    """

    def __init__(
        self,
        batch_size: int,
        before: tuple[int, int] | None,
        cursor: Callable[[], int],
        tell: Callable[[Halved], None],
        *,
        allowed: bool,
    ) -> None:
        self._whole = batch_size
        self._changed = before
        self._cursor = cursor
        self._tell = tell
        self._allowed = allowed

    @property
    def size(self) -> int:
        """Packs at once in the step that begins at the cursor."""
        if self._changed is not None and self._cursor() >= self._changed[0]:
            return min(self._whole, self._changed[1])
        return self._whole

    @property
    def possible(self) -> bool:
        """Whether the step may still be tried again: once an item, and of one pack there is no
        half."""
        return self._allowed and self.size == self._whole and half(self._whole) > 0

    def helps(self, error: BaseException) -> bool:
        """Whether that is what a smaller batch is the answer to."""
        return self.possible and lacks_memory(error) == Cause.CUDA_MEMORY

    def halve(self, longest: tuple[int, int]) -> None:
        """From this step on; `longest` is the row of the batch that did not fit."""
        told = Halved(self._cursor(), self._whole, half(self._whole), *longest)
        self._tell(told)
        self._changed = told.cursor, told.after
