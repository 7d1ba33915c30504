"""Where the home lies: permissions, the filesystem, its free space, and the reserve."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

from queue_store import config as configuration
from queue_store import reserve as reserved
from queue_store.errors import TrainctlError
from queue_store.home import Home
from trainctl.doctor.check import Check, listed, rows
from trainctl.output import size

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph"})
IN_MEMORY = frozenset({"tmpfs", "ramfs"})
NO_SYNC = frozenset({"nobarrier", "barrier=0", "volatile"})
SMALL = 2_000_000_000


def permissions(home: Home) -> Check:
    """Nobody else may write the home, nor read the store; folders, databases and the socket are
    the user's alone."""
    wrong = []
    folders = (home.items, home.checkpoints, home.versions, home.backups, home.logs, home.tmp)
    for path, forbidden in (
        (home.root, 0o022),
        (home.store, 0o077),
        *((folder, 0o077) for folder in (*folders, home.trash, home.quarantine, home.prepared)),
        (home.state_db, 0o077),
        (home.metrics_db, 0o077),
        (home.socket, 0o077),
    ):
        try:
            info = path.lstat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(info.st_mode)
        if mode & forbidden:
            wrong.append(f"chmod {mode & ~forbidden:o} {path}")
        if info.st_uid != os.getuid():
            wrong.append(f"chown {os.getuid()} {path}")
    if not os.access(home.root, os.W_OK | os.X_OK):
        wrong.append(f"{home.root} cannot be written")
    found = "too open" if wrong else "the user's alone"
    return Check("permissions", not wrong, found, "; ".join(wrong))


def disk(home: Home) -> Check:
    """Free space against what a checkpoint takes, and against warn_free and stop_free."""
    from engine.reading.status import free_limit

    free = shutil.disk_usage(home.root).free
    one = _checkpoint_size(home)
    if one is None:
        advice = "" if free > SMALL else "a checkpoint of a small model may not fit"
        return Check("disk", not advice, f"{size(free)} free", advice)
    found = f"{size(free)} free, room for {free // one} checkpoints of {size(one)}"
    try:
        rules = configuration.load(home.config).snapshots
    except TrainctlError:
        return Check("disk", free // one >= 3, found)  # `settings` has told
    stop, warn = free_limit(rules.stop_free, one), free_limit(rules.warn_free, one)
    if free - one < stop:
        advice = f"free some: training pauses, for {size(stop)} are to stay free (stop_free)"
    elif free < warn:
        advice = f"less than {size(warn)} (warn_free): free some soon"
    else:
        advice = ""
    return Check("disk", not advice, found, advice)


def _checkpoint_size(home: Home) -> int | None:
    """Bytes of the newest checkpoint that has files of its own, None where there is none."""
    query = "SELECT size_bytes FROM checkpoints WHERE size_bytes > 0 ORDER BY id DESC LIMIT 1"
    try:
        found = rows(home.state_db, query) if home.state_db.exists() else []
    except sqlite3.Error:
        return None
    return int(found[0][0]) if found else None


def reserve(home: Home) -> Check:
    """The disk set aside so that the database can commit when it is full."""
    have = reserved.size(home)
    if have:
        return Check("reserve", True, f"{size(have)} set aside for a full disk")
    if not home.state_db.exists():
        return Check("reserve", True, "none yet: the engine makes it")
    need = reserved.wanted(home)
    roomy = shutil.disk_usage(home.store).free > 3 * need
    advice = "" if roomy else f"free some: {size(need)} are set aside once there is room"
    return Check("reserve", roomy, "none: the engine makes it when it runs", advice)


def filesystem(home: Home) -> Check:
    """Whether what is synced there stays, and whether a lock there is one."""
    kind, options = _mount(home.store)
    if kind in NETWORK:
        advice = "locks and syncs over a network are not to be trusted: use a disk of this machine"
        return Check("filesystem", False, f"{kind}, over the network", advice)
    if kind in IN_MEMORY:
        return Check("filesystem", False, f"{kind}, in memory", "all is gone with the next boot")
    if off := sorted(NO_SYNC & options):
        advice = "a power cut may take what was acknowledged: mount it without that option"
        return Check("filesystem", False, f"{kind} with {listed(off)}", advice)
    return Check("filesystem", True, kind or "unknown: /proc/self/mountinfo does not say")


def _mount(path: Path) -> tuple[str, set[str]]:
    """Type and options of the filesystem that a path lies on."""
    try:
        wanted = path.stat().st_dev
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "", set()
    for line in reversed(lines):
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if fields[2] == f"{os.major(wanted)}:{os.minor(wanted)}" and len(kinds) >= 3:
            return kinds[0], {*fields[5].split(","), *kinds[2].split(",")}
    return "", set()
