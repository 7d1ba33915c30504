"""The versions pane: what it shows, as a list and as a tree, and what can be done to a version."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from textual.widgets import Button, Input

from tests.test_tui_dialogs import commands, opened
from tests.test_tui_screen import trained
from tests.tui_pilot import (
    NARROW,
    WIDE,
    configured,
    console_on,
    go_to,
    lines,
    push,
    running,
    screen,
    until,
)
from tests.tui_world import World
from tui.console import Console
from tui.dialogs.confirm import TextDialog
from tui.dialogs.delete import DeleteDialog
from tui.dialogs.label import DescribeDialog, TagDialog


def branched() -> World:
    """v002 came from v001 and was rolled back with v003; v004 goes on from v001."""
    world = trained()
    for name in ("second", "before going back", "the other way"):
        world.train(20)
        world.version(name)
    second, left, other = world.versions_[1:]
    second["rolled_back"] = left["rolled_back"] = True
    other["parent"], other["branch"] = "v001", 2
    return world


def chosen(app: Console) -> object:
    found = app.versions_pane.selected()
    return found and found["name"]


def pane(pilot: Any) -> list[str]:
    return [line for line in lines(pilot) if "v00" in line]


async def test_the_cursor_stays_on_its_row_and_goes_with_the_newest_only_when_left_there() -> None:
    world = branched()
    app = console_on(world)

    async def another(name: str) -> None:
        world.train(1)
        world.version(name)
        await until(pilot, lambda: len(app.versions_pane.keys()) == len(world.versions_))

    async with running(app, NARROW) as pilot:
        await another("fifth")
        assert chosen(app) == "v005", "nobody was there"
        await pilot.press("5")
        await another("sixth")
        assert chosen(app) == "v005", "a key would act on another one"
        await pilot.press("1")
        await another("seventh")
        assert chosen(app) == "v005", "it was not left at the newest"
        await pilot.press("5", "g", "1")
        await another("eighth")
        assert chosen(app) == "v008"
        await pilot.press("5", "T")
        assert chosen(app) == "v008", "another order, the same row"
        await pilot.press("T", "down")
        world.versions_.remove(world._version("v007"))
        await until(pilot, lambda: "v007" not in list(app.versions_pane.keys()))
        assert chosen(app) == "v006", "the row after the one that has gone"


async def test_the_list_is_the_newest_first_and_the_tree_as_they_came() -> None:
    app = console_on(branched())
    async with running(app, NARROW) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: len(pane(pilot)) >= 4)
        assert app.versions_pane.keys() == ["v004", "v003", "v002", "v001"]
        await pilot.press("T")
        await until(pilot, lambda: "tree" in screen(pilot))
        assert app.versions_pane.keys() == ["v001", "v002", "v003", "v004"]
        assert any("|- v002" in line for line in lines(pilot))
        assert any("|  v003" in line for line in lines(pilot))
        await pilot.press("T")
        await until(pilot, lambda: "|- v002" not in screen(pilot))


async def test_what_a_rollback_left_is_dim_and_damage_stays_red() -> None:
    world = branched()
    world.versions_[2]["state"] = "corrupt"
    app = console_on(world)
    async with running(app) as pilot:
        await until(pilot, lambda: len(app.frame.versions) == 4)
        for width in (36, 78, 118):
            tones = {
                key: {t for _, t in app.versions_pane.row(key, width)} for key in ("v004", "v002")
            }
            assert tones["v002"] == {"dim"} and tones["v004"] > {"bold"}
            assert "bad" in {tone for _, tone in app.versions_pane.row("v003", width)}


async def test_copies_stand_in_a_column_of_their_own() -> None:
    world = branched()
    good = {"target": "nas", "state": "verified", "verified_at": world.now, "error": ""}
    world.versions_[0]["copies"] = [good, {"target": "usb", "state": "failed", "error": "gone"}]
    world.versions_[1]["copies"] = [good, {**good, "target": "usb"}]
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: len(pane(pilot)) >= 4)
        shown = {
            key: line for line in pane(pilot) for key in ("v001", "v002", "v004") if key in line
        }
        assert " nas " in shown["v001"] and " 2 more " in shown["v002"]
        assert "nas" not in shown["v004"] and "copies" in screen(pilot)
        await pilot.press("g", "down", "down", "down", "i")
        await opened(pilot, TextDialog)
        assert "nas (verified 0s ago), usb: gone" in screen(pilot)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_the_facts_say_that_a_hard_link_is_not_a_second_copy(size: tuple[int, int]) -> None:
    world = branched()
    app = console_on(world)
    async with running(app, size) as pilot:
        await pilot.press("5", "i")
        await opened(pilot, TextDialog)
        shown = screen(pilot)
        for part in ("Version v004", "hard link is not a second copy", "none but the one here"):
            assert part in shown
        assert "shares" in shown and "checkpoint-120-20260528-2029" in shown
        await pilot.press("escape")
    assert commands(world) == []


async def test_no_deletion_without_the_typed_name() -> None:
    world = branched()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "down", "ctrl+d")
        dialog = await opened(pilot, DeleteDialog)
        assert app.focused is dialog.query_one("#name")
        shown = screen(pilot)
        for part in ("Delete v003", "12 MB, frees 4.1 kB", "v003: step 160", "not a second copy"):
            assert part in shown, shown
        accept = dialog.query_one("#accept", Button)
        assert accept.disabled
        await go_to(pilot, "#name")
        await pilot.press(*"v004")
        assert accept.disabled
        await pilot.press("backspace", "3")
        await until(pilot, lambda: not accept.disabled)
        assert commands(world) == []
        await push(pilot, "#accept")
        await until(pilot, lambda: "v003 is in the trash" in screen(pilot))
        await until(pilot, lambda: len(app.frame.versions) == 3)
    assert commands(world) == [("delete", {"version": "v003", "confirm": "v003"})]


async def test_a_version_that_must_stay_is_told_why_and_has_no_button() -> None:
    world = branched()
    world.plans["v004"] = {"refused": "v004 is the head: training stands on it"}
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "ctrl+d")
        dialog = await opened(pilot, TextDialog)
        assert "v004 is the head: training stands on it" in screen(pilot)
        assert [button.id for button in dialog.query(Button)] == ["cancel"]
        await pilot.press("enter")
    assert commands(world) == []


async def test_a_verification_tells_how_far_it_is_and_what_came_of_it() -> None:
    world = branched()
    world.hold = threading.Event()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "V")
        await until(pilot, lambda: "3.1 MB of 12 MB (25%)" in screen(pilot))
        world.hold.set()
        await until(pilot, lambda: "every file is as it was recorded" in screen(pilot))
        world.versions_[-1]["state"] = "corrupt"
        await pilot.press("L")
        await until(pilot, lambda: "v004 is damaged" in screen(pilot))
    assert [c[1]["deep"] for c in commands(world)] == [False, True]


async def test_tag_and_describe_write_on_the_chosen_version() -> None:
    world = branched()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "t")
        dialog = await opened(pilot, TagDialog)
        await go_to(pilot, "#name")
        await pilot.press(*"good")
        await push(pilot, "#accept")
        await until(pilot, lambda: "v004 is tagged good" in screen(pilot))
        await until(pilot, lambda: app.frame.versions[-1]["tags"] == ["good"])
        await pilot.press("t")
        dialog = await opened(pilot, TagDialog)
        dialog.query_one("#name", Input).value = "good"
        await push(pilot, "#accept")
        await until(pilot, lambda: "v004 is no longer tagged good" in screen(pilot))
        await pilot.press("D")
        dialog = await opened(pilot, DescribeDialog)
        assert dialog.query_one("#text", Input).value == "the other way"
        dialog.query_one("#text", Input).value = "words"
        await push(pilot, "#accept")
        await until(pilot, lambda: "v004 is described" in screen(pilot))
    assert commands(world) == [
        ("tag", {"version": "v004", "name": "good", "on": True}),
        ("tag", {"version": "v004", "name": "good", "on": False}),
        ("describe", {"version": "v004", "text": "words"}),
    ]


async def test_a_target_that_must_be_read_first_is_verified_before_training_stops() -> None:
    world = branched()
    plan = world.do_rollback_plan

    def reads(version: str | None = None) -> dict[str, Any]:
        return {**plan(version), "reads": True}

    world.do_rollback_plan = reads  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "G", "enter")
        dialog = await opened(pilot)
        await go_to(pilot, "#name")
        await pilot.press(*"v001")
        await until(pilot, lambda: not dialog.query_one("#accept", Button).disabled)
        await push(pilot, "#accept")
        await until(pilot, lambda: "the state before is" in screen(pilot))
    assert [command for command, _ in commands(world)] == ["verify", "rollback"]


@pytest.mark.parametrize(
    ("keys", "start"), [("i", "cancel"), ("ctrl+d", "name"), ("t", "name"), ("D", "text")]
)
async def test_dialogs_fit_on_the_smallest_screen_and_start_in_their_field(
    keys: str, start: str
) -> None:
    world = branched()
    app = console_on(world, configured(ascii=True))
    async with running(app, (60, 16)) as pilot:
        await pilot.press("5", keys)
        dialog = await opened(pilot)
        assert app.focused is not None and app.focused.id == start
        for button in dialog.query(Button):
            assert app.screen.region.contains_region(button.region), button.region
        shown = screen(pilot)
        assert shown.isascii(), {sign for sign in shown if not sign.isascii()}
        await pilot.press("escape")
    assert commands(world) == []


async def test_an_empty_list_answers_every_key_with_what_to_do() -> None:
    app = console_on(World(steps=3))
    async with running(app) as pilot:
        for key in ("V", "L", "i", "ctrl+d", "t", "D", "*", "enter"):
            await pilot.press("5", "escape", key)
            await until(pilot, lambda: "there is no version yet: s takes one" in screen(pilot))
