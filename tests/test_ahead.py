"""The next item is prepared while this one trains, and nothing depends on it."""

from __future__ import annotations

import signal
import types
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.loop import ahead as module
from engine.loop.ahead import Ahead, note
from engine.prepare import Cancelled
from engine.prepare.run import Run
from engine.training.items import Order, Settings
from queue_store import config as configuration
from queue_store import intake, journal, queue
from queue_store.home import Home
from queue_store.items import Item, ItemState
from tests import engine_kit as kit
from tests.test_imports import loaded_after
from tests.waiting import wait_until
from trainctl.commands.status import plain

CHILD = "engine.loop.prepare_ahead"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = kit.make_home(tmp_path)
    kit.add(made, "a.jsonl", 40, 1)
    kit.add(made, "b.jsonl", 30, 2)
    return made


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the items that were prepared in this process."""
    names: list[str] = []
    original = Run.write

    def write(self: Run, *arguments: Any) -> None:
        names.append(self.name)
        original(self, *arguments)

    monkeypatch.setattr(Run, "write", write)
    return names


def children() -> list[psutil.Process]:
    """The processes that prepare ahead."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if CHILD in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def item(home: Home, number: int) -> Item:
    with kit.opened(home) as state:
        return queue.get(state, number)


def told(home: Home, kind: str, number: int) -> list[str]:
    with kit.opened(home) as state:
        return [e.text for e in journal.events(state, 0, 500, [kind], number)]


def ended(running: kit.Running) -> bool:
    worker = running.engine.worker
    work = worker.ahead._work if worker is not None else None
    return work is not None and work.ended.is_set()


def test_the_next_item_is_prepared_in_another_process_while_this_one_trains(
    home: Home, written: list[str]
) -> None:
    with kit.Running(home) as running:
        running.pause_at(2)
        wait_until(lambda: item(home, 2).rows == 30, timeout=60)
        found = item(home, 2)
        assert found.state is ItemState.QUEUED and found.prepared is not None
        assert (home.prepared / found.prepared / "prepared.json").exists()
        assert told(home, "item.prepared", 2) == [
            f"b.jsonl prepared ahead: 30 rows, {found.steps} steps"
        ]
        wait_until(lambda: ended(running), timeout=30)
        assert running.status["ahead"] == {"unknown": "nothing is being prepared ahead"}
        running.ask("resume")
        running.wait_trained()
    assert written == ["a.jsonl"], "b was prepared elsewhere and found"
    for number in (1, 2):
        kit.assert_each_row_once(home, number)
    after = item(home, 2)
    assert (after.prepared, after.steps) == (found.prepared, found.steps)


def test_what_changes_before_its_turn_has_the_item_prepared_anew(
    home: Home, written: list[str]
) -> None:
    with kit.Running(home) as running:
        running.pause_at(2)
        wait_until(lambda: item(home, 2).rows == 30, timeout=60)
        ahead = item(home, 2).prepared
        # The engine's own copy of the sets' state is not asked: the key is.
        worker = running.engine.worker
        assert worker is not None
        worker.ahead.look = lambda *_: None  # type: ignore[method-assign]
        first = (home.items / item(home, 2).file).read_text().splitlines()[0]
        (home.evaluation / "held.jsonl").write_text(first + "\n")
        running.ask("resume")
        running.wait_trained()
    assert written.count("b.jsonl") == 1 and item(home, 2).prepared != ahead
    assert item(home, 2).rows == 29 and item(home, 2).held_out == 1


def test_a_process_that_is_killed_costs_nothing_but_its_work(
    home: Home, written: list[str]
) -> None:
    with kit.Running(home) as running:
        running.pause_at(2)
        wait_until(children, timeout=60, what="the process")
        assert running.status["ahead"]["name"] == "b.jsonl"
        assert "2 b.jsonl · preparing ahead, " in plain(running.status)
        (process,) = children()
        wait_until(lambda: process.nice() == 19, timeout=10, what="the lowest priority")
        leftover = home.tmp / f"prepared-{process.pid}-half"
        leftover.mkdir()
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: ended(running), timeout=30)
        assert not leftover.exists() and item(home, 2).rows is None
        running.ask("resume")
        running.wait_trained()
    assert written == ["a.jsonl", "b.jsonl"]
    kit.assert_each_row_once(home, 2)


def test_an_item_that_is_removed_meanwhile_disturbs_nothing(home: Home) -> None:
    with kit.Running(home) as running:
        running.pause_at(2)
        wait_until(children, timeout=60, what="the process")
        with kit.opened(home) as state:
            intake.remove(state, 2)
        wait_until(lambda: ended(running), timeout=30)
        running.ask("resume")
        running.wait_trained()
    assert kit.states(home) == {"a.jsonl": "done"}


def test_the_end_of_the_engine_ends_the_process(home: Home) -> None:
    with kit.Running(home) as running:
        running.pause_at(2)
        wait_until(children, timeout=60, what="the process")
    assert not children() and not list(home.tmp.glob("prepared-*"))
    with kit.opened(home) as state:
        assert queue.get(state, 2).state is ItemState.QUEUED


class Never:
    """An event that is set once `until` is."""

    def __init__(self, until: Any) -> None:
        self.until, self.waits = until, 0

    def wait(self, seconds: float) -> bool:
        self.waits += 1
        return self.is_set()

    def is_set(self) -> bool:
        return bool(self.until.is_set())


def test_a_turn_waits_for_the_process_no_longer_than_preparing_takes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, found = Ahead(home), item(home, 2)
    settings = Settings.of(configuration.load(home.config))
    order = Order.of(home, found, settings, home.models)
    work = ahead._work = module._Work(found, order, [], module.Event())
    work.ended = Never(work.called_off)  # type: ignore[assignment]
    heard: list[tuple[int, int]] = []

    def take(cancelled: bool = False) -> str:
        return ahead.take(
            found, settings, home.models, lambda *at: heard.append(at), lambda: cancelled
        )

    assert ahead.status == {"id": 2, "name": "b.jsonl", "progress": 0.0}
    with pytest.raises(Cancelled):
        take(cancelled=True)
    assert not work.called_off.is_set() and not heard
    # The module's own clock, a second later at each look: others of this process keep theirs.
    clock = types.SimpleNamespace(monotonic=iter(range(1000)).__next__)
    monkeypatch.setattr(module, "time", clock)
    work.progress(50, 100)
    assert take() == "" and work.called_off.is_set()
    assert heard and set(heard) == {(50, 100)}
    other = Settings.of(configuration.default())
    assert ahead.take(found, other, home.models, lambda *_: None, lambda: False) == ""


def test_a_note_that_comes_late_does_not_overwrite_what_the_item_trains_with(home: Home) -> None:
    settings = Settings.of(configuration.load(home.config))
    answer = {"key": "late", "rows": 1, "packs": 1, "held_out": 0, "report": {}}
    with kit.opened(home) as state:
        state.db.execute("UPDATE items SET state = 'preparing' WHERE id = 2")
        note(state, 2, settings, answer)
        assert queue.get(state, 2).prepared is None
        note(state, 1, settings, answer)
        assert queue.get(state, 1).prepared == "late"


def test_the_process_loads_no_torch() -> None:
    assert not {"torch", "transformers"} & set(loaded_after(CHILD)[CHILD])
