"""One engine per home, also while the lock is being handed on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.lock import EngineLock, holder, wait_free

HOLD = """
import sys, pathlib
from queue_store.home import Home
from queue_store.lock import EngineLock
home = Home(pathlib.Path(sys.argv[1]))
if len(sys.argv) > 2:
    lock = EngineLock.adopt(int(sys.argv[2]), home)
    lock.describe("daemon")
else:
    lock = EngineLock.acquire(home, "console")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


def start(home: Home, fd: int | None = None) -> subprocess.Popen[bytes]:
    arguments = [] if fd is None else [str(fd)]
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.root), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=() if fd is None else (fd,),
        cwd=Path(__file__).parent.parent,
    )
    assert child.stdout and child.stdout.readline() == b"held\n"
    return child


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


def test_a_second_start_is_refused_and_told_who_holds_the_home(home: Home) -> None:
    child = start(home)
    try:
        with pytest.raises(Refused) as refused:
            EngineLock.acquire(home)
        message = str(refused.value)
        assert f"process {child.pid}" in message and "console" in message and "since" in message
        assert "\n" not in message
        found = holder(home)
        assert found and (found["pid"], found["mode"]) == (child.pid, "console")
        assert found["started"] > 0 and found["host"]
    finally:
        end(child)


def test_a_killed_holder_leaves_the_lock_free(home: Home) -> None:
    child = start(home)
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert wait_free(home, 5)
    with EngineLock.acquire(home) as lock:
        assert holder(home) is not None and lock.fd >= 0
    assert holder(home) is None


def test_nobody_ever_held_a_fresh_home(home: Home) -> None:
    assert holder(home) is None and not home.lock.exists()


def test_a_lock_handed_on_is_never_free_in_between(home: Home) -> None:
    lock = EngineLock.acquire(home, "console")
    child = start(home, lock.fd)
    try:
        lock.release()
        found = holder(home)
        assert found and (found["pid"], found["mode"]) == (child.pid, "daemon")
        with pytest.raises(Refused):
            EngineLock.acquire(home)
        assert not wait_free(home, 0.05)
    finally:
        end(child)
    assert wait_free(home, 5)


def test_it_stays_locked_until_the_last_holder_is_gone(home: Home) -> None:
    lock = EngineLock.acquire(home, "console")
    end(start(home, lock.fd))
    assert holder(home) is not None
    lock.release()
    assert holder(home) is None


def test_looking_at_the_lock_disturbs_nobody_who_wants_it(home: Home) -> None:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            holder(home)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for thread in lookers:
        thread.start()
    try:
        for _ in range(40):
            EngineLock.acquire(home).release()
    finally:
        over.set()
        for thread in lookers:
            thread.join()


def test_our_children_do_not_inherit_the_lock_unasked(home: Home) -> None:
    lock = EngineLock.acquire(home)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lock.release()
        assert holder(home) is None
    finally:
        end(child)


def test_a_file_that_is_not_this_homes_lock_is_not_adopted(home: Home, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    fd = os.open(tmp_path / "other", os.O_RDWR)
    try:
        with pytest.raises(Refused):
            EngineLock.adopt(fd, home)
    finally:
        os.close(fd)


def test_the_lock_is_private_and_says_who_even_after_damage(home: Home) -> None:
    with EngineLock.acquire(home, "daemon") as lock:
        assert home.lock.stat().st_mode & 0o777 == 0o600
        assert json.loads(home.lock.read_text())["pid"] == os.getpid()
        os.pwrite(lock.fd, b"\xff\xfe rubbish", 0)
        found = holder(home)
        assert found and "unknown" in found["pid"]
        with pytest.raises(Refused):
            EngineLock.acquire(home)
