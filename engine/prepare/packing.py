"""Rows into packs of at most `max_length` tokens: best fit, longest first.

Pure and deterministic: the same lengths give the same packs on every machine. Nothing here
isolates rows from each other; that is the collator's promise.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np


def best_fit(lengths: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs of rows as (offsets int64[P + 1], rows int64[R]): pack p holds
    rows[offsets[p]:offsets[p + 1]], in the order of the file.

    Best-fit decreasing: each row, longest first, goes where the least room is left over
    (Johnson 1973: at most 11/9 of the optimum). Raises ValueError for a row over `max_length`.
    """
    count = len(lengths)
    if count and int(lengths.max()) > max_length:
        raise ValueError(f"a row of {int(lengths.max())} tokens does not fit {max_length}")
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    pack_of = np.zeros(count, dtype=np.int64)
    open_packs: dict[int, list[int]] = {}  # room left -> packs with exactly that room
    rooms: list[int] = []  # its keys, sorted
    packs = 0
    for row, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        place = bisect_left(rooms, length)
        if place == len(rooms):
            pack, room = packs, max_length
            packs += 1
        else:
            room = rooms[place]
            same = open_packs[room]
            pack = same.pop()
            if not same:
                del open_packs[room]
                rooms.pop(place)
        pack_of[row] = pack
        room -= length
        if room:
            if room in open_packs:
                open_packs[room].append(pack)
            else:
                open_packs[room] = [pack]
                insort(rooms, room)
    return _grouped(pack_of, packs)


def one_each(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A pack for every row, in the order of the file; the shapes of `best_fit`."""
    return np.arange(count + 1, dtype=np.int64), np.arange(count, dtype=np.int64)


def _grouped(pack_of: np.ndarray, packs: int) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(packs + 1, dtype=np.int64)
    np.cumsum(np.bincount(pack_of, minlength=packs), out=offsets[1:])
    return offsets, np.argsort(pack_of, kind="stable").astype(np.int64)
