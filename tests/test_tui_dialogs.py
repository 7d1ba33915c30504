"""The dialogs: they start in their field or on Cancel, say what follows, and do it only when asked
to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Button, Input

from tests.test_tui_screen import trained
from tests.tui_pilot import WIDE, console_on, go_to, lines, push, running, screen, until
from tests.tui_world import World
from tui.console import Console
from tui.dialogs.base import Dialog
from tui.dialogs.rollback import RollbackDialog
from tui.dialogs.snapshot import SnapshotDialog


def commands(world: World) -> list[tuple[str, dict[str, Any]]]:
    return [entry for entry in world.log if entry[0] != "close"]


async def opened(pilot: Any, kind: type[Dialog] = Dialog) -> Any:
    await until(pilot, lambda: isinstance(pilot.app.screen, kind), f"{kind.__name__} opens")
    return pilot.app.screen


async def test_a_dialog_without_a_field_starts_on_cancel_and_enter_does_nothing() -> None:
    world = trained()
    world.items[0]["priority"] = "low"
    app = console_on(world)
    async with running(app) as pilot:
        for keys in (["+"], ["down", "down", "x"]):
            for answer in ("escape", "enter", "ctrl+c"):
                await pilot.press("1", "g", *keys)
                await opened(pilot)
                assert app.focused is not None and app.focused.id == "cancel", keys
                await pilot.press(answer)
                await until(pilot, lambda: not isinstance(app.screen, Dialog))
                assert commands(world) == [], (keys, answer)


FIELDS = {"s": "description", "k": "reason", "R": "name"}


async def test_a_dialog_with_a_field_starts_in_it_and_tells_that_what_was_typed_is_cancelled() -> (
    None
):
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        for key, field in FIELDS.items():
            for answer in ("escape", "ctrl+c", "cancel"):
                for typed in ("", "p"):  # p pauses, where it is a key of the console
                    app.say("")
                    await pilot.press("1", "g", key)
                    dialog = await opened(pilot)
                    assert app.focused is not None and app.focused.id == field
                    await pilot.press(*typed, "enter")
                    assert dialog.query_one(f"#{field}", Input).value == typed
                    assert app.screen is dialog, "Enter only goes on"
                    if answer == "cancel":
                        await push(pilot, "#cancel")
                    else:
                        await pilot.press(answer)
                    await until(pilot, lambda: not isinstance(app.screen, Dialog))
                    told = "cancelled: nothing was done" in screen(pilot)
                    assert told == bool(typed), (key, answer)
        assert commands(world) == []


async def test_enter_in_the_field_goes_to_the_button_only_once_the_name_is_right() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("R")
        dialog = await opened(pilot, RollbackDialog)
        await pilot.press(*"v00", "enter", "enter")
        assert app.screen is dialog and app.focused is dialog.query_one("#name")
        await pilot.press("1", "enter")
        assert app.screen is dialog and app.focused is dialog.query_one("#accept")
        assert commands(world) == []
        await pilot.press("enter")
        await until(pilot, lambda: commands(world))


async def test_a_dialog_has_verb_and_object_in_its_title() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        for key, title in (
            ("s", "Take a snapshot at step 120"),
            ("k", "Skip train_syllo_level1_2000.jsonl"),
            ("R", "Roll back to v001"),
            ("+", "Set train_syllo_level1_2000.jsonl to high"),
            ("a", "Add a file"),
        ):
            await pilot.press("1", key)
            await opened(pilot)
            assert title in screen(pilot)
            await pilot.press("escape")


@pytest.mark.parametrize("size", [WIDE, (60, 16)])
async def test_buttons_of_every_dialog_fit_on_the_screen(size: tuple[int, int]) -> None:
    world = trained(local=True)
    app = console_on(world)
    async with running(app, size) as pilot:
        for key in ("s", "k", "R", "+", "a", "q"):
            await pilot.press("1", key)
            dialog = await opened(pilot)
            for button in dialog.query(Button):
                assert app.screen.region.contains_region(button.region), (key, button.region)
                assert button.region.height == 1 and button.region.width > 5
            await pilot.press("escape")


async def test_a_snapshot_takes_description_scope_and_pin() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("s")
        await opened(pilot, SnapshotDialog)
        shown = screen(pilot)
        assert "12 MB" in shown and "412 GB" in shown and "33 000 more" in shown
        await go_to(pilot, "#description")
        await pilot.press(*"good")
        await go_to(pilot, "#keep")
        await pilot.press("down", "enter")
        await go_to(pilot, "#pin")
        await pilot.press("space")
        await push(pilot, "#accept")
        await until(pilot, lambda: "v002 is taken" in screen(pilot))
    assert commands(world) == [
        ("snapshot_version", {"description": "good", "weights_only": True, "pin": True})
    ]


async def test_no_rollback_without_the_typed_name() -> None:
    world = trained(100)
    world.train(50)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "R")
        dialog = await opened(pilot, RollbackDialog)
        accept = dialog.query_one("#accept", Button)
        assert accept.disabled
        await go_to(pilot, "#name")
        await pilot.press(*"v00")
        assert accept.disabled
        await pilot.press("2")
        assert accept.disabled
        await pilot.press("backspace", "1")
        await until(pilot, lambda: not accept.disabled)
        assert commands(world) == []
        await push(pilot, "#accept")
        await until(pilot, lambda: "at step 100; the state before is v002" in screen(pilot))
    assert commands(world) == [("rollback", {"version": "v001", "plan": "plan-1"})]
    assert world.versions_[-1]["step"] == 150, "the state before is a version"


async def test_the_rollback_dialog_tells_what_is_lost_and_what_is_kept() -> None:
    world = trained(100)
    world.train(50)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("R")
        await opened(pilot, RollbackDialog)
        shown = screen(pilot)
        for part in ("50 steps", "50s of training", "2 validations", "goes on from row 100"):
            assert part in shown
        assert "step 150, loss" in shown and "step 100, loss" in shown
        assert "is saved as a version first" in shown


async def test_a_stale_plan_is_refused_and_shown_anew() -> None:
    world = trained(100)
    world.train(50)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "enter")
        first = await opened(pilot, RollbackDialog)
        assert "Restore v001" in screen(pilot)
        world.train(1)
        world.plan = "plan-2"
        await go_to(pilot, "#name")
        await pilot.press(*"v001", "tab")
        await push(pilot, "#accept")
        await until(
            pilot,
            lambda: isinstance(app.screen, RollbackDialog) and app.screen is not first,
            "the dialog again",
        )
        assert "Nothing was done" in screen(pilot) and "51 steps" in screen(pilot)
        assert app.screen.query_one("#accept", Button).disabled
    assert world.step == 151 and len(world.versions_) == 1


async def test_live_data_behind_a_dialog_changes_nothing_inside() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("s")
        dialog = await opened(pilot, SnapshotDialog)
        before = [(w.region, w.render_line(0).text) for w in dialog.query("#dialog Static")]
        world.train(3)
        world.add_item("another.jsonl", "high", "queued")
        world.event("note", "hello")
        await until(pilot, lambda: app.frame.step == 123)
        assert [(w.region, w.render_line(0).text) for w in dialog.query("#dialog Static")] == before
        assert app.focused is dialog.query_one("#description")


async def test_a_priority_change_shows_the_order_and_who_waits() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "down", "down", "+")
        await opened(pilot)
        shown = screen(pilot)
        assert "Set gsm8k.jsonl to high" in shown
        assert "train_syllo_level1_2000.jsonl is paused at the next step" in shown
        assert "   1  high    train_binary" in shown, "who waited there before comes first"
        assert ">  2  high    gsm8k.jsonl" in shown
        await pilot.press("right", "enter")
        await until(pilot, lambda: commands(world))
    assert commands(world) == [("priority", {"id": 3, "priority": "high"})]


async def test_the_highest_priority_cannot_be_raised() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "down", "+")
        await until(pilot, lambda: "has the highest priority" in screen(pilot))
    assert commands(world) == []


async def test_skip_keeps_or_undoes_with_a_reason() -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "k")
        await opened(pilot)
        assert "keep what it taught" in screen(pilot) and "undo it" in screen(pilot)
        await go_to(pilot, "#what")
        await pilot.press("down", "enter")
        await go_to(pilot, "#reason")
        await pilot.press(*"bad data", "enter")
        await push(pilot, "#accept")
        await until(pilot, lambda: commands(world))
    assert commands(world) == [("skip", {"item": 1, "undo": True, "reason": "bad data"})]


async def test_items_are_moved_removed_and_retried() -> None:
    world = trained()
    world.add_item("fourth.jsonl", "normal", "queued")
    world.add_item("failed.jsonl", "low", "failed", error="out of memory")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1")
        app.queue_pane.chosen = 5
        await pilot.press("K")
        await until(pilot, lambda: commands(world))
        assert commands(world)[-1] == ("shift", {"items": [5], "by": -1})
        await until(pilot, lambda: [i["id"] for i in app.queue_pane.items()].index(5) == 2)
        await pilot.press("J")
        await until(pilot, lambda: len(commands(world)) == 2)
        assert commands(world)[-1] == ("shift", {"items": [5], "by": 1})
        app.queue_pane.chosen = 6
        await pilot.press("r")
        await until(pilot, lambda: commands(world)[-1] == ("retry", {"id": 6}))
        await until(pilot, lambda: "queued again" in screen(pilot))
        app.queue_pane.chosen = 4
        await pilot.press("x")
        await opened(pilot)
        assert "Remove extra.jsonl" in screen(pilot)
        await pilot.press("right", "enter")
        await until(pilot, lambda: commands(world)[-1] == ("remove", {"id": 4}))


async def test_a_file_that_is_not_there_keeps_the_dialog_open_with_the_reason(
    tmp_path: Path,
) -> None:
    world = trained()
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "a")
        dialog = await opened(pilot)
        dialog.query_one("#path", Input).value = str(tmp_path / "no.jsonl")
        await push(pilot, "#accept")
        await until(pilot, lambda: "no such file" in screen(pilot))
        await until(pilot, lambda: app.focused is dialog.query_one("#path"), "back in the field")
        assert commands(world) == []
        there = tmp_path / "yes.jsonl"
        there.write_text("{}\n")
        dialog.query_one("#path", Input).value = str(there)
        await push(pilot, "#accept")
        await until(pilot, lambda: commands(world))
    assert commands(world) == [("add", {"path": str(there), "priority": "normal"})]


async def test_pin_and_verify_act_on_the_chosen_version() -> None:
    world = trained()
    world.version("second")
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "down", "*")
        await until(pilot, lambda: "v001 is pinned" in screen(pilot))
        await pilot.press("V")
        await until(pilot, lambda: "every file is as it was recorded" in screen(pilot))
    assert [c for c in commands(world)] == [
        ("pin", {"version": "v001", "pinned": True}),
        ("verify", {"version": "v001", "deep": False}),
    ]


async def test_a_refused_request_says_why_in_one_line() -> None:
    world = trained()
    world.refuse["pause"] = "draining: pause is refused"
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("p")
        await until(pilot, lambda: "draining: pause is refused" in lines(pilot)[-2])


async def test_names_that_look_like_markup_are_shown_as_they_are_in_dialogs() -> None:
    world = trained()
    world.items[0]["name"] = "[bold]x[/nope] \x1b]52;c;eA==\x07.jsonl"
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("1", "k")
        await opened(pilot)
        assert "Skip [bold]x[/nope]" in screen(pilot)
        assert "\x1b" not in screen(pilot)


def console_leaving(world: World, left: list[str], fail: str = "") -> Console:
    from queue_store.errors import Refused

    def leave(way: str) -> None:
        if fail:
            raise Refused(fail)
        left.append(way)

    return console_on(world, leave=leave)


async def test_an_attached_console_leaves_at_once_and_asks_the_engine_nothing() -> None:
    world, left = trained(), list[str]()
    app = console_leaving(world, left)
    async with running(app) as pilot:
        await pilot.press("q")
        await until(pilot, lambda: app.left == "detach")
    assert commands(world) == [] and left == []


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_leaving_with_the_engine_inside_asks_and_keeps_training_by_default(key: str) -> None:
    world, left = trained(local=True), list[str]()
    app = console_leaving(world, left)
    async with running(app) as pilot:
        await pilot.press(key)
        await opened(pilot)
        assert "Keep training in the background" in screen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.left == "handover")
    assert left == ["handover"]


async def test_leaving_can_stop_or_be_cancelled() -> None:
    world, left = trained(local=True), list[str]()
    app = console_leaving(world, left)
    async with running(app) as pilot:
        await pilot.press("q", "escape")
        await pilot.pause()
        assert left == [] and app.left == ""
        await pilot.press("q", "left", "enter")
        await until(pilot, lambda: app.left == "stop")
    assert left == ["stop"]


async def test_a_handover_that_fails_stays_and_says_why() -> None:
    world, left = trained(local=True), list[str]()
    app = console_leaving(world, left, fail="the daemon did not answer")
    async with running(app) as pilot:
        await pilot.press("q", "enter")
        await until(pilot, lambda: "training goes on here: the daemon did not" in screen(pilot))
        assert app.left == "" and app.is_running
