"""An item trains in two processes: the same commands, the same checkpoints, the same weights."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from queue_store import config as configuration
from queue_store import transitions
from queue_store.home import Home
from queue_store.items import Priority
from queue_store.lock import EngineLock
from tests import engine_kit as kit
from tests import ranks_engine as many
from tests.waiting import wait_until
from trainctl.host import Host

GROUP_SECONDS = 4.0
"""An injected time limit of the collectives, which a pause outlasts."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = many.make_home(tmp_path_factory.mktemp("undisturbed"))
    return kit.train_all(home)


def test_paused_asked_saved_killed_and_continued_the_weights_are_the_same(
    undisturbed: str, tmp_path: Path
) -> None:
    home = many.make_home(tmp_path, launch={"timeout_minutes": GROUP_SECONDS / 60})
    with kit.Running(home) as running:
        running.pause_at(3)
        paused = time.monotonic()
        seen = running.status["processes"]
        assert (seen["size"], seen["kind"], seen["nodes"]) == (2, "ddp", 1)
        first, second = seen["ranks"]
        assert [first["rank"], second["rank"]] == [0, 1] and first["pid"] != second["pid"]
        assert first["device"] == "cpu"
        answer = running.ask("generate", prompt="What is 2 + 2?", max_tokens=4)
        assert answer["tokens"] and answer["step"] == 3
        assert running.ask("save")["step"] == 3
        wait_until(lambda: time.monotonic() - paused > 1.5 * GROUP_SECONDS, timeout=60)
        running.ask("resume")
        running.pause_at(6)
        assert running.ask("save")["step"] == 6
        running.ask("resume")
        running.pause_at(9)
        many.kill(second["pid"])
        wait_until(lambda: many.attempts(home)[-1][0], timeout=60, what="the failure's record")
        cause, error = many.attempts(home)[-1]
        assert cause == "killed" and f"rank 1 on {second['host']}" in error and "SIGKILL" in error
        assert kit.states(home) == {"a.jsonl": "paused"} and kit.head(home).step == 6
        many.wait_gone(first["pid"], second["pid"])
        running.ask("resume")
        running.wait_trained()
    assert kit.states(home) == {"a.jsonl": "done"} and many.below() == []
    kit.assert_each_row_once(home, 1)
    assert kit.head(home).weights_digest == undisturbed


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_goes_on_in_one_and_back(
    undisturbed: str, tmp_path: Path
) -> None:
    home = many.make_home(tmp_path)
    with kit.Running(home) as running:
        running.pause_at(4)
        running.ask("stop")
    set_processes(home, 1)
    with kit.Running(home) as running:
        running.pause_at(8)
        assert running.status["processes"]["size"] == 1
        running.ask("stop")
    set_processes(home, 2)
    kit.train_all(home)
    kit.assert_each_row_once(home, 1)
    alone = kit.make_home(tmp_path / "alone")
    kit.add(alone, "a.jsonl", many.ROWS, 1)
    kit.train_all(alone)
    same_losses(home, alone)


def same_losses(home: Home, other: Home) -> None:
    """Step by step, as near as sums in another order come."""
    found, wanted = ({row["step"]: row["loss"] for row in kit.steps(one)} for one in (home, other))
    assert found.keys() == wanted.keys()
    assert all(abs(found[step] - wanted[step]) < 1e-3 for step in wanted), (found, wanted)


def set_processes(home: Home, count: int) -> None:
    """Edit config.toml."""
    raw = tomllib.loads(home.config.read_text())
    raw["training"]["processes"] = count
    home.config.write_text(tomli_w.dumps(raw))


@pytest.mark.slow
def test_parked_no_process_is_left_and_resumed_the_weights_are_the_same(
    undisturbed: str, tmp_path: Path
) -> None:
    home = many.make_home(tmp_path)
    with kit.Running(home) as running:
        running.pause_at(6)
        pids = [rank["pid"] for rank in many.ranks(running)]
        running.ask("pause", park=True)
        wait_until(lambda: "unknown" in running.status["processes"], timeout=60)
        many.wait_gone(*pids)
        assert many.below() == []
        running.ask("resume")
        running.wait_trained()
    assert kit.head(home).weights_digest == undisturbed


@pytest.mark.slow
def test_skip_stop_and_rollback_in_two_processes(tmp_path: Path) -> None:
    home = many.make_home(tmp_path)
    kit.add(home, "b.jsonl", 30, 2)
    with kit.Running(home) as running:
        running.pause_at(4)
        version = running.ask("snapshot_version")
        running.ask("resume")
        running.pause_at(7)
        pids = {rank["pid"] for rank in many.ranks(running)}
        back = running.ask("rollback", version=version["name"])
        assert back["step"] == running.step == 4
        assert {r["pid"] for r in many.ranks(running)} == pids, "the ranks load again"
        running.ask("resume")
        running.pause_at(6)
        assert running.ask("skip", undo=True)["undone"] is True
        running.ask("resume")
        running.wait_trained()
    assert kit.states(home) == {"a.jsonl": "skipped", "b.jsonl": "done"}
    kit.assert_each_row_once(home, 2)
    only = many.make_home(tmp_path / "only")
    with kit.opened(only) as state:
        transitions.skip(state, 1, "not this one")
    kit.add(only, "b.jsonl", 30, 2)
    assert kit.train_all(only) == kit.head(home).weights_digest


def preempted(home: Home, *, killed: bool = False) -> Home:
    """A second file takes over at step 4; with `killed`, a rank dies while that one trains."""
    with kit.Running(home) as running:
        running.pause_at(4)
        before = [rank["pid"] for rank in running.status["processes"]["ranks"]]
        kit.add(home, "high.jsonl", 20, 5, Priority.HIGH)
        running.engine.wake()
        running.pause_at(6)
        assert running.status["item"]["name"] == "high.jsonl"
        pids = [rank["pid"] for rank in running.status["processes"]["ranks"]]
        assert pids == before, "the same processes train it"
        if killed:
            running.ask("save")
            many.kill(before[1])
            wait_until(lambda: many.attempts(home, 2)[-1][0], timeout=60, what="its record")
        running.ask("resume")
        running.wait_trained()
    kit.assert_each_row_once(home, 1)
    kit.assert_each_row_once(home, 2)
    return home


@pytest.mark.slow
def test_a_file_of_higher_priority_takes_over_and_the_first_goes_on(tmp_path: Path) -> None:
    calm = preempted(many.make_home(tmp_path / "calm"))
    killed = preempted(many.make_home(tmp_path / "killed"), killed=True)
    assert kit.head(calm).weights_digest == kit.head(killed).weights_digest
    alone = kit.make_home(tmp_path / "alone")
    kit.add(alone, "a.jsonl", many.ROWS, 1)
    preempted(alone)
    same_losses(calm, alone)


@pytest.mark.slow
def test_handed_over_to_the_background_other_processes_go_on_to_the_same_weights(
    undisturbed: str, tmp_path: Path, trainctl: Any
) -> None:
    home = many.make_home(tmp_path)
    config = configuration.load(home.config)
    host = Host(home, config, EngineLock.acquire(home, "console"), "console")
    session = host.started()

    def step() -> int:
        return int(session.request("snapshot")["global_step"])

    wait_until(lambda: step() >= 3, timeout=180, what="step 3")
    first = {rank["pid"] for rank in session.request("snapshot")["processes"]["ranks"]}
    pid = host.hand_over()
    try:
        many.wait_gone(*first)
        wait_until(lambda: kit.states(home) == {"a.jsonl": "done"}, timeout=180, what="the item")
        seen = json.loads(trainctl("status", "--json", home=home).out)
        assert seen["engine"]["pid"] == pid and seen["processes"]["size"] == 2
        ranks = {rank["pid"] for rank in seen["processes"]["ranks"]}
        assert len(ranks) == 2 and not ranks & first
        assert trainctl("stop", home=home).code == 0
        many.wait_gone(pid, *ranks)
    finally:
        if many.lives(pid):
            many.kill(pid)
    kit.assert_each_row_once(home, 1)
    assert kit.head(home).weights_digest == undisturbed


@pytest.mark.slow
def test_a_split_model_trains_is_saved_and_goes_on(tmp_path: Path) -> None:
    home = many.make_home(tmp_path, training={"parallel": "fsdp"}, samples={"count": 0})
    with kit.Running(home) as running:
        running.pause_at(4)
        assert running.status["processes"]["kind"] == "fsdp"
        answer = running.ask("generate", prompt="What is 2 + 2?", max_tokens=4)
        assert answer["tokens"]
        running.ask("stop")
    disturbed = kit.train_all(home)
    kit.assert_each_row_once(home, 1)
    straight = many.make_home(tmp_path / "straight", training={"parallel": "fsdp"})
    assert kit.train_all(straight) == disturbed


@pytest.mark.slow
def test_an_edit_of_the_processes_holds_from_the_next_item_on(tmp_path: Path) -> None:
    home = many.make_home(tmp_path)
    with kit.Running(home) as running:
        running.pause_at(4)
        set_processes(home, 1)
        running.ask("resume")
        running.wait_trained()
        assert running.status["processes"]["size"] == 2, "the item goes on as it began"
        kit.add(home, "b.jsonl", 20, 2)
        running.engine.wake()
        wait_until(lambda: kit.states(home)["b.jsonl"] == "done", timeout=120)
        assert running.status["processes"]["size"] == 1 and many.below() == []
    kit.assert_each_row_once(home, 2)
