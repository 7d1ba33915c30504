"""A really small filesystem (tmpfs) and how to fill it to the last byte; a folder that is mounted
read-only. Root only."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs of that size at `place`; skips, with the reason, where none can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small filesystem")
    place.mkdir()
    options = f"size={megabytes}m,mode=700"
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def read_only_mount(folder: Path, place: Path) -> Iterator[Path]:
    """`folder` seen at `place`, where nobody can write; skips, with the reason, where that cannot
    be mounted. What is written to `folder` itself is seen there."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a folder read-only")
    place.mkdir()
    words = ["mount", "--bind", str(folder), str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no folder can be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(folder: Path, name: str = "filler") -> Path:
    """Write until not one more byte fits; the file that holds it all."""
    path = folder / name
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    break
    return path


def free(folder: Path) -> int:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize
