"""A home in which nothing has happened yet, and the bell."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Done
from tests.tui_pilot import NARROW, WIDE, configured, console_on, lines, running, screen, until
from tests.tui_world import World
from tui.bell import Bell
from tui.frame import Frame


def untouched() -> World:
    world = World()
    world.items.clear()
    world.state = "idle"
    return world


@pytest.mark.parametrize("size", [WIDE, NARROW, (60, 16), (200, 60)])
async def test_an_untouched_home_says_what_to_do_and_shows_the_first_file_by_itself(
    size: tuple[int, int],
) -> None:
    world = untouched()
    app = console_on(world, inbox="/home/me/run/inbox")
    async with running(app, size) as pilot:
        await until(pilot, lambda: "Nothing has trained here yet" in screen(pilot))
        shown = screen(pilot)
        for part in ("tiny, full, fp32, cpu", "/home/me/run/inbox", "trainctl demo"):
            assert part in shown, part
        for key, text in (("a", "add a JSONL file"), ("?", "all keys"), ("Esc", "the panes")):
            assert f"{key} " in shown and text in shown
        assert {len(line) for line in lines(pilot)} == {size[0]}
        world.add_item("first.jsonl", "normal", "queued")
        world.event("add", "first.jsonl is queued")
        await until(pilot, lambda: "1 queue · 1 wait" in screen(pilot), "the panes come")
        assert "Nothing has trained here yet" not in screen(pilot)
        assert app.focused is app.queue_pane
        world.items.clear()
        world.event("remove", "gone")
        await until(pilot, lambda: not app.frame.queue)
        assert "Nothing has trained here yet" not in screen(pilot), "it does not come back"


@pytest.mark.parametrize("key", ["escape", "2", "tab", "j"])
async def test_a_key_gives_way_to_the_panes(key: str) -> None:
    app = console_on(untouched())
    async with running(app) as pilot:
        await until(pilot, lambda: app.first.up)
        await pilot.press(key)
        await until(pilot, lambda: "6 events" in screen(pilot))
        assert app.focused is app.panes[app.pane_name]


async def test_the_keys_that_it_names_act_in_front_of_it_and_are_those_of_the_configuration() -> (
    None
):
    app = console_on(untouched(), configured(keys={"add": "Z"}))
    async with running(app) as pilot:
        await until(pilot, lambda: "Z     add a JSONL file" in screen(pilot))
        await pilot.press("?")
        await until(pilot, lambda: "type to search" in screen(pilot))
        await pilot.press("escape", "Z")
        await until(pilot, lambda: "Add a file" in screen(pilot))


async def test_a_home_that_has_trained_never_shows_it() -> None:
    world = World(steps=3)
    world.items.clear()
    app = console_on(world)
    async with running(app) as pilot:
        assert not app.first.up and "1 queue" in screen(pilot)


async def test_a_read_only_console_offers_nothing_there_that_changes() -> None:
    app = console_on(untouched(), readonly=True)
    async with running(app) as pilot:
        await until(pilot, lambda: "This console is read-only" in screen(pilot))
        assert "add a JSONL file;" not in screen(pilot)


def test_outside_of_any_home_the_command_says_what_to_do_in_one_line(trainctl: Any) -> None:
    done: Done = trainctl()
    assert done.code == 1 and len(done.err.splitlines()) == 1
    assert "no home here" in done.err and "trainctl demo" in done.err and done.out == ""


# -- the bell


def queue(**states: str) -> Frame:
    rows = [{"id": int(key[1:]), "state": state} for key, state in states.items()]
    return Frame(status={"state": "training"}, queue=[*rows, {"id": {"unknown": "waits"}}])


@pytest.mark.parametrize("state", ["done", "failed", "rejected"])
def test_the_bell_rings_once_when_an_item_ends_or_fails(state: str) -> None:
    bell = Bell()
    assert not bell.rings(queue(i1="training", i2="done")), "not for history"
    ended = queue(i1=state, i2="done")
    assert bell.rings(ended) and not bell.rings(ended)
    assert not bell.rings(queue(i1=state, i2="done"))


def test_the_bell_is_silent_for_what_a_person_did_and_for_older_rows_that_come_to_light() -> None:
    bell = Bell()
    bell.rings(queue(i5="training", i9="queued"))
    assert not bell.rings(queue(i5="skipped", i9="queued"))
    assert not bell.rings(queue(i3="done", i5="skipped")), "an old row, now within the list"
    assert bell.rings(queue(i10="rejected")), "a new file that was refused at once"
    assert not bell.rings(queue(i5="queued")) and bell.rings(queue(i5="failed"))


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_terminal_hears_it_only_where_config_toml_wants_it(wanted: bool) -> None:
    world = World(steps=3)
    world.add_item("old.jsonl", "normal", "failed")
    app = console_on(world, configured(bell=wanted) if wanted else None)
    rung: list[int] = []
    app.bell = lambda: rung.append(1)  # type: ignore[method-assign]
    async with running(app) as pilot:
        assert rung == []
        world.items[0]["state"] = "done"
        world.event("done", "it is done")
        await until(pilot, lambda: len(app.frame.events) and "it is done" in screen(pilot))
        world.train(1)
        await until(pilot, lambda: "step 4" in screen(pilot))
    assert rung == [1] * wanted
