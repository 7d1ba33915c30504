"""Checkpoints that are written beside training: what they hold, when the head moves, and that
nothing which needs the live state in the head, or moves the head, is fooled by one under way."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.loop import background, saving
from engine.reading.views import Views
from queue_store import journal, queue
from queue_store.errors import ProcessEnd
from queue_store.home import Home
from queue_store.items import ItemState, Priority
from tests import engine_kit as kit
from tests.faults.checker import check
from tests.waiting import wait_until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home that is looked through from outside when the test is over."""
    made = kit.make_home(tmp_path)
    yield made
    assert check(made.root) == []
    assert not list(made.tmp.iterdir())


class Gate:
    """Holds the writing thread: `held` once a write waits, until `open` is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        self.fails: Exception | None = None
        self._opened = threading.Event()
        original = background.write_state

        def waits(folder: Path, captured: Any) -> None:
            if not threading.current_thread().name.startswith(background.THREAD):
                return original(folder, captured)
            self.writes += 1
            assert self._opened.wait(60)
            original(folder, captured)
            if self.fails is not None:
                raise self.fails

        monkeypatch.setattr(background, "write_state", waits)

    def open(self) -> None:
        self._opened.set()

    def wait_held(self) -> None:
        wait_until(lambda: self.writes, timeout=60, what="a write aside")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open()


def digest_at(folder: Path, step: int, *files: tuple[str, int, int]) -> str:
    """The weights after so many undisturbed steps, saved in line."""
    home = kit.make_home(folder, snapshots={"background": "off"}, training={"save_steps": 1000})
    for name, rows, seed in files:
        kit.add(home, name, rows, seed)
    with kit.Running(home) as running:
        running.pause_at(step)
        running.ask("save")
        return kit.head(home).weights_digest


def later(act: Callable[[], Any], seconds: float = 0.3) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


def test_training_goes_on_while_it_is_written_and_it_holds_the_moment_of_its_capture(
    home: Home, gate: Gate, tmp_path: Path
) -> None:
    kit.add(home, "a.jsonl", 80)
    with kit.Running(home) as running:
        gate.wait_held()
        running.wait_step(9)
        status = running.status
        assert (status["state"], status["phase"]) == ("training", background.PHASE)
        assert kit.head(home).step == 0 and gate.writes == 1, "never two at once"
        running.pause_at(12)
        gate.open()
        wait_until(lambda: kit.head(home).step == 5, timeout=30, what="the head moves while paused")
        assert running.step == running.status["global_step"] == 12
        first = kit.head(home)
        with kit.opened(home) as state:
            event = [e for e in journal.latest(state, 1000) if e.kind == "checkpoint"][-1]
            assert queue.get(state, 1).cursor == first.cursor
        assert event.step == 5 and 0 < event.data["stall"] < event.data["seconds"]
        running.ask("resume")
        running.wait_trained()
    assert first.weights_digest == digest_at(tmp_path / "clean", 5, ("a.jsonl", 80, 1))
    kit.assert_each_row_once(home, 1)


def test_what_trains_to_its_end_while_it_is_written_is_not_made_done_by_it(
    home: Home, gate: Gate
) -> None:
    a, b = kit.add(home, "a.jsonl", 30), kit.add(home, "b.jsonl", 60, 2)
    with kit.Running(home) as running:
        gate.wait_held()
        wait_until(lambda: kit.states(home)["b.jsonl"] == "training", timeout=60)
        running.ask("pause")
        gate.open()
        wait_until(lambda: kit.head(home).step == 5, timeout=30)
        assert kit.states(home)["a.jsonl"] == "trained"
        progress = kit.head(home).progress
        assert a.id in progress.cursors and not progress.finished
        assert 0 < progress.cursors[a.id][0] < 30
        assert running.ask("save")["step"] == running.step
        assert kit.states(home)["a.jsonl"] == "done"
        assert kit.head(home).progress.finished == {a.id}
        running.ask("resume")
        running.wait_trained()
    for item in (a, b):
        kit.assert_each_row_once(home, item.id)


@pytest.mark.parametrize("command", ["save", "snapshot_version", "stop", "handover", "park"])
def test_who_needs_the_live_state_in_the_head_waits_for_it(
    home: Home, gate: Gate, command: str
) -> None:
    kit.add(home, "a.jsonl", 80)
    with kit.Running(home) as running:
        gate.wait_held()
        running.pause_at(8)
        opens = later(gate.open)
        if command == "park":
            running.ask("pause", park=True)
        else:
            answer = running.ask(command)
            assert answer["step"] == 8
        opens.join()
        if command in ("stop", "handover"):
            assert running.engine.join(60)
        assert kit.head(home).step == 8
    kit.train_all(home)
    kit.assert_each_row_once(home, 1)


def test_undo_and_rollback_complete_it_first_and_leave_its_line(home: Home, gate: Gate) -> None:
    kit.add(home, "a.jsonl", 30)
    kit.add(home, "b.jsonl", 60, 2)
    with kit.Running(home) as running:
        gate.wait_held()
        wait_until(lambda: kit.states(home)["b.jsonl"] == "training", timeout=60)
        opens = later(gate.open)
        undone = running.ask("skip", undo=True)
        opens.join()
        assert undone["undone"] and undone["global_step"] == 5 == kit.head(home).step
        running.pause_at(6)
        made = running.ask("snapshot_version")
        running.ask("resume")
        running.wait_trained()
        assert kit.states(home) == {"a.jsonl": "done", "b.jsonl": "skipped"}
        kit.add(home, "c.jsonl", 60, 3)
        running.engine.wake()
        wait_until(lambda: kit.states(home)["c.jsonl"] == "training", timeout=60)
        assert running.ask("rollback", version=made["name"])["step"] == 6
        running.wait_trained()
    kit.assert_each_row_once(home, 1)


def test_an_item_that_fails_goes_back_to_what_was_being_written(
    home: Home, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.trainer import StepTrainer

    original, worker_step = StepTrainer.training_step, []

    def fails(self: StepTrainer, *arguments: object, **named: object) -> object:
        worker_step.append(1)
        if gate.writes and len(worker_step) > 16:
            later(gate.open)
            raise ValueError("made up")
        return original(self, *arguments, **named)

    monkeypatch.setattr(StepTrainer, "training_step", fails)
    kit.add(home, "a.jsonl", 80)
    with kit.Running(home) as running:
        wait_until(lambda: kit.states(home)["a.jsonl"] == "failed", timeout=60)
        wait_until(lambda: running.status["state"] == "idle", timeout=60)
        assert kit.head(home).step == 5 == running.step


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a defect")]
)
def test_where_it_cannot_be_written_training_pauses_and_nothing_is_left_of_it(
    home: Home, gate: Gate, error: Exception
) -> None:
    kit.add(home, "a.jsonl", 80)
    gate.fails = error
    with kit.Running(home) as running:
        gate.wait_held()
        running.wait_step(7)
        gate.open()
        wait_until(lambda: running.status["state"] == "paused", timeout=60)
        assert str(error) in running.status["hint"] and "not saved" in running.status["hint"]
        assert kit.head(home).step == 0 and not list(home.checkpoints.iterdir())
        assert not list(home.tmp.iterdir())
        with kit.opened(home) as state:
            told = [e for e in journal.latest(state, 100) if e.kind == "checkpoint.failed"]
        assert [e.step for e in told] == [5]
        gate.fails = None
        running.ask("resume")
        running.wait_trained()
    kit.assert_each_row_once(home, 1)


def test_a_save_by_hand_is_the_second_try_of_one_that_failed(home: Home, gate: Gate) -> None:
    kit.add(home, "a.jsonl", 80)
    gate.fails = OSError(errno.EDQUOT, "Disk quota exceeded")
    with kit.Running(home) as running:
        gate.wait_held()
        running.pause_at(8)
        opens = later(gate.open)
        assert running.ask("save")["step"] == 8 == kit.head(home).step
        opens.join()
        gate.fails = None
        running.ask("resume")
        running.wait_trained()


@pytest.mark.parametrize("how", ["aside", "save"])
def test_an_io_error_ends_the_process_and_is_no_failure_of_the_item(
    home: Home, gate: Gate, how: str
) -> None:
    kit.add(home, "a.jsonl", 80)
    gate.fails = OSError(errno.EIO, "Input/output error")
    with kit.Running(home) as running:
        gate.wait_held()
        running.pause_at(8)
        asked = running.engine.submit("save", {}) if how == "save" else None
        gate.open()
        assert running.engine.join(60)
        assert isinstance(running.engine.error, ProcessEnd)
        assert asked is None or asked.exception() is not None
    assert kit.head(home).step == 0 and kit.states(home) == {"a.jsonl": "training"}
    gate.fails = None
    kit.train_all(home)
    kit.assert_each_row_once(home, 1)


@pytest.mark.parametrize("why", ["off", "no memory", "no memory after all"])
def test_without_memory_or_by_the_settings_it_is_written_in_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    snapshots = {"background": "off"} if why == "off" else {}
    home = kit.make_home(tmp_path / "home", snapshots=snapshots)
    if why == "no memory":
        monkeypatch.setattr("engine.training.hostcopy.free_memory", lambda: 1000)
    if why == "no memory after all":

        def fails(*_: object) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr("engine.training.hostcopy._fitting", fails)
    here = []
    original = saving.write
    monkeypatch.setattr(saving, "write", lambda *a: here.append(1) or original(*a))
    monkeypatch.setattr(background, "write", lambda *a: pytest.fail("written aside"))
    kit.add(home, "a.jsonl", 40)
    assert kit.train_all(home)
    assert len(here) >= 2
    kit.assert_each_row_once(home, 1)
    assert check(home.root) == [] and not list(home.tmp.iterdir())


def test_a_preempted_item_and_its_checkpoint_under_way_keep_their_cursor(
    home: Home, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = kit.add(home, "a.jsonl", 60)
    with kit.Running(home) as running:
        gate.wait_held()
        running.pause_at(7)
        high = kit.add(home, "high.jsonl", 20, 5, Priority.HIGH)
        running.engine.wake()
        running.ask("resume")
        running.wait_step(9)
        monkeypatch.setattr(Views, "live", lambda self: True)  # the kit's lock is a test's
        with Views(home) as views:  # no checkpoint contains it, and it is not at its beginning
            (shown,) = [i for i in views.queue("paused") if i["id"] == a.id]
            reached = views.history(item=a.id)[-1]["cursor_to"]
            assert (shown["step"], shown["cursor"]) == (7, reached)
            (row,) = [i for i in views.queue_list() if i["id"] == a.id]
            assert (row["step"], row["cursor"]) == (shown["step"], shown["cursor"])
        gate.open()
        running.wait_trained()
    for item in (a, high):
        kit.assert_each_row_once(home, item.id)
    with kit.opened(home) as state:
        assert queue.get(state, a.id).state is ItemState.DONE
