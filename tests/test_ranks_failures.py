"""A rank, the agent, the engine or a host dies or stands still: all of a launch ends, and training
goes on from the last checkpoint to the same weights. Each test starts several launches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from safetensors.torch import load_file, save_file

from engine.training.tiny import make_tiny
from queue_store.home import Home
from tests import engine_kit as kit
from tests import ranks_engine as many
from tests.conftest import ROOT
from tests.engine_process import EngineProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return kit.train_all(many.make_home(tmp_path_factory.mktemp("undisturbed")))


def goes_on(running: kit.Running, home: Home, cause: str) -> str:
    """What the item's failed try says; then it trains to its end."""

    def said() -> list[str]:
        return [error for was, error in many.attempts(home) if was == cause]

    told = wait_until(said, timeout=180, what=cause)[0]
    running.unpause()
    running.wait_trained()
    kit.assert_each_row_once(home, 1)
    return told


def test_a_killed_agent_takes_its_ranks_along(undisturbed: str, tmp_path: Path) -> None:
    home = many.make_home(tmp_path)
    with kit.Running(home) as running:
        running.pause_at(7)
        pids = [rank["pid"] for rank in many.ranks(running)]
        many.kill(many.agent_of(many.ranks(running)[0]).pid)
        many.wait_gone(*pids)
        told = goes_on(running, home, "killed")
        assert "the agent" in told and "SIGKILL" in told
    assert many.below() == [] and kit.head(home).weights_digest == undisturbed


def test_a_rank_killed_in_the_middle_of_its_steps(undisturbed: str, tmp_path: Path) -> None:
    home = many.make_home(tmp_path)
    with kit.Running(home) as running:
        running.pause_at(3)
        first, _ = many.ranks(running)
        board = running.engine.board
        original = board.step

        def reported(metric: Any) -> None:
            original(metric)
            if metric.step == 6 and many.lives(first["pid"]):
                many.kill(first["pid"])  # the ranks are at the next one

        board.step = reported  # type: ignore[method-assign]
        running.ask("resume")
        told = goes_on(running, home, "killed")
        assert "rank 0 on" in told and "SIGKILL" in told
    assert many.below() == [] and kit.head(home).weights_digest == undisturbed


def test_the_engine_killed_leaves_no_process(undisturbed: str, tmp_path: Path) -> None:
    home = many.make_home(tmp_path)
    child = EngineProcess(home, {"TRAINCTL_CRASH_AT": "step:8"}, stay=True)
    pids: set[int] = set()

    def dead() -> bool:
        try:
            pids.update(p.pid for p in psutil.Process(child.pid).children(recursive=True))
        except psutil.Error:
            return True
        return not many.lives(child.pid)

    wait_until(dead, timeout=180, every=0.01)
    assert child.wait(120) == -signal.SIGKILL
    assert len(pids) >= 3, "an agent and two ranks were seen"
    many.wait_gone(*pids)
    assert kit.train_all(home) == undisturbed
    kit.assert_each_row_once(home, 1)


def test_a_rank_that_stands_still_is_named_and_ended(undisturbed: str, tmp_path: Path) -> None:
    home = many.make_home(tmp_path)
    with kit.Running(home) as running:
        running.pause_at(7)
        _, second = many.ranks(running)
        launch = running.engine.worker.live._launch  # type: ignore[union-attr]
        object.__setattr__(launch.processes, "stall_seconds", 12.0)
        many.kill(second["pid"], signal.SIGSTOP)
        running.ask("resume")
        told = goes_on(running, home, "hang")
        assert f"rank 1 on {second['host']}" in told and "does not move" in told
        many.wait_gone(second["pid"])
        assert "parallel.py" in (home.logs / "stacks.log").read_text(), "rank 0's stack"
    assert many.below() == [] and kit.head(home).weights_digest == undisturbed


def test_what_a_rank_raises_is_the_items_failure(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    make_tiny(base, 1)
    weights = load_file(base / "model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    home = many.make_home(tmp_path / "home", model={"base": str(base)})
    with kit.Running(home) as running:
        running.unpause()
        wait_until(lambda: "failed" in kit.states(home).values(), timeout=240)
    assert many.attempts(home) == [("not a number", "loss is nan at step 1")]
    assert many.below() == []


def test_hosts_that_do_not_come_are_said_and_a_stop_is_heard_meanwhile(tmp_path: Path) -> None:
    home = two_hosts(tmp_path, join_minutes=0.05)
    with kit.Running(home) as running:
        wait_until(lambda: running.status["paused"], timeout=240)
        assert "not all of 2 hosts came" in running.status["hint"]
        assert "trainctl join" in running.status["hint"]
        tries = [cause for cause, _ in many.attempts(home)]
        assert tries == ["not started"] * 3 and kit.states(home) == {"a.jsonl": "paused"}
    assert many.below() == [] and not home.launch_note.exists()
    late = two_hosts(tmp_path / "late", join_minutes=30.0)
    with kit.Running(late) as running:
        wait_until(lambda: late.launch_note.exists(), timeout=120)
        running.ask("stop")
    assert many.below() == [] and kit.states(late)["a.jsonl"] in ("queued", "paused")


def two_hosts(folder: Path, **launch: Any) -> Home:
    """A home that trains with a process on each of two hosts, both of them this machine."""
    launch |= {"nodes": 2, "rendezvous": f"127.0.0.1:{many.free_port()}"}
    return many.make_home(folder, training={"processes": 1}, launch=launch)


class Host:
    """A further host: `trainctl join` in a process of its own."""

    def __init__(self, home: Home) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trainctl", "join", "--home", str(home.root), "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def pids(self) -> list[int]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [p.pid for p in found if "engine.ranks.rank" in p.cmdline()]

    def end(self) -> list[str]:
        """The lines that it told."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=120)
        return [str(orjson.loads(line)["event"]) for line in out.splitlines()]


def test_two_hosts_and_one_that_is_lost_and_comes_again(undisturbed: str, tmp_path: Path) -> None:
    home = two_hosts(tmp_path, join_minutes=5.0)
    host = Host(home)
    try:
        with kit.Running(home) as running:
            running.pause_at(7)
            seen = running.status["processes"]
            assert (seen["size"], seen["nodes"]) == (2, 2)
            far = seen["ranks"][1]["pid"]
            assert host.pids() == [far], "rank 1 is the other host's"
            many.kill(far)
            told = goes_on(running, home, "killed")
            assert "another rank is gone" in told or "rank 1 on" in told
    finally:
        lines = host.end()
    launches = {line.split()[1].rstrip(":") for line in lines if line.startswith("launch")}
    assert len(launches) == 2, lines
    assert many.below() == [] and kit.head(home).weights_digest == undisturbed
