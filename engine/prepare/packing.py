"""Rows into packs of at most `max_length` tokens, with as little room left over as can be.

Pure and deterministic: integers only, so the same lengths give the same packs on every machine.
Best fit, longest first, leaves a few per cent empty where about two rows and a half make a pack:
it joins two rows of middle length, and no row is short enough for what is left of them. So where
it stays far from the bound, packs are also filled one at a time, each with the one or two rows
that fill it best, and the tightest packing is taken. Nothing here isolates rows from each other;
that is the collator's promise.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

NEAR = 0.99
"""A packing that is this close to the bound is not improved on: an epoch gains less by it than
preparing loses."""

_GRID = (4, 32, 48, 8, 16, 24, 64)
"""Shares of a pack, in 256ths, that a filled pack may leave empty; the most useful first."""

_STEPS = (4, 2)
"""How far beside the best of them others are tried."""

_WORK = 50_000_000
"""Lengths looked at (seconds) after which no further packing is tried."""

Patterns = list[tuple[int, list[int]]]
"""(how many packs, the lengths of the rows in each)."""


def tightest(lengths: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Packs of rows as (offsets int64[P + 1], rows int64[R]): pack p holds
    rows[offsets[p]:offsets[p + 1]], in the order of the file.

    Never more packs than `best_fit`. Raises ValueError for a row over `max_length`.
    """
    offsets, rows = best_fit(lengths, max_length)
    fewest, best_share = len(offsets) - 1, _GRID[0]
    best: Patterns | None = None
    enough = at_least(lengths, max_length) / NEAR
    work, tried = 0, set[int]()
    for step in (0, *_STEPS):
        for share in (best_share - step, best_share + step) if step else _GRID:
            spare = max(0, share) * max_length // 256
            if fewest <= enough or work > _WORK or spare in tried:
                continue
            tried.add(spare)
            patterns, looked = _filled(lengths, max_length, spare)
            work += looked
            count = sum(times for times, _ in patterns)
            if count < fewest:
                fewest, best, best_share = count, patterns, share
    return (offsets, rows) if best is None else _laid_out(lengths, best)


def best_fit(lengths: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Best-fit decreasing, in the shapes of `tightest`: each row, longest first, goes where least
    room is left over (Johnson 1973: at most 11/9 of the optimum)."""
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
    """A pack for every row, in the order of the file; the shapes of `tightest`."""
    return np.arange(count + 1, dtype=np.int64), np.arange(count, dtype=np.int64)


def at_least(lengths: np.ndarray, max_length: int) -> int:
    """A number of packs that no packing can do without: the larger of all tokens over
    `max_length`, and of Martello and Toth's bound L2 (1990), which knows that rows of more than
    half a pack never share one, and what still fits beside them."""
    if not len(lengths):
        return 0
    values = np.sort(lengths.astype(np.int64))
    sums = np.concatenate([[0], np.cumsum(values)])
    small = np.unique(values[values <= max_length // 2])
    least = np.concatenate([[0], small])  # rows shorter than this are left out of the count
    first = np.searchsorted(values, least, "left")
    half = np.searchsorted(values, max_length // 2, "right")
    large = np.searchsorted(values, max_length - least, "right")
    alone, shared = len(values) - large, large - half
    room = shared * max_length - (sums[large] - sums[half])
    rest = np.maximum(0, sums[half] - sums[np.minimum(first, half)] - room)
    bounds = alone + shared + -(-rest // max_length)
    return max(int(bounds.max()), -(-int(sums[-1]) // max_length))


def _filled(lengths: np.ndarray, max_length: int, spare: int) -> tuple[Patterns, int]:
    """Packs filled one at a time, each begun with the longest row that is left: with the row that
    fills it but for `spare` tokens if there is one, else with two, else with the longest that
    fits and on in the same way. Rows are counted by their length, so that a way to fill a pack is
    found once and used as often as there are rows for it.

    Keeping to few rows a pack (`spare` > 0) saves the short rows for those packs that two rows
    of middle length would leave a third empty. Returns the packs and how many lengths were
    looked at.
    """
    counts = np.bincount(lengths, minlength=max_length + 1)
    present = np.flatnonzero(counts)
    patterns: Patterns = []
    looked = 0
    while len(present):
        looked += len(present)
        pattern = [int(present[-1])]
        counts[pattern[0]] -= 1
        room = max_length - pattern[0]
        shortest = int(present[0])
        while room >= shortest:
            fitting = present[: np.searchsorted(present, room, "right")]
            fitting = fitting[counts[fitting] > 0]
            if not len(fitting):
                break
            for length in _best(fitting, counts, room, spare):
                counts[length] -= 1
                pattern.append(length)
                room -= length
        counts += np.bincount(pattern, minlength=max_length + 1)
        used, needed = np.unique(pattern, return_counts=True)
        times = int((counts[used] // needed).min())
        counts[used] -= times * needed
        patterns.append((times, pattern))
        present = present[counts[present] > 0]
    return patterns, looked


def _best(fitting: np.ndarray, counts: np.ndarray, room: int, spare: int) -> list[int]:
    """What goes into `room` next. `fitting` int64[n]: lengths up to `room` of which rows are left,
    ascending."""
    longest, shortest = int(fitting[-1]), int(fitting[0])
    if room - longest <= spare or 2 * shortest > room:
        return [longest]
    # For every length the longest other one beside it: of itself only where there are two.
    place = np.searchsorted(fitting, room - fitting, "right") - 1
    place -= (place >= 0) & (fitting[place] == fitting) & (counts[fitting] < 2)
    both = np.where(place >= 0, fitting + fitting[place], 0)
    at = len(both) - 1 - int(both[::-1].argmax())  # of equal pairs the most unequal
    if both[at] <= longest:
        return [longest]
    if room - both[at] <= spare or 3 * shortest > room:
        return [int(fitting[at]), int(fitting[place[at]])]
    return [longest]


def _laid_out(lengths: np.ndarray, patterns: Patterns) -> tuple[np.ndarray, np.ndarray]:
    """Rows for the packs, those of one length in the order of the file."""
    order = np.argsort(lengths, kind="stable")
    values, starts = np.unique(lengths[order], return_index=True)
    following = dict(zip(values.tolist(), starts.tolist(), strict=True))
    pack_of = np.zeros(len(lengths), dtype=np.int64)
    packs = 0
    for times, pattern in patterns:
        for length in pattern:
            start = following[length]
            pack_of[order[start : start + times]] = np.arange(packs, packs + times)
            following[length] = start + times
        packs += times
    return _grouped(pack_of, packs)


def _grouped(pack_of: np.ndarray, packs: int) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(packs + 1, dtype=np.int64)
    np.cumsum(np.bincount(pack_of, minlength=packs), out=offsets[1:])
    return offsets, np.argsort(pack_of, kind="stable").astype(np.int64)
