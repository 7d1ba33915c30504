"""Which versions the threads of this process read or copy just now, so that none is removed then.

Other processes are kept out by the home's lock. Must never hold a lock while it waits for another.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snapshots.child import Progress, Unfinished

_reading: dict[str, tuple[int, int]] = {}
_turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_in_use: Counter[str] = Counter()


@contextmanager
def reading(
    name: str, stop: threading.Event | None, progress: Progress | None
) -> Iterator[Progress]:
    """While the block runs no other thread of this process reads the version. Yields what is to
    hear how far it is; `under_way` tells it to who asks. Raises Unfinished when stopped."""
    turn = _turns[name]
    while not turn.acquire(timeout=0.2):
        if stop is not None and stop.is_set():
            raise Unfinished(f"the verification of {name} was broken off")

    def told(read: int, of: int) -> None:
        _reading[name] = (read, of)
        if progress is not None:
            progress(read, of)

    try:
        _reading[name] = (0, 0)
        yield told
    finally:
        _reading.pop(name, None)
        turn.release()


@contextmanager
def claimed(name: str) -> Iterator[bool]:
    """Whether no thread of this process reads the version; none can begin to until the block
    ends."""
    turn = _turns[name]
    alone = turn.acquire(blocking=False)
    try:
        yield alone and not _in_use[name]
    finally:
        if alone:
            turn.release()


@contextmanager
def holding(name: str) -> Iterator[None]:
    """While the block runs no thread of this process removes the version; others may read it."""
    with _turns[name]:
        _in_use[name] += 1
    try:
        yield
    finally:
        _in_use[name] -= 1


def under_way() -> list[dict[str, Any]]:
    """The versions that this process reads now: [{version, read_bytes, size_bytes}], in bytes;
    `size_bytes` is 0 until the reading has begun."""
    return [{"version": n, "read_bytes": r, "size_bytes": of} for n, (r, of) in [*_reading.items()]]
