"""One version a local day, whatever the clock does: summer time, downtimes, clocks set by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_store.database import open_state
from queue_store.home import Home
from snapshots import daily

ZONE = "Europe/Berlin"
AUTUMN = datetime(2026, 10, 25, tzinfo=ZoneInfo(ZONE)).timestamp()  # a day of 25 hours
SPRING = datetime(2026, 3, 29, tzinfo=ZoneInfo(ZONE)).timestamp()  # and one of 23
HOUR = 3600.0


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def local(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp()


def run(moments: list[float], at: str, last: str | None = None) -> list[float]:
    """The moments at which a version is made, looking at each of them."""
    made = []
    for moment in moments:
        if daily.due(moment, at, last):
            last = daily.scheduled_day(moment, at)
            made.append(moment)
    return made


def minutes(start: float, hours: float) -> list[float]:
    return [start + 600 * n for n in range(int(hours * 6))]


@pytest.mark.parametrize("at", ["01:30", "02:00", "02:30", "03:00", "23:50"])
@pytest.mark.parametrize(("start", "hours"), [(SPRING, 119), (AUTUMN, 121)])
def test_a_day_of_odd_length_gets_one_version(at: str, start: float, hours: float) -> None:
    """Five whole local days, the odd one in the middle."""
    made = run(minutes(start - 48 * HOUR, hours), at, daily.scheduled_day(start - 48 * HOUR, at))
    days = [time.strftime("%Y-%m-%d", time.localtime(m)) for m in made]
    assert len(days) == len(set(days)) == 5


def test_a_downtime_is_caught_up_once() -> None:
    assert run([local("2026-11-26 09:00"), local("2026-11-26 09:01")], "03:00", "2026-11-22") == [
        local("2026-11-26 09:00")
    ]


def test_nothing_is_due_before_the_time_or_without_one() -> None:
    assert not daily.due(local("2026-11-26 02:59"), "03:00", "2026-11-25")
    assert daily.due(local("2026-11-26 03:00"), "03:00", "2026-11-25")
    assert not daily.due(local("2026-11-26 03:00"), "", None)


def test_a_clock_set_back_over_the_time_makes_no_second_version() -> None:
    made = local("2026-11-26 03:01")
    back = local("2026-11-26 01:30")
    assert run([made, *minutes(back, 20)], "03:00", "2026-11-25") == [made]
    assert run(minutes(back, 40), "03:00", "2026-11-26") == [local("2026-11-27 03:00")]


def test_a_day_of_the_future_is_ignored() -> None:
    assert daily.due(local("2026-11-26 10:00"), "03:00", "2027-11-26")


@given(st.lists(st.floats(-3 * HOUR, 30 * HOUR), min_size=1, max_size=60))
def test_small_jumps_of_the_clock_never_make_two_of_one_scheduled_day(jumps: list[float]) -> None:
    """Jumps back that stay within the day on which the last version was made."""
    moment, last, days = local("2026-10-23 12:00"), "2026-10-22", []
    for jump in jumps:
        moment += jump
        today = time.strftime("%Y-%m-%d", time.localtime(moment))
        if last > today:  # further back than to the last day: a wrong clock, another promise
            return
        if daily.due(moment, "02:30", last):
            last = daily.scheduled_day(moment, "02:30")
            days.append(last)
    assert days == sorted(set(days))


def test_what_did_not_move_makes_no_version_and_the_day_is_dealt_with(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    with open_state(home) as state:
        assert not daily.moved(state, 1, 0) and daily.moved(state, 1, 5)
        daily.done(state, "03:00", 1, 5)
        assert not daily.moved(state, 1, 5)
        assert daily.moved(state, 1, 6) and daily.moved(state, 2, 5)
        assert not daily.due(time.time(), "03:00", daily.last(state)["day"])
