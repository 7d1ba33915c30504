"""Power cuts: a home on a loop ext4 that is shut down under it, and everything unsynced is gone.

    python -m tests.faults.cuts [--every N] [SCENARIO…]

The act is killed at a system call or a crash point, and the filesystem shut down before the
kernel wrote back by itself (EXT4_IOC_SHUTDOWN without flushing the log). What was acknowledged
was heard outside. Prints one JSON object a cut: {scenario, point, wrong[]}. Needs root.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults import strace
from tests.faults.bench import Bench, aftermath, forked, points_of, scratch
from tests.faults.looked import Ack
from tests.faults.scenarios import NAMES, Scenario, perform, prepare
from tests.faults.world import ears, one_thread

EXT4_IOC_SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32)"""
NO_LOG_FLUSH = 2
SIZE = 192 << 20
"""Bytes of the image, nearly all of them a hole: a checkpoint wants 64 MiB free beside it."""


@functools.cache
def missing() -> str:
    """Why no power can be cut here, "" where it can."""
    if os.geteuid() != 0:
        return "power cuts need root"
    if shutil.which("mkfs.ext4") is None:
        return "no mkfs.ext4 here"
    with tempfile.TemporaryDirectory() as folder:
        try:
            image = make_image(Path(folder) / "probe")
            with mounted(image, Path(folder) / "m") as place:
                cut(place)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no loop ext4 here: {error}"
    return ""


def make_image(path: Path) -> Path:
    """An empty ext4 in a sparse file."""
    with path.open("wb") as file:
        file.truncate(SIZE)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=4", "-E", "lazy_itable_init=1", path)
    return path


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    _run("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        _run("umount", place)


def cut(place: Path) -> None:
    """The power goes: nothing that was not synced reaches the disk any more."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(fd)


class CutBench:
    """Images with the home as it is before an act, and copies of them to cut."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = folder / "mounted"
        self._ready: dict[str, tuple[Path, list[Ack]]] = {}

    def template(self, scenario: Scenario) -> tuple[Path, list[Ack]]:
        if scenario.name not in self._ready:
            image = make_image(self.folder / f"{scenario.name}.img")
            with mounted(image, self.place) as place, ears() as heard:
                code = forked(lambda: prepare(scenario, place / "home"), heard)
                assert code == 0, f"{scenario.name} cannot be made ready: {code}"
                os.sync()
                self._ready[scenario.name] = image, heard.listen()
        return self._ready[scenario.name]

    def cut_at(self, scenario: Scenario, point: str) -> list[str]:
        """Perform the act until a crash point or a call ("fsync:signal=KILL:when=3"), cut the
        power there, and judge what the disk has."""
        template, before = self.template(scenario)
        image = self.folder / "cut.img"
        _run("cp", "--sparse=always", template, image)
        with ears() as heard:
            with mounted(image, self.place) as place:
                act = functools.partial(perform, scenario, place / "home")
                if "=" in point:
                    strace.run(act, heard, point)
                else:
                    forked(act, heard, point)
                acks = before + heard.listen()
                cut(place)
            with mounted(image, self.place) as place:
                left = self.folder / "left"
                _run("cp", "-a", "--", place / "home", left)
        wrong = aftermath(left, acks, scenario)
        shutil.rmtree(left)
        return wrong


def moments(bench: Bench, scenario: Scenario) -> list[str]:
    """Every crash point, and, where strace works, every sync and change of a name."""
    found = points_of(bench, scenario)
    if not strace.missing():
        root = bench.copy(bench.template(scenario)[0])
        _, calls = strace.run(lambda: perform(scenario, root))
        found += strace.points(
            calls,
            "signal=KILL:when={n}",
            ("fsync", "fdatasync", "renameat2", "rename", "unlink", "linkat", "link", "sendto"),
        )
        shutil.rmtree(root)
    return found


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--every", type=int, default=1, help="only each Nth moment")
    given = parser.parse_args()
    one_thread()
    # The images on a real disk: memory could not be shut down.
    with scratch() as memory, tempfile.TemporaryDirectory(prefix="trainctl-cuts-") as disk:
        bench, cuts = Bench(memory), CutBench(Path(disk))
        for number, name in enumerate(given.scenarios or list(NAMES)):
            for point in moments(bench, NAMES[name])[number % given.every :: given.every]:
                told: dict[str, Any] = {"scenario": name, "point": point}
                told["wrong"] = cuts.cut_at(NAMES[name], point)
                print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.exit(main())
