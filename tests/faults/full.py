"""A filesystem that is really full: a small tmpfs with only so many kilobytes left for the act.

    python -m tests.faults.full [--step KB] [SCENARIO…]

Prints one JSON object a size: {scenario, point, wrong[]}. Needs root, for the mount.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from queue_store.errors import TrainctlError
from snapshots import checkpoints
from tests.faults.bench import Bench, aftermath, forked, scratch
from tests.faults.scenarios import NAMES, Scenario, perform
from tests.faults.strace import REFUSED
from tests.faults.world import ears, one_thread

SIZE_MB = 16
UP_TO_KB = 480
"""So much is more than any act here writes."""


@functools.cache
def missing() -> str:
    """Why no small filesystem can be made here, "" where it can."""
    if os.geteuid() != 0:
        return "a small filesystem needs root"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small(Path(folder)):
                return ""
        except subprocess.CalledProcessError as error:
            return f"no mounts here: {error.stderr.decode().strip()}"


@contextmanager
def small(place: Path) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(place)]
    subprocess.run(words, check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, left_kb: int) -> Path:
    """A file that leaves only so much; removing it is what a person does."""
    filler = place / "filler"
    left = shutil.disk_usage(place).free - (left_kb << 10)
    with filler.open("wb") as file:
        file.write(b"\0" * left)
    return filler


def refusing(act: Callable[[], object]) -> None:
    """End as an act that was refused the disk does: with an error of the known families."""
    try:
        act()
    except (TrainctlError, OSError, sqlite3.Error):
        os._exit(REFUSED)


def with_only(bench: Bench, scenario: Scenario, kb: int, place: Path) -> tuple[int, list[str]]:
    """Perform the act with so much room; how it ended, and what is wrong afterwards."""
    template, before = bench.template(scenario)
    with small(place):
        root = place / "home"
        subprocess.run(["cp", "-a", "--", str(template), str(root)], check=True)
        filler = fill(place, kb)
        with ears() as heard:
            ended = forked(lambda: refusing(lambda: perform(scenario, root)), heard)
            acks = before + heard.listen()
        wrong = [] if ended in (0, REFUSED) else [f"it was not refused cleanly: {ended}"]
        filler.unlink()
        return ended, wrong + aftermath(root, acks, scenario)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*")
    parser.add_argument("--step", type=int, default=8, help="kilobytes between two sizes")
    given = parser.parse_args()
    one_thread()
    checkpoints.MARGIN = 0  # else every save would be refused before it begins
    with scratch() as folder:
        bench = Bench(folder)
        for name in given.scenarios or list(NAMES):
            for kb in range(0, UP_TO_KB, given.step):
                ended, wrong = with_only(bench, NAMES[name], kb, folder / "small")
                told: dict[str, Any] = {"scenario": name, "point": f"{kb} KB", "ended": ended}
                print(json.dumps(told | {"wrong": wrong}), flush=True)
                if ended == 0:
                    break  # it fits; more room is more of the same


if __name__ == "__main__":
    sys.exit(main())
