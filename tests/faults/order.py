"""The order of system calls that a power cut would show, read off a trace: data before its name,
the name before the row, the row on the disk before anybody is told, a deletion after its event.

Finds a missing sync on any machine where strace works, without a disk to cut the power of.
"""

from __future__ import annotations

import re
from pathlib import PurePath

from tests.faults.strace import Call

FINAL = ("items", "checkpoints", "versions", "trash", "quarantine")
"""Folders of the store whose names a row or a person relies on."""

_QUOTED = re.compile(r'"(/[^"]*)"')
_FD = re.compile(r"^\d+<(/[^>]*)>")


class _Disk:
    """What would not survive a power cut at this moment."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.data: dict[str, int] = {}
        """Files with bytes that were not synced, and since which call."""
        self.names: dict[str, int] = {}
        """Folders with names that were not synced."""
        self.moved: dict[str, int] = {}
        """Final names given since the last commit."""
        self.wrong: list[str] = []
        self.commits = 0

    def final(self, path: str) -> bool:
        return any(path.startswith(f"{self.store}/{name}/") for name in FINAL)

    def under(self, path: str, marks: dict[str, int]) -> list[str]:
        return [one for one in marks if one == path or one.startswith(path + "/")]


def problems(calls: list[Call], root: str) -> list[str]:
    """What a power cut could take in a trace of one thread, a line each."""
    disk = _Disk(f"{root}/store")
    for number, call in enumerate(calls):
        if call.result < 0 and call.name != "sendto":
            continue
        at = _FD.match(call.arguments)
        path = at[1] if at else ""
        quoted = _QUOTED.findall(call.arguments)
        if call.name in ("write", "pwrite64", "ftruncate") and path.startswith(root):
            disk.data[path] = number
        elif call.name in ("fsync", "fdatasync"):
            if path.endswith("state.db-wal"):
                _commit(disk)
            disk.data.pop(path, None)
            disk.names.pop(path, None)
        elif call.name in ("mkdir", "mkdirat", "link", "linkat"):
            disk.names[str(PurePath(quoted[-1]).parent)] = number
        elif call.name in ("rename", "renameat", "renameat2"):
            _renamed(disk, quoted[0], quoted[-1], number)
        elif call.name in ("unlink", "unlinkat", "rmdir") and quoted:
            _unlinked(disk, quoted[0])
        elif call.name == "sendto":
            _told(disk)
    return disk.wrong


def _renamed(disk: _Disk, source: str, target: str, number: int) -> None:
    loose = disk.under(source, disk.data)
    if disk.final(target):
        if loose and source.startswith(f"{disk.store}/tmp/"):
            disk.wrong.append(f"{target} gets its name before its bytes are synced")
        if disk.under(source, disk.names):
            disk.wrong.append(f"{target} gets its name before the names in it are synced")
        disk.moved[target] = number
    for one in loose:
        disk.data[target + one.removeprefix(source)] = disk.data.pop(one)
    for one in disk.under(source, disk.names):
        disk.names[target + one.removeprefix(source)] = disk.names.pop(one)
    if target.startswith(disk.store):
        disk.names[str(PurePath(target).parent)] = number


def _commit(disk: _Disk) -> None:
    """The database's log is synced: what its rows speak of must be on the disk by now."""
    for target in disk.moved:
        if disk.under(target, disk.data):
            disk.wrong.append(f"a row is committed before the bytes of {target}")
        if str(PurePath(target).parent) in disk.names:
            disk.wrong.append(f"a row is committed before the name of {target}")
    disk.moved.clear()
    disk.commits += 1


def _unlinked(disk: _Disk, path: str) -> None:
    if disk.final(path) and any(one.endswith("state.db-wal") for one in disk.data):
        disk.wrong.append(f"{path} is removed before its event is on the disk")


def _told(disk: _Disk) -> None:
    for path in disk.data:
        if path.endswith("state.db-wal"):
            disk.wrong.append("somebody is told before the commit is on the disk")
        elif disk.final(path):
            disk.wrong.append(f"somebody is told before {path} is on the disk")
    for target in disk.moved:
        if str(PurePath(target).parent) in disk.names:
            disk.wrong.append(f"somebody is told before the name of {target} is on the disk")
