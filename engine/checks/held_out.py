"""Rows that ask nearly what an evaluation set asks (D14): they train, and the score may be false.

Rows that ask exactly that are held out when the file is prepared, and not told here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from engine.checks.findings import Level, Problem
from queue_store.heldout import near_digest
from queue_store.rows import Row, asks_one_of

NAME, VERSION = "near_held_out", "1.0.0"


class NearHeldOut:
    """`near` and `digests` as in queue_store.heldout.HeldOut."""

    name = NAME
    version = VERSION
    level: Level = "standard"

    def __init__(self, near: Mapping[bytes, tuple[str, int]], digests: Set[str]) -> None:
        self._near = near
        self._digests = digests

    def look(self, row: Row) -> Problem | None:
        if not self._near:
            return None
        found = self._near.get(near_digest(row) or b"")
        if found is None or asks_one_of(row, self._digests):
            return None
        name, line = found
        return Problem(f"asks nearly what line {line} of the evaluation set {name} asks")

    def finish(self) -> Iterable[tuple[int, Problem]]:
        return ()
