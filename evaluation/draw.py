"""Random choices that are the same on every Python and every machine.

Of `random.Random` only `random()` promises its sequence over versions, so everything here is
built on that call; seeds come from BLAKE3, never from `hash()`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from blake3 import blake3

T = TypeVar("T")


def share(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone: for rules such as "15 % are held out"."""
    return int.from_bytes(blake3(text.encode()).digest(6), "big") / 2**48


class Draw:
    """A stream of choices that `key` (skill, level, seed …) determines."""

    def __init__(self, *key: str | int) -> None:
        text = "\x1f".join(str(part) for part in key)
        self._random = random.Random(int.from_bytes(blake3(text.encode()).digest(16), "big"))

    def chance(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def below(self, limit: int) -> int:
        """An integer in [0, limit), for limits up to 2**53."""
        return int(self._random.random() * limit)

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher-Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result
