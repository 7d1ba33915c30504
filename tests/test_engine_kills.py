"""SIGKILL between any two acts on disk, with the real engine: what was acknowledged is there, and
every row of every item that is done trained exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine_kit import ROOT

FEW = ("take.renamed", "checkpoint.committed:2", "rollback.published")
ALL = (
    *("intake.taken", "intake.copied", "publish.synced:2", "publish.renamed:4", "publish.done:5"),
    *("checkpoint.captured", "checkpoint.captured:2", "checkpoint.captured:3"),
    *("checkpoint.written", "checkpoint.hashed:2", "checkpoint.sealed:3"),
    *("checkpoint.before_commit:2", "checkpoint.committed", "version.sealed:2"),
    *("version.committed", "version.verified:2", "rollback.saved", "rollback.before_commit"),
    *("rollback.committed", "prune.journaled", "prune.journaled:2", "step:7"),
)


def kill_at(points: tuple[str, ...], folder: Path, background: str = "auto") -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine_forks", str(folder), background, *points],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["point"] for one in told] == list(points), done.stderr
    for one in told:
        assert one["ended"] == -signal.SIGKILL, f"{one}\n{done.stderr}"
        assert one["recovers"] == one["trains"] == 0, f"{one}\n{done.stderr}"
        assert one["killed"] == one["recovered"] == one["trained"] == [], one
        assert set(one["states"].values()) <= {"done", "skipped"}, one


def test_a_kill_at_any_point_loses_nothing_and_trains_nothing_twice(tmp_path: Path) -> None:
    kill_at(FEW, tmp_path)


@pytest.mark.slow
def test_a_kill_at_every_point_loses_nothing_and_trains_nothing_twice(tmp_path: Path) -> None:
    kill_at(ALL, tmp_path)


@pytest.mark.slow
def test_a_kill_at_every_point_of_a_checkpoint_in_line(tmp_path: Path) -> None:
    points = tuple(p for p in ALL if p.startswith(("publish", "checkpoint")))
    kill_at(tuple(p for p in points if "captured" not in p), tmp_path, "off")
