"""Controls one after the other, in orders that nobody plans: sensible answers, and a home in which
everything agrees afterwards."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from engine.training import state as engine_state
from queue_store import intake, queue, transitions
from queue_store.errors import NoEngine, Refused
from queue_store.home import Home
from queue_store.items import Priority
from tests import engine_kit as kit
from tests.faults.checker import check
from tests.waiting import wait_until
from trainctl.commands.control import _skipped


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home that is looked through from outside when the test is over."""
    made = kit.make_home(tmp_path)
    yield made
    assert check(made.root) == []


def retry(running: kit.Running, item: int) -> None:
    with kit.opened(running.home) as state:
        transitions.retry(state, item)
    running.engine.wake()


def ask_at(running: kit.Running, step: int, command: str, **arguments: Any) -> Future[Any]:
    """Submit a command exactly when that step is reported; its future."""
    board, asked = running.engine.board, []
    original = board.step

    def reported(metric: Any) -> None:
        original(metric)
        if metric.step == step:
            asked.append(running.engine.submit(command, arguments))

    board.step = reported  # type: ignore[method-assign]
    wait_until(lambda: asked, timeout=120, what=f"step {step}")
    return asked[0]


def test_parked_at_an_items_last_step_nothing_is_lost(home: Home) -> None:
    kit.add(home, "a.jsonl", 24)
    with kit.Running(home) as running:
        running.pause_at(1)
        assert running.status["item"]["steps"] == 5
        running.engine.submit("resume", {})
        ask_at(running, 5, "pause", park=True).result(60)
        worker = running.engine.worker
        assert worker is not None
        wait_until(lambda: worker.live is None, timeout=30)
        assert kit.states(home) == {"a.jsonl": "done"}
        running.ask("resume")
        running.wait_trained()


def test_parked_while_preparing_the_memory_is_freed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.loop import worker as module

    kit.add(home, "a.jsonl", 24)
    original, running = module.make_ready, kit.Running(home)
    parked: list[Future[Any]] = []

    def parks_meanwhile(*arguments: Any, **named: Any) -> Any:
        if not parked:
            parked.append(running.engine.submit("pause", {"park": True}))
            assert not arguments[-1](), "a pause does not break preparing off"
        return original(*arguments, **named)

    monkeypatch.setattr(module, "make_ready", parks_meanwhile)
    with running:
        wait_until(lambda: parked and parked[0].done(), timeout=60)
        worker = running.engine.worker
        assert worker is not None
        wait_until(lambda: worker.live is None, timeout=30)
        assert kit.states(home) == {"a.jsonl": "paused"}
        running.ask("resume")
        running.wait_trained()


def test_undoing_tells_what_trains_again_with_it(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path, training={"save_steps": 1000}, snapshots={"save_seconds": 1000})
    kit.add(home, "a.jsonl", 8)
    kit.add(home, "b.jsonl", 40, 2)
    with kit.Running(home) as running:
        running.pause_at(8)
        assert kit.states(home) == {"a.jsonl": "trained", "b.jsonl": "training"}
        undone = running.ask("skip", undo=True)
        assert undone["again"] == ["a.jsonl"] and undone["global_step"] == 0
        said = _skipped(undone)
        assert said.endswith(": step 0; what had trained since then trains again: a.jsonl")
        running.ask("resume")
        running.wait_trained()
    assert kit.states(home) == {"a.jsonl": "done", "b.jsonl": "skipped"}


def test_undoing_a_preempted_item_while_another_trains(home: Home) -> None:
    kit.add(home, "a.jsonl", 40)
    with kit.Running(home) as running:
        running.pause_at(3)
        kit.add(home, "b.jsonl", 30, 2, Priority.HIGH)
        running.engine.wake()
        running.pause_at(5)
        assert kit.states(home) == {"a.jsonl": "paused", "b.jsonl": "training"}
        undone = running.ask("skip", item=1, undo=True)
        assert undone["global_step"] == 0 == running.step
        running.ask("resume")
        running.wait_trained()
    assert kit.states(home) == {"a.jsonl": "skipped", "b.jsonl": "done"}
    with kit.Running(kit.make_home(home.root / "other")) as other:
        kit.add(other.home, "b.jsonl", 30, 2)
        other.engine.wake()
        wait_until(lambda: kit.states(other.home)["b.jsonl"] == "done", timeout=120)
    assert kit.head(other.home).weights_digest == kit.head(home).weights_digest


def test_undo_of_an_item_that_never_trained_moves_nothing(home: Home) -> None:
    kit.add(home, "a.jsonl", 40)
    kit.add(home, "b.jsonl", 30, 2)
    with kit.Running(home) as running:
        running.pause_at(3)
        assert running.ask("skip", item=2, undo=True)["global_step"] == 3
        assert kit.states(home) == {"a.jsonl": "paused", "b.jsonl": "skipped"}
        running.ask("resume")
        running.wait_trained()
    assert {row["branch"] for row in kit.steps(home)} == {1}


def test_rollbacks_over_branches_while_paused_and_parked(home: Home) -> None:
    kit.add(home, "a.jsonl", 40)
    kit.add(home, "b.jsonl", 20, 2)
    with kit.Running(home) as running:
        running.pause_at(2)
        assert running.ask("save") == running.ask("save"), "nothing new"
        names = [running.ask("snapshot_version")["name"] for _ in range(2)]
        assert names == ["v001", "v002"]
        running.pause_at(6)
        assert running.ask("rollback")["step"] == 2
        with pytest.raises(Exception, match="step before 2"):
            running.ask("rollback")
        running.ask("pause", park=True)
        assert running.ask("rollback", version="v003")["step"] == 6, "on the branch left"
        worker = running.engine.worker
        assert worker is not None and worker.live is None, "still parked"
        running.ask("resume")
        running.wait_trained()
    assert kit.states(home) == {"a.jsonl": "done", "b.jsonl": "done"}


def test_skip_retry_and_requests_after_the_end(home: Home) -> None:
    kit.add(home, "a.jsonl", 40)
    with kit.Running(home) as running:
        running.pause_at(3)
        running.ask("skip", reason="enough")
        with pytest.raises(Refused, match="no item is training"):
            running.ask("skip")
        retry(running, 1)
        running.pause_at(5)
        with kit.opened(home) as state:
            queue.set_priority(state, 1, Priority.LOW)
            with pytest.raises(Refused, match="skip it instead"):
                intake.remove(state, 1)
        running.ask("handover")
        assert running.engine.join(60)
        for command in ("pause", "resume", "nonsense"):
            with pytest.raises(NoEngine):
                running.ask(command)
    with kit.Running(home) as running:
        running.unpause()
        running.wait_trained()
        with kit.opened(home) as state, pytest.raises(Refused, match="done"):
            transitions.retry(state, 1)


def test_many_threads_ask_at_once_and_each_gets_an_answer(home: Home) -> None:
    kit.add(home, "a.jsonl", 200)
    commands = ["pause", "resume", "save", "snapshot_version", "resume", "skip", "rollback"]
    answers: list[Future[Any]] = []
    with kit.Running(home) as running:
        running.wait_step(1)

        def asks(number: int) -> None:
            for n in range(3):
                command = commands[(number + 3 * n) % len(commands)]
                answers.append(running.engine.submit(command, {}))

        threads = [threading.Thread(target=asks, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        running.engine.submit("resume", {})
        wait_until(lambda: all(f.done() for f in answers), timeout=120)
        assert len(answers) == 60
        assert {type(f.exception()).__name__ for f in answers} <= {
            "NoneType",
            "Refused",
            "NotFound",
        }


def test_a_disk_that_fills_up_while_a_checkpoint_is_written_pauses(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    full = [True]
    original = engine_state.write_optimizer

    def writes(*arguments: Any) -> None:
        if full[0]:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        original(*arguments)

    monkeypatch.setattr(engine_state, "write_optimizer", writes)
    kit.add(home, "a.jsonl", 60)
    with kit.Running(home) as running:
        wait_until(lambda: running.status["state"] == "paused", timeout=60)
        assert "No space left" in running.status["hint"]
        assert kit.states(home) == {"a.jsonl": "training"} and kit.head(home).step == 0
        full[0] = False
        running.ask("resume")
        running.wait_trained()
    kit.assert_each_row_once(home, 1)


def test_one_thing_in_the_inbox_does_not_close_it_for_others(home: Home) -> None:
    (home.inbox / os.fsdecode(b"odd\xff.txt")).touch()
    (home.inbox / "folder.jsonl" / "inner").mkdir(parents=True)
    os.mkfifo(home.inbox / "fifo.jsonl")
    with kit.Running(home) as running:
        wait_until(lambda: running.status["state"] == "idle", timeout=60)
        with kit.opened(home) as state:
            wait_until(lambda: len(queue.waiting(state)) == 3, timeout=30)
        kit.write_rows(home.root / "new", 12, 1).rename(home.inbox / "\x1b]52;c;x\x07\n.jsonl")
        wait_until(lambda: "done" in kit.states(home).values(), timeout=60)


def test_a_file_whose_rows_are_all_too_long_says_so(home: Home) -> None:
    turns = [{"role": "user", "content": "x " * 900}, {"role": "assistant", "content": "y"}]
    long = home.root / "long.jsonl"
    long.write_text(json.dumps({"messages": turns}) + "\n")
    with kit.opened(home) as state:
        intake.add_file(state, long)
    with kit.Running(home) as running:
        wait_until(lambda: kit.states(home)["long.jsonl"] == "failed", timeout=60)
        assert running.engine.error is None
    with kit.opened(home) as state:
        assert queue.get(state, 1).error == (
            "long.jsonl: no row can train: 1 longer than max_length 128"
        )
