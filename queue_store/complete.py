"""Whether a file in the inbox is complete, or still being written.

A file is complete when its name is no temporary one; its size, times and inode did not change
for the quiet time; no process holds it open for writing (a read lease is granted only then);
and its last line ends, or nothing happened for a minute. What is in it is the row check's matter.

Must never block: no open of a FIFO, no waiting for a lease, no reading of the whole file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

TEMPORARY = (".tmp", ".part", ".partial", ".filepart")
"""Endings of names that copying programs use until they are done."""

OPEN_LINE_SECONDS = 60.0
"""After so long without a change, a last line without a newline is taken as it is."""

UNLEASED_FACTOR = 5.0
"""Where leases do not work (another's file, a network disk), the quiet time is so much longer."""

WRITER_SECONDS = 0.25
"""How soon to look again at a file that a process has open: its closing makes no event."""


class Writer(Enum):
    """Whether a process holds a file open for writing."""

    NONE = "none"
    OPEN = "open"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Look:
    """What tells one state of a file from another: device, inode, size in bytes, times in ns."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @staticmethod
    def of(info: os.stat_result) -> Look:
        return Look(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def ignored(name: str) -> bool:
    """Whether a name is hidden or a temporary one: such a file is not there for us."""
    return name.startswith(".") or name.lower().endswith(TEMPORARY)


def odd_kind(info: os.stat_result) -> str:
    """Why a thing that is no regular file is not taken; "" for a regular file."""
    if stat.S_ISREG(info.st_mode):
        return ""
    if stat.S_ISLNK(info.st_mode):
        return "a symbolic link; put the file itself here"
    if stat.S_ISDIR(info.st_mode):
        return "a folder; put files in inbox, inbox/high or inbox/low"
    return "no regular file"


@dataclass(frozen=True)
class Verdict:
    """Whether a file may be taken now; if not, why, and in how many seconds it may be different
    (None: only when something about it changes)."""

    complete: bool
    reason: str = ""
    seconds: float | None = None


@contextmanager
def held(path: Path) -> Iterator[tuple[int, Writer]]:
    """The file open for reading, under a read lease if that is possible, and who writes it.

    While the lease is held an opener for writing waits, so what was seen stays so until the end
    of the block. Raises OSError where it cannot be read (ELOOP for a link).
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd, _lease(fd)
    finally:
        os.close(fd)  # gives the lease back


def judge(fd: int, writer: Writer, calm: float, quiet_seconds: float) -> Verdict:
    """The verdict on an open file that did not change for `calm` seconds."""
    if writer is Writer.OPEN:
        return Verdict(False, "open for writing by another process", WRITER_SECONDS)
    needed = quiet_seconds * (UNLEASED_FACTOR if writer is Writer.UNKNOWN else 1.0)
    if calm < needed:
        return Verdict(False, f"waiting until it is quiet for {needed:g} s", needed - calm)
    if not _last_line_ends(fd) and calm < OPEN_LINE_SECONDS:
        return Verdict(
            False,
            f"the last line has no newline; taken {OPEN_LINE_SECONDS:g} s after the last change",
            OPEN_LINE_SECONDS - calm,
        )
    return Verdict(True)


def _lease(fd: int) -> Writer:
    try:
        # A lease that is broken raises a signal, and the default one (SIGIO) would end this
        # process. SIGURG is ignored unless somebody asks for it.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writer.OPEN if error.errno == errno.EAGAIN else Writer.UNKNOWN
    return Writer.NONE


def _last_line_ends(fd: int) -> bool:
    """Whether the file's last byte is a newline; an empty file is a line not begun yet."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) == b"\n"
