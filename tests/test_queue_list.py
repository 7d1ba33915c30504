"""The list that follows the queue: always what a fresh reading says, and read only where new."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from engine.reading import shapes
from engine.reading.queuelist import QueueList
from queue_store import intake, queue, records
from queue_store import transitions as moves
from queue_store.database import State, open_state
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.items import Priority
from snapshots import trash
from tests.test_queue_store import add, home, start, state, train
from tui.frame import in_order

__all__ = ["home", "state"]


@pytest.fixture
def own(home: Home, state: State) -> Iterator[State]:
    with open_state(home) as opened:
        yield opened


def counted(own: State, listing: QueueList) -> int:
    """How many rows of items and events a look reads."""
    asked: list[str] = []
    own.db.set_trace_callback(asked.append)
    listing.read()
    own.db.set_trace_callback(None)
    return sum("FROM items" in sql and "json_each" not in sql for sql in asked)


def test_nothing_is_read_where_nothing_was_written(state: State, own: State) -> None:
    for n in range(5):
        add(state, f"{n}.jsonl")
    listing = QueueList(own)
    first = listing.read()
    assert [item["name"] for item in first] == [f"{n}.jsonl" for n in range(5)]
    asked: list[str] = []
    own.db.set_trace_callback(asked.append)
    assert listing.read() is first
    own.db.set_trace_callback(None)
    assert asked == ["PRAGMA data_version"]


def test_a_change_of_one_item_reads_that_one(state: State, own: State) -> None:
    for n in range(5):
        add(state, f"{n}.jsonl")
    listing = QueueList(own)
    before = listing.read()
    queue.set_priority(state, 5, Priority.HIGH)
    assert counted(own, listing) == 0
    after = listing.read()
    assert [item["id"] for item in after] == [5, 1, 2, 3, 4]
    assert after[1] is before[0], "the others are the same records"
    queue.shift(state, [3, 4], -2)
    assert counted(own, listing) == 0
    assert [item["id"] for item in listing.read()] == [5, 3, 4, 1, 2]


def test_what_no_event_names_is_read_again(state: State, own: State) -> None:
    run = start(state)
    train(state, add(state, "a.jsonl"))
    train(state, add(state, "b.jsonl"), whole=False)
    listing = QueueList(own)
    listing.read()
    records.commit_checkpoint(
        state,
        name="c",
        branch=run.branch,
        step=4,
        run=run.id,
        item=1,
        cursors={2: (3, 3)},
        size_bytes=1,
        loss=None,
        val_loss=None,
        learning_rate=None,
        manifest_digest="",
        weights_digest="",
    )
    listing._rest_until = 0.0
    found = {item["name"]: (item["state"], item["cursor"]) for item in listing.read()}
    assert found == {"a.jsonl": ("done", 4), "b.jsonl": ("paused", 3)}
    file = {"path": "/i/w.jsonl", "name": "w.jsonl", "priority": 1, "reason": "open", "since": 1.0}
    queue.set_waiting(state, [file])
    assert [row["name"] for row in listing.read()] == ["b.jsonl", "w.jsonl", "a.jsonl"]
    queue.set_waiting(state, [])
    assert [row["name"] for row in listing.read()] == ["b.jsonl", "a.jsonl"]


def test_what_no_checkpoint_contains_yet_is_told_as_trained(state: State, own: State) -> None:
    start(state)
    train(state, add(state, "a.jsonl"))
    train(state, add(state, "b.jsonl"), whole=False)
    add(state, "c.jsonl")
    listed = QueueList(own, lambda item: {2: (3, 3)}[item]).read()
    found = {item["name"]: (item["state"], item["step"], item["cursor"]) for item in listed}
    assert found["a.jsonl"] == ("trained", 4, 4), "all of its rows, though the table has none"
    assert found["b.jsonl"] == ("paused", 3, 3)
    # What has trained does not stand above what waits, here as in `trainctl queue`.
    assert [item["name"] for item in listed] == ["b.jsonl", "c.jsonl", "a.jsonl"]
    shown = shapes.item(queue.get(state, 1), [])
    assert (shown["step"], shown["cursor"]) == (4, 4)


def test_after_any_changes_it_is_what_a_fresh_reading_says(state: State, own: State) -> None:
    chance = random.Random(11)
    listing = QueueList(own)
    for n in range(12):
        add(state, f"{n}.jsonl", chance.choice(list(Priority)))

    def change() -> None:
        number = chance.randint(1, 14)
        other = chance.randint(1, 14)
        try:
            chance.choice(
                [
                    lambda: queue.set_priority(state, number, chance.choice(list(Priority))),
                    lambda: queue.move_first(state, number),
                    lambda: queue.move_before(state, number, other),
                    lambda: queue.shift(state, [number, other], chance.choice([-3, -1, 1, 2])),
                    lambda: moves.skip(state, number, "no"),
                    lambda: moves.retry(state, number),
                    lambda: intake.remove(state, number),
                    lambda: trash.restore_item(state, number),
                    lambda: moves.claim(state),
                    lambda: moves.suspend(state, number, "stopped", "stopped"),
                ]
            )()
        except Refused:
            pass
        except Exception as error:
            assert "no item" in str(error) or "not in the trash" in str(error), error

    for _ in range(150):
        for _ in range(chance.randint(1, 3)):
            change()
        listing._rest_until = 0.0
        found = listing.read()
        with open_state(state.home) as another:
            assert list(found) == list(QueueList(another).read())
        assert [i["id"] for i in found] == [i["id"] for i in in_order(found)]
