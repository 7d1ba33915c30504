"""Stopped anywhere and continued, the weights are bit-identical; every row trains exactly once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from queue_store import queue
from queue_store.home import Home
from queue_store.items import ItemState, Priority
from tests import engine_kit as kit
from tests.engine_process import EngineProcess
from tests.waiting import wait_until

FILES = (("a.jsonl", 40, 1), ("b.jsonl", 30, 2), ("c.jsonl", 50, 3))


# The small model always fits, so that "auto" writes beside training; "off" writes in line.
WAYS = pytest.mark.parametrize("background", ["auto", "off"])


def three_files(folder: Path, **changes: dict[str, object]) -> Home:
    home = kit.make_home(folder, **changes)
    for name, rows, seed in FILES:
        kit.add(home, name, rows, seed)
    return home


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    home = three_files(tmp_path_factory.mktemp("undisturbed"))
    return home, kit.train_all(home)


def test_three_files_in_a_row_carry_on_step_optimizer_and_schedule(
    undisturbed: tuple[Home, str],
) -> None:
    home, _ = undisturbed
    rows = kit.steps(home)
    assert [r["step"] for r in rows] == list(range(1, len(rows) + 1))
    assert [r["item"] for r in rows] == sorted(r["item"] for r in rows)
    rates = [r["learning_rate"] for r in rows]
    assert rates[:10] == sorted(rates[:10]) and rates[0] < rates[9]
    assert set(rates[10:]) == {1e-3}
    for item in (1, 2, 3):
        kit.assert_each_row_once(home, item)
    assert set(kit.states(home).values()) == {"done"}


def test_training_changes_the_weights_and_the_seed_decides_them(
    undisturbed: tuple[Home, str], tmp_path: Path
) -> None:
    _, digest = undisturbed
    home = three_files(tmp_path, training={"seed": 7})
    assert kit.train_all(home) != digest


def test_a_pause_costs_at_most_one_step_and_changes_nothing(
    undisturbed: tuple[Home, str], tmp_path: Path
) -> None:
    home = three_files(tmp_path)
    with kit.Running(home) as running:
        running.pause_at(6)
        assert running.status["state"] == "paused"
        assert running.ask("save")["step"] == 6 == running.step
        running.ask("resume")
        running.wait_trained()
    assert kit.head(home).weights_digest == undisturbed[1]


@WAYS
def test_stop_and_restart_at_any_step_give_the_same_weights(
    undisturbed: tuple[Home, str], tmp_path: Path, background: str
) -> None:
    home = three_files(tmp_path, snapshots={"background": background})
    for step in (2, 7, 8, 12):
        with kit.Running(home) as running:
            running.pause_at(step)
            running.ask("stop")
    assert kit.train_all(home) == undisturbed[1]
    for item in (1, 2, 3):
        kit.assert_each_row_once(home, item)


def test_sigterm_saves_and_ends(undisturbed: tuple[Home, str], tmp_path: Path) -> None:
    home = three_files(tmp_path, training={"save_steps": 1000})
    child = EngineProcess(home, {})
    wait_until(lambda: kit.states(home).get("a.jsonl") == "training", timeout=120)
    child.send_signal(signal.SIGTERM)
    assert child.wait(120) == 0
    assert kit.head(home).step > 0
    assert kit.train_all(home) == undisturbed[1]


@pytest.mark.parametrize(
    ("at", "background"),
    [
        ("step:3", "auto"),
        ("step:8", "auto"),
        ("step:8", "off"),
        ("checkpoint.captured:2", "auto"),
        ("checkpoint.before_commit:2", "auto"),
        ("publish.renamed:2", "auto"),
        ("publish.renamed:2", "off"),
    ],
)
def test_sigkill_loses_at_most_the_steps_since_the_last_checkpoint(
    undisturbed: tuple[Home, str], tmp_path: Path, at: str, background: str
) -> None:
    home = three_files(tmp_path, snapshots={"background": background})
    assert EngineProcess(home, {"TRAINCTL_CRASH_AT": at}).wait(120) == -signal.SIGKILL
    assert kit.train_all(home) == undisturbed[1]
    for item in (1, 2, 3):
        kit.assert_each_row_once(home, item)


@WAYS
def test_a_handover_gives_the_same_weights(
    undisturbed: tuple[Home, str], tmp_path: Path, background: str
) -> None:
    home = three_files(tmp_path, snapshots={"background": background})
    with kit.Running(home) as running:
        running.pause_at(6)
        running.ask("handover")
        assert running.engine.join(60)
    assert kit.train_all(home) == undisturbed[1]


def preempted(folder: Path) -> str:
    home = kit.make_home(folder)
    a = kit.add(home, "a.jsonl", 40, 1)
    with kit.Running(home) as running:
        running.pause_at(4)
        high = kit.add(home, "high.jsonl", 20, 5, Priority.HIGH)
        running.engine.wake()
        running.ask("resume")
        running.wait_trained()
    turn = [row["item"] for row in kit.steps(home)]
    assert turn[:5] == [a.id] * 4 + [high.id]
    assert turn[5:] == sorted(turn[5:], reverse=True), "high whole, then the rest of a"
    kit.assert_each_row_once(home, a.id)
    kit.assert_each_row_once(home, high.id)
    return kit.head(home).weights_digest


def test_a_higher_priority_takes_over_at_the_next_step_and_both_finish(tmp_path: Path) -> None:
    assert preempted(tmp_path / "one") == preempted(tmp_path / "two")


def test_skip_with_undo_is_as_if_the_item_had_never_been(tmp_path: Path) -> None:
    without = kit.make_home(tmp_path / "without")
    kit.add(without, "a.jsonl", 40, 1)
    kit.add(without, "c.jsonl", 50, 3)
    wanted = kit.train_all(without)
    home = three_files(tmp_path / "with")
    with kit.Running(home) as running:
        wait_until(lambda: kit.states(home)["b.jsonl"] == "training", timeout=60)
        result = running.ask("skip", undo=True, reason="wrong file")
        assert result["undone"] is True
        running.wait_trained()
    assert kit.head(home).weights_digest == wanted
    assert kit.states(home) == {"a.jsonl": "done", "b.jsonl": "skipped", "c.jsonl": "done"}
    kit.assert_each_row_once(home, 1)
    assert kit.steps(home, 2) == []


def test_skip_that_keeps_goes_on_from_what_it_taught(tmp_path: Path) -> None:
    home = three_files(tmp_path)
    with kit.Running(home) as running:
        running.pause_at(4)
        result = running.ask("skip", reason="enough")
        running.ask("resume")
        assert 0 < result["cursor"] < 40
        running.wait_trained()
    assert kit.states(home) == {"a.jsonl": "skipped", "b.jsonl": "done", "c.jsonl": "done"}
    assert kit.steps(home, 1)[-1]["cursor_to"] == result["cursor"]
    with kit.opened(home) as state:
        item = queue.get(state, 1)
    assert (item.state, item.reason) == (ItemState.SKIPPED, "enough")
