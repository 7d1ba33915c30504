"""The window on the journal: what it holds, that it is contiguous, and that it stays small."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from engine.reading.views import Views
from queue_store import journal
from queue_store.database import open_state
from tests.engine_kit import make_home
from tests.tui_world import World
from tui.eventlog import MOST, PAGE, EventWindow, Wanted
from tui.poller import EVENTS_KEPT, EVENTS_PAGE, Poller


def events(first: int, last: int) -> list[dict[str, Any]]:
    kinds = ("samples", "item.failed", "version")
    return [
        {"seq": n, "time": float(n), "kind": kinds[n % 3], "text": f"event {n}", "data": {}}
        for n in range(first, last + 1)
    ]


def seqs(window: EventWindow) -> list[int]:
    return [event["seq"] for event in window.rows]


def contiguous(window: EventWindow) -> bool:
    return seqs(window) == list(range(window.low, window.high + 1))


def test_new_events_are_taken_once_and_those_not_wanted_are_passed_over() -> None:
    window = EventWindow()
    window.begin(Wanted("trouble", "EVENT"), events(1, 6))
    window.take(events(1, 9), None)
    window.take(events(3, 9), None)
    assert seqs(window) == [1, 4, 7] and window.high == 9 and window.at_start


def test_it_holds_at_most_so_many_whichever_way_it_goes() -> None:
    everything = events(1, 20_000)
    window = EventWindow()
    window.begin(Wanted(), everything[-2000:])
    draw = random.Random(7)
    for _ in range(300):
        if draw.random() < 0.7 and not window.at_start:
            window.older(everything[max(0, window.low - 1 - PAGE) : window.low - 1])
        elif not window.at_end:
            window.newer(everything[window.high : window.high + PAGE])
        assert contiguous(window) and len(window.rows) <= MOST
        assert window.at_start == (window.low == 1)
        assert all(window.rows[place]["seq"] == seq for seq, place in window.place.items())
    window.first(everything[:PAGE])
    assert seqs(window) == list(range(1, PAGE + 1)) and window.at_start and not window.at_end


def test_a_gap_in_what_came_is_never_shown_as_if_there_were_none() -> None:
    window = EventWindow()
    window.begin(Wanted(), events(1, 100))
    window.take(events(5000, 7000), 10)
    assert seqs(window) == list(range(1, 101)) and not window.at_end, "he looks at row 10"
    window.begin(Wanted(), events(1, 100))
    window.take(events(5000, 7000), None)
    assert seqs(window) == list(range(5000, 7001)) and not window.at_start, "he follows"


def test_the_last_page_of_a_filter_tells_that_there_is_no_more() -> None:
    window = EventWindow()
    window.begin(Wanted("versions"), events(901, 1000))
    window.older([e for e in events(1, 900) if e["kind"] == "version"])
    assert window.at_start and window.low == 1 and len(window.rows) == 333


def test_fifty_thousand_events_through_the_poller_leave_as_many_kept_as_a_few_thousand() -> None:
    world = World(steps=3)
    poller = Poller(world, world, lambda frame: None, clock=lambda: world.now)
    window = EventWindow()
    kept: dict[int, int] = {}
    for count in range(1000, 50_001, 1000):
        for _ in range(1000):
            world.event("samples", "samples exact: syllo 3/24")
        poller.frame = poller.poll(world)
        window.take(poller.frame.events, None)
        assert window.rows[-1]["seq"] == world.events_[-1]["seq"], "it is current at once"
        kept[count] = len({id(event) for event in (*poller.frame.events, *window.rows)})
    assert len(poller.frame.events) <= EVENTS_KEPT and len(window.rows) <= MOST
    assert kept[50_000] <= kept[5_000] <= EVENTS_KEPT + MOST
    assert EVENTS_PAGE < EVENTS_KEPT


def test_every_event_of_a_real_store_is_reached_and_few_are_held(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    count = 4 * MOST
    with open_state(home) as state, state.transaction():
        for number in range(1, count + 1):
            journal.record(state, "samples" if number % 50 else "item.failed", f"event {number}")
    window = EventWindow()
    with Views(home) as views:
        window.begin(Wanted(), views.latest_events(PAGE)["events"])
        seen: set[int] = set()
        while not window.at_start:
            window.older(views.latest_events(PAGE, window.low)["events"])
            seen |= set(seqs(window))
            assert len(window.rows) <= MOST and contiguous(window)
        assert seen >= set(range(1, count - PAGE + 1))
        window.begin(Wanted("trouble", "event 5"), views.latest_events(PAGE)["events"])
        window.older(views.latest_events(PAGE, window.low, "trouble", "event 5")["events"])
    assert window.at_start
    assert all(e["kind"] == "item.failed" and "event 5" in e["text"] for e in window.rows)
