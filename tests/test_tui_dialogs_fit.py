"""Every dialog on versions at the smallest sizes, with the longest and worst texts: it is whole on
the screen, starts in its field or on Cancel, is worked by keys alone, and nothing inside moves."""

from __future__ import annotations

from typing import Any

import pytest
from textual import events
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from tests.test_tui_dialogs import commands, opened
from tests.test_tui_versions import branched
from tests.tui_pilot import configured, console_on, go_to, push, running, screen, until
from tests.tui_world import World
from tui.dialogs.base import MORE, Dialog
from tui.dialogs.rollback import RollbackDialog

BAD = "[red]x[/nope] \x1b]52;c;eA==\x07\x9b31m \u202e"
LONG = BAD + "train_binary_level2_10900_20261121_003446_" * 8
DIALOGS = {
    "snapshot": ("Take a snapshot", ["s"]),
    "rollback": ("Roll back to v001", ["5", "G", "R"]),
    "restore": ("Restore v001", ["5", "G", "enter"]),
    "delete": ("Delete v004", ["5", "g", "ctrl+d"]),
    "facts": ("Version v004", ["5", "g", "i"]),
    "tag": ("Tag v004", ["5", "g", "t"]),
    "describe": ("Describe v004", ["5", "g", "D"]),
    "back up": ("Back up v004", ["5", "g", "b"]),
}


def start(dialog: Dialog) -> Widget:
    """Its first field, else Cancel."""
    fields = list(dialog.query(Input))
    return fields[0] if fields else dialog.query_one("#cancel")


def hostile() -> World:
    """A home in which everything that other people name is long and evil."""
    world = branched()
    for item in world.items:
        item["name"] = LONG
    for version in world.versions_:
        version["description"] = LONG
        version["tags"] = [LONG[:60]] * 4
        version["kept_because"] = ["latest 2 verified", "last 5", "daily", "weekly", "pinned"]
    for number in range(6):
        world.target(f"{LONG[:150]}{number}", error=LONG)
    shares = [f"checkpoint-{n}-20260528-2029" for n in range(30)]
    goes = [f"{LONG}{n}" for n in range(9)]
    world.plans["v004"] = {"shares": shares, "goes": goes}
    return world


@pytest.mark.parametrize("size", [(60, 16), (80, 24)])
async def test_every_dialog_is_whole_on_the_screen_and_starts_where_it_should(
    size: tuple[int, int],
) -> None:
    world = hostile()
    app = console_on(world, configured(ascii=size[0] == 60))
    async with running(app, size) as pilot:
        for name, (title, keys) in DIALOGS.items():
            await pilot.press(*keys)
            dialog = await opened(pilot)
            assert app.focused is start(dialog), name
            assert title in screen(pilot), name
            box = dialog.query_one("#dialog").region
            assert app.screen.region.contains_region(box), (name, box)
            for widget in dialog.query("Button, Input, RadioSet, Checkbox, #title"):
                assert box.contains_region(widget.region), (name, widget, widget.region)
                assert widget.region.height >= 1 and widget.region.width > 3, (name, widget)
            shown = screen(pilot)
            assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(shown), name
            if size[0] == 60:  # all that is longer than the screen can be scrolled by keys
                facts = dialog.query("#facts")
                assert all(part.can_focus for part in facts), name
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, Dialog))
    assert commands(world) == []


@pytest.mark.parametrize("ascii", [False, True])
async def test_facts_that_are_cut_say_so_and_are_read_on_from_the_field(ascii: bool) -> None:
    app = console_on(branched(), configured(ascii=ascii))
    async with running(app, (60, 16)) as pilot:
        await pilot.press("5", "G", "R")
        dialog = await opened(pilot, RollbackDialog)
        await until(pilot, lambda: MORE in screen(pilot), "there is more than is seen")
        assert "then     step 120" in screen(pilot) and "version first" not in screen(pilot)
        await pilot.press("pagedown")
        await until(pilot, lambda: "version first" in screen(pilot))
        assert app.focused is dialog.query_one("#name"), "one reads, and types on"
        await pilot.press("pageup")
        await until(pilot, lambda: "then     step 120" in screen(pilot))
        await pilot.press("escape", "D")
        await opened(pilot)
        await pilot.pause()
        assert MORE not in screen(pilot), "nothing is cut here"


async def test_live_data_behind_a_dialog_changes_nothing_inside() -> None:
    world = branched()
    world.target("nas")
    app = console_on(world)
    async with running(app) as pilot:
        for name, (_, keys) in DIALOGS.items():
            await pilot.press(*keys)
            dialog = await opened(pilot)

            def inside(dialog: Dialog = dialog) -> list[Any]:
                return [(w.region, w.render_line(0).text) for w in dialog.query(Static)]

            before, count = inside(), len(world.versions_) + 1
            world.train(3)
            made = world.version("another")
            world.add_item("urgent.jsonl", "high", "queued")
            world.event("note", "hello")
            await until(
                pilot,
                lambda count=count: (
                    app.frame.step == world.step and len(app.frame.versions) == count
                ),
            )
            assert inside() == before, name
            assert app.focused is start(dialog), name
            await pilot.press("escape")
            world.versions_.remove(made)
            world.event("delete", "another is gone")
            await until(pilot, lambda count=count: len(app.frame.versions) == count - 1)


@pytest.mark.parametrize("size", [(60, 16), (80, 24)])
async def test_a_rollback_is_carried_out_by_keys_alone_on_a_small_screen(
    size: tuple[int, int],
) -> None:
    world = hostile()
    app = console_on(world)
    async with running(app, size) as pilot:
        await pilot.press("5", "G", "R")
        dialog = await opened(pilot, RollbackDialog)
        world.plan = "plan-2"
        for _ in range(8):
            if isinstance(app.focused, Input):
                break
            await pilot.press("tab")
        await pilot.press(*"v001", "enter")
        await until(pilot, lambda: not dialog.query_one("#accept", Button).disabled)
        await push(pilot, "#accept")
        # Stale by now: shown anew, with a notice, and still whole.
        await until(pilot, lambda: app.screen is not dialog and isinstance(app.screen, Dialog))
        assert "Nothing was done" in screen(pilot)
        again = app.screen
        for widget in again.query("Button, Input"):
            assert again.query_one("#dialog").region.contains_region(widget.region), widget
        await go_to(pilot, "#name")
        await pilot.press(*"v001")
        await until(pilot, lambda: not again.query_one("#accept", Button).disabled)
        await push(pilot, "#accept")
        await until(pilot, lambda: "the state before is v005" in screen(pilot))
    assert [c[1]["plan"] for c in commands(world) if c[0] == "rollback"] == ["plan-1", "plan-2"]


async def test_what_is_pasted_into_a_field_reaches_the_terminal_as_text() -> None:
    app = console_on(branched())
    async with running(app) as pilot:
        await pilot.press("5", "D")
        dialog = await opened(pilot)
        await go_to(pilot, "#text")
        dialog.query_one("#text", Input).value = ""
        app.screen.post_message(events.Paste("good \x1b]52;c;eA==\x07\x9b31m one"))
        await until(pilot, lambda: "one" in dialog.query_one("#text", Input).value)
        assert not {"\x1b", "\x9b", "\x07"} & set(screen(pilot))


async def test_a_rollback_tells_the_losses_and_the_examples_of_both() -> None:
    world = branched()
    world.versions_[0]["samples"] = {"step": 100, "exact": 3, "total": 8}
    world.versions_[0]["scores"] = {}
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "G", "R")
        await opened(pilot, RollbackDialog)
        shown = screen(pilot)
        assert "exact 3/8" in shown and "exact 6/6" in shown, shown


async def test_typing_the_name_of_another_version_or_more_than_it_enables_nothing() -> None:
    world = branched()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "G", "R")
        dialog = await opened(pilot, RollbackDialog)
        accept = dialog.query_one("#accept", Button)
        for text in ("v002", "v0011", "V001", "001", ""):
            dialog.query_one("#name", Input).value = text
            await pilot.pause()
            assert accept.disabled, text
            # A press that comes all the same (a click in flight) does nothing.
            assert dialog.result("accept") is None
        dialog.query_one("#name", Input).value = " v001 "
        await until(pilot, lambda: not accept.disabled)
    assert commands(world) == []
