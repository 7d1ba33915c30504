"""Versions against each other and elsewhere: compare, back up, the trash, checkpoints, and what
keeps each."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from textual.widgets import Button

from tests.test_tui_dialogs import commands, opened
from tests.test_tui_versions import branched
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
from tests.tui_world import World, unknown
from tui.console import Console
from tui.dialogs.backup import BackupDialog
from tui.dialogs.compare import CompareView, compare_lines
from tui.dialogs.confirm import ConfirmDialog
from tui.dialogs.reading import ReadingView
from tui.dialogs.trash import TrashView
from tui.safe import line_text

SIZES = [WIDE, NARROW, (60, 16)]


async def at(pilot: Any, kind: type, *keys: str) -> Any:
    await pilot.press(*keys)
    await until(pilot, lambda: isinstance(pilot.app.screen, kind), f"{kind.__name__} opens")
    return pilot.app.screen


# -- what the list says


async def test_what_keeps_the_chosen_version_stands_below_the_list() -> None:
    world = branched()
    world.versions_[0]["kept_because"] = ["pinned", "daily"]
    world.versions_[1]["kept_because"] = []
    world.versions_[0]["copies"] = [{"target": "nas", "state": "verified"}]
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("5", "G")
        await until(
            pilot, lambda: "v001 kept: pinned, daily · copies: nas · manual" in screen(pilot)
        )
        await pilot.press("up")
        await until(pilot, lambda: "v002 kept: no rule: pruned next · no copy" in screen(pilot))


async def test_the_exact_share_is_that_of_the_versions_samples() -> None:
    world = branched()
    world.versions_[0]["samples"] = {"step": 100, "exact": 3, "total": 8}
    world.versions_[1]["samples"] = unknown("no sample tick before it")
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: "v001" in screen(pilot))
        (row,) = (line for line in lines(pilot) if "v001" in line and "kept" not in line)
        assert " 38% " in row
        (row,) = (line for line in lines(pilot) if "v002" in line and "kept" not in line)
        assert "%" not in row


# -- compare


@pytest.mark.parametrize("size", SIZES)
async def test_a_version_is_compared_with_the_present_state(size: tuple[int, int]) -> None:
    world = branched()
    app = console_on(world, configured(ascii=size == (60, 16)))
    async with running(app, size) as pilot:
        view = await at(pilot, CompareView, "5", "G", "c")
        shown = screen(pilot)
        for part in ("Compare v001 with now", "step", "since fork", "loss"):
            assert part in shown, shown
        await pilot.press("w")
        await until(pilot, lambda: "the weights of versions are" in screen(pilot))
        seen = shown
        for _ in range(12):
            await pilot.press("pagedown")
            await pilot.pause()
            seen += screen(pilot)
        for part in (
            *("+ e1", "- e4", "Clue 5: wall", "right in both 3", "training.learning_rate"),
            *("0.0002", "0.0001", "1 the same, 1 differ", "40 rows"),
        ):
            assert part in seen, part
        assert seen.isascii() or size != (60, 16), {c for c in seen if not c.isascii()}
        assert view.query_one("#foot").region.bottom <= size[1]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base())
    assert commands(world) == []


def test_the_weights_of_the_present_state_are_not_said_to_be_those_on_disk() -> None:
    world = branched()
    found = world.do_compare("v001")

    def weights(**more: Any) -> str:
        told = [line_text(line) for line in compare_lines({**found, **more}, 90)]
        return next(line for line in told if line.startswith("weights"))

    reason = {"unknown": "the present state is in memory"}
    assert "? the present state is in memory" in weights(same_weights=reason)
    assert "bit for bit" in weights(same_weights=True)
    assert "s makes the present state one" in weights(same_weights=False)


async def test_the_marked_version_is_what_c_compares_with_the_older_at_the_left() -> None:
    world = branched()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "down", "space")
        await until(pilot, lambda: "= v003 marked" in screen(pilot))
        assert any("v003 =" in line for line in lines(pilot)), "told without colour"
        await at(pilot, CompareView, "G", "c")
        assert "Compare v001 with v003" in screen(pilot)
        await pilot.press("w")
        await until(pilot, lambda: "1 tensor differ" in screen(pilot))
        assert "1.230% model.layers.0.mlp.up_proj.weight" in screen(pilot)
        await pilot.press("escape")
        # The marked one itself goes against the present state; a second space takes the mark off.
        await pilot.press("up", "up")
        await at(pilot, CompareView, "c")
        assert "Compare v003 with now" in screen(pilot)
        await pilot.press("escape", "space")
        await until(pilot, lambda: "marked" not in lines(pilot)[-12])
        assert app.versions_pane.marked is None


async def test_a_mark_goes_with_its_version() -> None:
    world = branched()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "space")
        assert app.versions_pane.marked == "v004"
        del world.versions_[-1]
        world.event("delete", "v004 deleted")
        await until(pilot, lambda: app.versions_pane.marked is None)


async def test_live_data_behind_a_comparison_changes_nothing_inside() -> None:
    world = branched()
    app = console_on(world)
    async with running(app) as pilot:
        await at(pilot, CompareView, "5", "c")
        before = screen(pilot)
        world.train(5)
        world.event("note", "hello")
        await until(pilot, lambda: app.frame.step == world.step)
        inner = [line[12:108] for line in lines(pilot)[3:-3]]
        assert inner == [line[12:108] for line in before.splitlines()[3:-3]]


async def test_hostile_prompts_and_settings_are_text_in_a_comparison() -> None:
    world = branched()
    world.hostile = "[red]x[/nope] \x1b]52;c;eA==\x07\n\u202e evil"
    app = console_on(world)
    async with running(app) as pilot:
        await at(pilot, CompareView, "5", "c")
        assert "[red]x[/nope]" in screen(pilot)
        assert not {"\x1b", "\u202e"} & set(screen(pilot))


# -- copies elsewhere


async def test_without_a_target_b_says_how_to_configure_one() -> None:
    world = branched()
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("5", "b")
        await until(pilot, lambda: "write [backups.NAME] with target" in screen(pilot))
    assert commands(world) == []


@pytest.mark.parametrize("size", SIZES)
async def test_a_version_is_copied_to_the_chosen_target_with_progress(
    size: tuple[int, int],
) -> None:
    world = branched()
    world.target("nas")
    world.target("usb", error="not mounted [/x]")
    world.hold = threading.Event()
    app = console_on(world)
    async with running(app, size) as pilot:
        dialog = await at(pilot, BackupDialog, "5", "b")
        assert app.focused is not None and app.focused.id == "cancel"
        assert "Back up v004" in screen(pilot)
        for button in dialog.query(Button):
            assert app.screen.region.contains_region(button.region)
        await pilot.press("escape")
        assert commands(world) == []
        await at(pilot, BackupDialog, "b")
        await push(pilot, "#accept")
        await until(pilot, lambda: "6.2 MB of 12 MB (50%)" in screen(pilot))
        world.hold.set()
        await until(pilot, lambda: "read back and verified" in screen(pilot))
        await at(pilot, BackupDialog, "b")
        await go_to(pilot, "#target")
        await pilot.press("down", "enter")
        await push(pilot, "#accept")
        await until(pilot, lambda: "was not copied to usb: not mounted [/x]" in screen(pilot))
    assert [arguments["target"] for _, arguments in commands(world)] == ["nas", "usb"]


# -- the trash


@pytest.mark.parametrize("size", SIZES)
async def test_the_trash_restores_and_empties_only_when_asked(size: tuple[int, int]) -> None:
    world = branched()
    for name in ("v007", "v008", "v009"):
        world.throw(name)
    app = console_on(world)
    async with running(app, size) as pilot:
        await at(pilot, TrashView, "5", "X")
        shown = screen(pilot)
        assert shown.index("v009") < shown.index("v007"), "the newest first"
        await pilot.press("down", "r")
        await until(pilot, lambda: "v008 is back from the trash" in screen(pilot))
        assert [thing["name"] for thing in world.trash] == ["v007", "v009"]
        await at(pilot, ConfirmDialog, "x")
        assert app.focused is not None and app.focused.id == "cancel"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TrashView))
        assert len(world.trash) == 2
        await at(pilot, ConfirmDialog, "E")
        assert "Empty the trash" in screen(pilot) and "2 things" in screen(pilot)
        for button in app.screen.query(Button):
            assert app.screen.region.contains_region(button.region)
        await push(pilot, "#accept")
        await until(pilot, lambda: "The trash is empty" in screen(pilot))
        assert "8.2 kB freed" in screen(pilot)
        await pilot.press("r", "x", "E")
        await pilot.pause()
        assert isinstance(app.screen, TrashView), "nothing to do on an empty trash"
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base())
    assert commands(world) == [
        ("trash_restore", {"name": "v008"}),
        ("trash_empty", {"name": None}),
    ]


async def test_a_refused_restore_says_why_and_the_trash_stays_open() -> None:
    world = branched()
    world.throw("v004")
    world.refuse["trash_restore"] = "there is a version v004"
    app = console_on(world)
    async with running(app) as pilot:
        await at(
            pilot,
            TrashView,
            "5",
            "X",
        )
        await pilot.press("r")
        await until(pilot, lambda: "there is a version v004" in screen(pilot))
        world.refuse.clear()
        await pilot.press("r")
        await until(pilot, lambda: "v004 is back" in screen(pilot))


# -- checkpoints


@pytest.mark.parametrize("size", SIZES)
async def test_the_checkpoints_beneath_are_reachable(size: tuple[int, int]) -> None:
    app = console_on(branched())
    async with running(app, size) as pilot:
        await at(pilot, ReadingView, "5", "C")
        shown = screen(pilot)
        assert "checkpoint-100" in shown and "= " in shown
        assert shown.index("checkpoint-100") < shown.index("checkpoint-0 "), "the newest first"
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base())


async def test_every_new_key_says_why_it_cannot_act_on_an_empty_list() -> None:
    app: Console = console_on(World(steps=3))
    async with running(app) as pilot:
        for key in ("c", "space", "b"):
            await pilot.press("5", "escape", key)
            await until(pilot, lambda: "there is no version yet: s takes one" in screen(pilot))
        await pilot.press("escape")
        await at(pilot, TrashView, "X")
        assert "The trash is empty" in screen(pilot)
        await opened(pilot, TrashView)  # type: ignore[arg-type]
