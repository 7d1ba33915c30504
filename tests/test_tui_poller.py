"""The poller: an engine that is lost, that comes back, and readers that fail."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from queue_store.errors import NoEngine
from tests.test_tui_screen import trained
from tests.tui_pilot import console_on, lines, running, screen, until
from tests.tui_world import World
from tests.waiting import wait_until
from tui.frame import Frame
from tui.poller import Poller


async def test_a_lost_engine_is_told_with_the_age_of_the_data_and_actions_are_off() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        world.lost = "no engine is running for this home"
        await until(pilot, lambda: "engine lost: reconnecting" in screen(pilot))
        world.now += 12
        await until(pilot, lambda: "data 12 s old" in screen(pilot))
        assert "train_syllo" in screen(pilot), "the data stay"
        assert all(pane.dimmed for pane in app.panes.values())
        await pilot.press("p", "s", "1", "+")
        await pilot.pause()
        assert app.screen is app._base(), "no dialog opens"
        assert [entry for entry in world.log if entry[0] != "close"] == []
        await pilot.press("2", "y")
        assert app.curves_pane.log_scale, "looking still works"


async def test_it_reconnects_by_itself_and_shows_no_step_twice() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        world.lost = "killed"
        await until(pilot, lambda: "engine lost" in screen(pilot))
        del world.loss[110:]
        world.step = 110
        world.lost = ""
        await until(pilot, lambda: "engine lost" not in screen(pilot))
        world.train(4)
        await until(pilot, lambda: app.frame.series["loss"].last == 114)
        steps = list(app.frame.series["loss"].steps)
        assert steps == list(range(1, 115))
        assert not any(pane.dimmed for pane in app.panes.values())
        await pilot.press("p")
        await until(pilot, lambda: world.state == "paused")


async def test_a_store_that_cannot_be_read_is_told_and_got_over() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        good = world.queue_list

        def locked(*_: Any, **__: Any) -> Any:
            raise sqlite3.OperationalError("database is locked")

        world.queue_list = locked  # type: ignore[method-assign]
        world.event("note", "look again")
        await until(pilot, lambda: "cannot read the store: database is locked" in screen(pilot))
        world.queue_list = good  # type: ignore[method-assign]
        await until(pilot, lambda: "cannot read" not in screen(pilot))


async def test_a_defect_in_reading_does_not_end_the_poller() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        good = world.versions
        world.versions = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        world.event("note", "look again")
        await until(pilot, lambda: "see the log" in lines(pilot)[-2])
        world.versions = good  # type: ignore[method-assign]
        world.train(1)
        await until(pilot, lambda: "step 121" in screen(pilot))


def test_a_request_that_hangs_holds_up_the_poller_alone() -> None:
    world = trained()
    release = threading.Event()
    world.do_snapshot = lambda: release.wait(120) and World.do_snapshot(world)  # type: ignore[method-assign]
    frames: list[Frame] = []
    poller = Poller(world, world, frames.append, clock=lambda: world.now)
    poller.start()
    poller.stop()
    assert frames == []
    release.set()


def test_a_session_without_reconnect_says_lost_and_asks_the_same_session_again() -> None:
    world = trained()
    frames: list[Frame] = []
    poller = Poller(world, world, frames.append, clock=lambda: world.now)
    world.lost = "gone"
    poller.start()
    try:
        wait_until(lambda: frames and frames[-1].lost == "gone")
        world.lost = ""
        wait_until(lambda: not frames[-1].lost and frames[-1].step == 120)
    finally:
        poller.stop()


def test_unchanged_parts_are_the_same_objects() -> None:
    world = trained()
    poller = Poller(world, world, lambda frame: None, clock=lambda: world.now)
    first = poller.poll(world)
    poller.frame = first
    world.train(1)
    second = poller.poll(world)
    assert second is not first
    assert second.versions is first.versions and second.events is first.events
    poller.frame = second
    assert poller.poll(world) is second, "nothing new is no new frame"


def test_after_a_command_a_frame_comes_even_where_nothing_changed() -> None:
    world = trained()
    poller = Poller(world, world, lambda frame: None, clock=lambda: world.now)
    first = poller.frame = poller.poll(world)
    poller.hurry()
    second = poller.frame = poller.poll(world)
    assert second.status == first.status and second.asked > first.asked
    assert poller.poll(world) is second, "once"


async def test_a_status_asked_for_before_an_answer_does_not_undo_it() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        asked, answered = threading.Semaphore(0), threading.Semaphore(0)
        real = world.do_snapshot

        def slow() -> dict[str, Any]:
            found = {**real(), "eta_seconds": 7.0 if world.state == "training" else 8.0}
            asked.release()
            answered.acquire(timeout=120)
            return found

        world.do_snapshot = slow  # type: ignore[method-assign]
        await until(pilot, lambda: asked.acquire(blocking=False))
        await pilot.press("p")
        await until(pilot, lambda: "paused at step" in screen(pilot))
        answered.release()  # of before the pause
        await until(pilot, lambda: app.frame.status["eta_seconds"] == 7.0)
        assert app.frame.state == "training"
        await pilot.press("p")
        await until(pilot, lambda: len(world.log) == 2)
        assert [command for command, _ in world.log] == ["pause", "resume"]
        # Another console pauses: what is asked for from now on counts again.
        await until(pilot, lambda: "training goes on" in screen(pilot))
        world.do_snapshot = real  # type: ignore[method-assign]
        world.state = "paused"
        answered.release(9)
        await until(pilot, lambda: app.frame.state == "paused")
        await pilot.press("p")
        await until(pilot, lambda: len(world.log) == 3)
        assert world.log[-1][0] == "resume"


def test_a_reconnect_closes_the_old_session_and_uses_the_new_one() -> None:
    old, new = trained(), trained(5)
    old.lost = "killed"
    poller = Poller(old, new, lambda frame: None, reconnect=lambda: new, clock=lambda: 0.0)
    poller.frame = poller.poll(new)
    assert poller.frame.lost == "killed"
    poller.frame = poller.poll(new)
    assert poller.session is new and poller.frame.step == 5
    assert ("close", {}) in old.log


def test_why_it_cannot_reconnect_is_told() -> None:
    world = trained()
    world.lost = "killed"

    def refuse() -> World:
        raise NoEngine("protocol 2 here, 1 there")

    poller = Poller(world, world, lambda frame: None, reconnect=refuse, clock=lambda: 0.0)
    poller.frame = poller.poll(world)
    assert poller.poll(world).lost == "protocol 2 here, 1 there"


async def test_a_frame_that_comes_while_the_console_is_taken_down_is_let_go() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await app.panes["queue"].remove()
        before = app.frame
        world.train(1)
        app.poller.hurry()
        await until(pilot, lambda: app.poller.frame is not before, "a new frame")
        await pilot.pause()
    assert app.frame is before
