"""One engine per home: `flock` on store/engine.lock, with who holds it written inside.

The lock belongs to the open file, not to the process: a child that is given the file
descriptor (`pass_fds`) holds it too, and it is free only when every holder closed it or died.
Must never delete the lock file (two processes could then each lock their own), and never
unlock: `LOCK_UN` by one holder would take it from all of them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from queue_store.database import now
from queue_store.durable import make_folder
from queue_store.errors import Refused, TrainctlError
from queue_store.home import Home

PROBE_SECONDS = 0.25
"""How long `acquire` tries: longer than the moment for which `holder` has a shared lock."""

POLL_SECONDS = 0.02
_CONTENT_LIMIT = 4096


class EngineLock:
    """The held lock. `fd` can be handed to a child process; close it with `release`."""

    def __init__(self, home: Home, fd: int) -> None:
        self.home = home
        self.fd = fd
        self._since = now()

    @classmethod
    def acquire(cls, home: Home, mode: str = "command") -> EngineLock:
        """Take the home's lock and write who we are: `mode` is console, headless, daemon or
        the command's name. Raises Refused saying who holds it."""
        deadline = time.monotonic() + PROBE_SECONDS
        while True:
            fd = _open(home)
            if _try(fd, fcntl.LOCK_EX):
                if _is_current(home, fd):
                    lock = cls(home, fd)
                    lock.describe(mode)
                    return lock
            elif time.monotonic() > deadline:
                os.close(fd)
                raise _refusal(home, read_holder(home))
            os.close(fd)
            time.sleep(POLL_SECONDS)

    @classmethod
    def adopt(cls, fd: int, home: Home) -> EngineLock:
        """The lock that a parent process handed on as `fd`. It stays out of our own children.

        Raises Refused where `fd` is not this home's lock or somebody else holds it.
        """
        try:
            ours = _is_current(home, fd)
        except OSError:
            ours = False
        if not ours:
            raise Refused("the lock handed on is not that of this home", where=str(home.lock))
        os.set_inheritable(fd, False)
        if not _try(fd, fcntl.LOCK_EX):
            raise _refusal(home, read_holder(home))
        return cls(home, fd)

    def describe(
        self, mode: str, pid: int | None = None, supervisor_pid: int | None = None
    ) -> None:
        """Write who holds the lock: `pid` (this process), mode, since when this object holds it,
        host, and who supervises."""
        content = {
            "pid": os.getpid() if pid is None else pid,
            "mode": mode,
            "started": self._since,
            "host": socket.gethostname(),
            "supervisor_pid": supervisor_pid,
        }
        data = json.dumps(content).encode() + b"\n"
        # In place, for the lock is on this inode. Written before it is cut to length: a reader
        # in between sees the new line with an old tail, and takes the first object of it.
        os.pwrite(self.fd, data, 0)
        os.ftruncate(self.fd, len(data))

    def release(self) -> None:
        """Close our hold on the lock; others who were handed it keep theirs. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> EngineLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(home: Home) -> dict[str, Any] | None:
    """Who runs an engine on this home, `{pid, mode, started, host}`; None when nobody does.

    What is unreadable in the file is {"unknown": why}. Looks through a shared lock of a few
    microseconds, for which `acquire` waits; it never makes the lock's file.
    """
    try:
        fd = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TrainctlError(f"cannot be read: {error.strerror}", where=str(home.lock)) from None
    try:
        if _try(fd, fcntl.LOCK_SH):
            return None
    finally:
        os.close(fd)
    return read_holder(home)


def wait_free(home: Home, timeout: float) -> bool:
    """Wait until no engine holds the home, at most `timeout` seconds. True when it is free."""
    deadline = time.monotonic() + timeout
    while holder(home) is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def read_holder(home: Home) -> dict[str, Any]:
    """What the lock's file says of its last holder, whether that one lives or not."""
    unknown = {"unknown": "the lock's file does not say"}
    answer: dict[str, Any] = dict.fromkeys(("pid", "mode", "started", "host"), unknown)
    try:
        with home.lock.open("rb") as file:
            text = file.read(_CONTENT_LIMIT).decode()
        content, _ = json.JSONDecoder().raw_decode(text)
        answer.update({key: content[key] for key in answer})
        answer["supervisor_pid"] = content.get("supervisor_pid")
    except (OSError, ValueError, KeyError, TypeError):
        return answer
    return answer


def _refusal(home: Home, who: dict[str, Any]) -> Refused:
    started, pid = who["started"], who["pid"]
    since = ""
    if isinstance(started, int | float):
        since = time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(started))
    process = f"process {pid}" if isinstance(pid, int) else "another process"
    mode = f" ({who['mode']}{since})" if isinstance(who["mode"], str) else since
    return Refused(
        f"{process} runs an engine on this home{mode}",
        where=str(home.root),
        mend="attach with `trainctl`, or end it with `trainctl stop`",
    )


def _open(home: Home) -> int:
    make_folder(home.store)
    try:
        return os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise TrainctlError(f"cannot be opened: {error.strerror}", where=str(home.lock)) from None


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise TrainctlError(f"the engine's lock does not work here: {error.strerror}") from None
        return False
    return True


def _is_current(home: Home, fd: int) -> bool:
    """Whether the open file is still the one that stands at the lock's name."""
    opened = os.fstat(fd)
    try:
        named = Path(home.lock).lstat()
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
