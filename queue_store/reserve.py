"""Disk set aside in store/reserve, so that the database can still commit on a full disk.

Really allocated. Dropped when the disk is full (by whoever finds it so, before its transaction);
made anew by a chore when there is room. While it is gone nothing but the database may count on
the bytes it left: training is paused by whoever could not save.
"""

from __future__ import annotations

import os

from queue_store import durable
from queue_store.home import Home

LEAST, MOST = 16 << 20, 256 << 20
MARGIN = 8 << 20
LOW = 4 << 20
"""Free bytes below which a transaction drops the reserve first."""


def wanted(home: Home) -> int:
    """Bytes to set aside: the databases' and a margin."""
    size = MARGIN
    for path in (home.state_db, home.metrics_db):
        for end in ("", "-wal"):
            try:
                size += path.with_name(path.name + end).stat().st_size
            except FileNotFoundError:
                continue
    return min(MOST, max(LEAST, size))


def size(home: Home) -> int:
    """Bytes set aside now, as the disk counts them; 0 where there is no reserve."""
    try:
        return home.reserve.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def keep(home: Home) -> bool:
    """Make the reserve, or grow it, where there is room for it and as much again stays free.
    True when it was made now. Raises OSError."""
    need = wanted(home)
    have = size(home)
    if have >= need:
        return False
    if durable.free_bytes(home.store) < 2 * need + LOW:
        return False
    durable.allocate(home.reserve, need, home)
    return True


def relieve(home: Home) -> int:
    """Drop the reserve where the disk is full; the bytes that it gave back, else 0. Cheap."""
    try:
        room = os.statvfs(home.store)
    except OSError:
        return 0
    if room.f_bavail * room.f_frsize >= LOW:
        return 0
    return drop(home)


def drop(home: Home) -> int:
    """Drop the reserve; the bytes that it gave back, 0 where there was none."""
    if not home.reserve.exists():
        return 0
    try:
        freed = durable.discard(home.reserve, home)
    except FileNotFoundError:  # another process was quicker
        return 0
    durable.crash_point("reserve.dropped")
    return freed
