"""The events pane: kinds, text, the whole history, days and how grave an event is."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import pytest

from tests.tui_pilot import NARROW, WIDE, configured, console_on, lines, running, screen, until
from tests.tui_world import World
from tui import eventlog
from tui.console import Console
from tui.panes import events


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def filled(count: int) -> World:
    world = World(steps=3)
    for n in range(1, count + 1):
        world.event("item.failed" if n % 1000 == 7 else "samples", f"event number {n}.")
    return world


def row_of(app: Console, text: str, pilot: Any) -> str:
    return next(line for line in lines(pilot) if text in line)


async def test_o_goes_through_the_kinds_and_says_which() -> None:
    world = World(steps=3)
    for kind, text in (
        ("item.failed", "a.jsonl failed"),
        ("item.queued", "b.jsonl queued"),
        ("samples", "samples exact 3/4"),
        ("version", "v001 made"),
        ("evaluation.done", "40 of 40 items"),
        ("disk.low", "2 GB are free"),
    ):
        world.event(kind, text)
    shown = {
        "failures and warnings": {"a.jsonl failed", "2 GB are free"},
        "the queue": {"a.jsonl failed", "b.jsonl queued"},
        "training": {"samples exact"},
        "versions and copies": {"v001 made"},
        "evaluations and hosts": {"40 of 40 items"},
        "disk and system": {"2 GB are free"},
    }
    every = set().union(*shown.values())
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("6")
        await until(pilot, lambda: "v001 made" in screen(pilot))
        for name, wanted in shown.items():
            await pilot.press("o")
            await until(pilot, lambda name=name: f"6 events · {name}" in screen(pilot))
            assert {text for text in every if text in screen(pilot)} == wanted
        await pilot.press("o")
        await until(pilot, lambda: all(text in screen(pilot) for text in every))
        assert "6 events · " not in screen(pilot)


async def test_how_grave_an_event_is_is_told_without_colour() -> None:
    world = World(steps=3)
    for kind, sign in (("item.failed", "X"), ("disk.low", "!"), ("item.done", "+"), ("head", "!")):
        world.event(kind, f"{kind} is {sign}")
    world.event("checkpoint", "checkpoint is ·")
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("6")
        await until(pilot, lambda: "checkpoint is ·" in screen(pilot))
        for kind, sign in (("item.failed", "X"), ("disk.low", "!"), ("checkpoint", "·")):
            assert f" {sign} {kind} is {sign}" in row_of(app, f"{kind} is", pilot)


async def test_a_day_is_named_where_it_changes_and_today_is_not() -> None:
    world = World(steps=3)
    today = world.now
    for days in (2, 2, 1):
        world.now = today - days * 86400
        world.event("samples", f"{days} days ago")
    world.now = today
    world.event("samples", "just now")
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("6")
        await until(pilot, lambda: "just now" in screen(pilot))
        told = [line for line in lines(pilot) if "days ago" in line or "just now" in line]
        first, second, third, last = told
        assert "2026-05-26 20:26 ·" in first and "2026" not in second
        assert "2026-05-27 20:26 ·" in third and "2026-05-28 20:26 ·" in last


async def test_scrolling_up_reads_older_events_to_the_very_first_and_down_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (eventlog, events):
        monkeypatch.setattr(module, "PAGE", 100)
    monkeypatch.setattr(eventlog, "MOST", 300)
    app = console_on(filled(800))
    async with running(app, NARROW) as pilot:
        pane = app.events_pane
        await pilot.press("6")
        await until(pilot, lambda: "event number 800." in screen(pilot))
        for _ in range(300):
            if "event number 1." in screen(pilot):
                break
            await pilot.press(*["pageup"] * 3)
            await pilot.pause()
        assert "event number 1." in screen(pilot)
        assert len(pane.window.rows) <= 300 and not pane.window.at_end
        for _ in range(300):
            if "event number 800." in screen(pilot):
                break
            await pilot.press(*["pagedown"] * 3)
            await pilot.pause()
        await until(pilot, lambda: "event number 800." in screen(pilot))


async def test_g_is_at_the_first_event_at_once_and_G_follows_the_newest() -> None:
    world = filled(4000)
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("6", "g")
        await until(pilot, lambda: "event number 1." in screen(pilot))
        assert len(app.events_pane.window.rows) < 1000, "not all in between were read"
        world.event("samples", "something new")
        await until(pilot, lambda: app.frame.events[-1]["text"] == "something new")
        assert "event number 1." in screen(pilot), "where one looks nothing moves"
        assert "G: newest" in screen(pilot)
        await pilot.press("G")
        await until(pilot, lambda: "something new" in screen(pilot))
        world.event("samples", "and newer still")
        await until(pilot, lambda: "and newer still" in screen(pilot))


async def test_a_filter_and_a_kind_reach_the_whole_history() -> None:
    app = console_on(filled(4000))
    async with running(app, NARROW) as pilot:
        await pilot.press("6", "o")
        await until(pilot, lambda: "event number 7." in screen(pilot), "older than was loaded")
        for n in (1007, 2007, 3007):
            assert f"event number {n}." in screen(pilot)
        await pilot.press("/", *"NUMBER 20", "enter")
        await until(pilot, lambda: "event number 3007." not in screen(pilot))
        assert "event number 2007." in screen(pilot)
        await pilot.press("/", *"xyz", "enter")
        await until(pilot, lambda: "nothing contains 'NUMBER 20xyz'" in screen(pilot))
        await pilot.press("escape", "o", "o", "o")
        await until(pilot, lambda: "no events yet: versions and copies" in screen(pilot))


async def test_a_store_that_cannot_be_read_is_said_and_got_over() -> None:
    world = filled(1500)
    good = world.latest_events
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("6")
        await until(pilot, lambda: "event number 1500." in screen(pilot))

        def broken(count: int = 200, before: int | None = None, *_: Any, **__: Any) -> Any:
            raise sqlite3.OperationalError("disk I/O error")

        world.latest_events = broken  # type: ignore[method-assign, assignment]
        await pilot.press("o")
        await until(pilot, lambda: "cannot be read: disk I/O error" in screen(pilot))
        world.latest_events = good  # type: ignore[method-assign]
        await pilot.press("k")
        await until(pilot, lambda: "event number 7." in screen(pilot))


async def test_enter_shows_the_event_whole_and_ascii_draws_only_ascii() -> None:
    world = World(steps=3)
    world.event("checkpoint", "a text that is long enough " * 8 + "to its end")
    app = console_on(world, configured(ascii=True))
    async with running(app, NARROW) as pilot:
        await pilot.press("6")
        await until(pilot, lambda: "a text that is long" in screen(pilot))
        assert screen(pilot).isascii()
        await pilot.press("enter")
        await until(pilot, lambda: "to its end" in screen(pilot) and "checkpoint" in screen(pilot))


async def test_the_wide_layout_shows_it_too() -> None:
    app = console_on(filled(20))
    async with running(app, WIDE) as pilot:
        await until(pilot, lambda: "event number 20." in screen(pilot))
