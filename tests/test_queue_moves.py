"""Moving items by places, and taking a removal back: on a real SQLite."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from queue_store import intake, journal, queue
from queue_store.database import State
from queue_store.errors import NotFound, Refused
from queue_store.items import ItemState, Priority
from snapshots import trash
from tests.test_queue_store import add, home, state, train

__all__ = ["home", "state"]


def names(state: State) -> list[str]:
    return [item.name for item in queue.page(state)]


@pytest.fixture
def five(state: State) -> State:
    for name in "abcde":
        add(state, name)
    return state


def test_an_item_moves_by_places_and_stops_at_the_end(five: State) -> None:
    assert queue.shift(five, [4], -2) == [4]
    assert names(five) == ["a", "d", "b", "c", "e"]
    assert queue.shift(five, [4], 100) == [4]
    assert names(five) == ["a", "b", "c", "e", "d"]
    with pytest.raises(Refused, match="d is last already"):
        queue.shift(five, [4], 1)


def test_a_block_stays_a_block_and_gaps_close_at_the_end(five: State) -> None:
    assert queue.shift(five, [2, 3], 1) == [2, 3]
    assert names(five) == ["a", "d", "b", "c", "e"]
    queue.shift(five, [3, 2], -9)
    assert names(five) == ["b", "c", "a", "d", "e"]
    queue.shift(five, [2, 4], -1)
    assert names(five) == ["b", "c", "d", "a", "e"], "the first has no room, the other has"
    with pytest.raises(Refused, match="2 items are first already"):
        queue.shift(five, [2, 3], -1)


def test_one_place_at_a_time_or_all_at_once_is_the_same() -> None:
    chance = random.Random(5)
    for _ in range(200):
        order = list(range(chance.randint(1, 9)))
        chosen = set(chance.sample(order, chance.randint(1, len(order))))
        by = chance.choice([-4, -2, -1, 1, 3])
        steps = order
        for _ in range(abs(by)):
            steps = queue.shifted(steps, chosen, 1 if by > 0 else -1)
        assert queue.shifted(order, chosen, by) == steps


def test_it_moves_past_so_many_of_those_that_are_seen(five: State) -> None:
    assert queue.shift(five, [5], -1, among=[2, 5]) == [5]
    assert names(five) == ["a", "e", "b", "c", "d"]
    with pytest.raises(Refused, match="e is first already, within the priority and what is shown"):
        queue.shift(five, [5], -1, among=[2, 5])
    queue.shift(five, [1, 5], 2, among=[1, 3, 4, 5])
    assert names(five) == ["b", "c", "d", "a", "e"]


def test_what_is_not_seen_keeps_its_order_and_what_passes_none_its_place() -> None:
    assert queue.shifted([1, 2, 3, 4, 5], {1, 4}, -1, {1, 3, 4, 5}) == [1, 2, 4, 3, 5]
    chance = random.Random(7)
    for _ in range(300):
        order = list(range(chance.randint(1, 9)))
        chosen = set(chance.sample(order, chance.randint(1, len(order))))
        seen = set(chance.sample(order, chance.randint(0, len(order))))
        by = chance.choice([-3, -1, 1, 2])
        after = queue.shifted(order, chosen, by, seen)
        counted = [one for one in order if one in seen | chosen]
        assert [one for one in after if one in seen | chosen] == queue.shifted(counted, chosen, by)
        assert [one for one in after if one not in chosen] == [o for o in order if o not in chosen]
        if by > 0:  # no further than right behind what it passed
            assert queue.shifted(order[::-1], chosen, -by, seen) == after[::-1]


def test_each_priority_moves_for_itself_and_what_runs_does_not(five: State) -> None:
    queue.set_priority(five, 5, Priority.HIGH)
    add(five, "f", Priority.HIGH)
    queue.shift(five, [6, 3], -1)
    assert names(five) == ["f", "e", "a", "c", "b", "d"]
    queue.move_first(five, 6)
    train(five, queue.get(five, 6))
    with pytest.raises(Refused, match=r"item 6 \(f\) is trained: it is not in the queue"):
        queue.shift(five, [1, 6], 1)
    with pytest.raises(NotFound):
        queue.shift(five, [77], 1)


def test_two_items_on_one_place_still_change_places(five: State) -> None:
    five.db.execute("UPDATE items SET position = 3 WHERE id IN (2, 3, 4)")
    queue.shift(five, [2], 1)
    assert names(five) == ["a", "c", "b", "d", "e"]


def test_a_move_names_all_whose_place_changed(five: State) -> None:
    queue.shift(five, [1], 2)
    (event,) = [e for e in journal.latest(five) if e.kind == "item.moved"]
    assert event.text == "a moved 2 later" and sorted(event.data["moved"]) == [1, 2, 3]


def test_a_removal_is_taken_back_with_file_place_and_priority(five: State, home: object) -> None:
    item = queue.set_priority(five, 3, Priority.HIGH)
    path = Path(five.home.items / item.file)
    content = path.read_bytes()
    add(five, "g", Priority.HIGH)
    for number in (3, 2):
        intake.remove(five, number)
    assert not path.exists() and names(five) == ["g", "a", "d", "e"]
    for number in (2, 3):
        back = trash.restore_item(five, number)
        assert back.id == number and back.state is ItemState.QUEUED
    assert names(five) == ["c", "g", "a", "b", "d", "e"]
    assert path.read_bytes() == content
    with pytest.raises(NotFound, match="item 3 is not in the trash"):
        trash.restore_item(five, 3)


def test_a_removed_item_whose_file_is_gone_is_not_promised_back(five: State) -> None:
    intake.remove(five, 2)
    for path in five.home.trash.iterdir():
        path.unlink()
    with pytest.raises(NotFound, match="item 2 is not in the trash"):
        trash.restore_item(five, 2)
    assert names(five) == ["a", "c", "d", "e"]
