"""What the console says to somebody who sees it for the first time, and that it is shown at all."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from typing import Any

import pytest
from textual.app import App
from textual.screen import Screen
from textual.widget import Widget

import tui
from tests.tui_pilot import NARROW, WIDE, console_on, lines, running, screen, until
from tests.tui_world import World, unknown
from tui.console import Console
from tui.safe import squeeze

LONG = "train_binary_level2_10900_20261121_003446.jsonl"
MAY_SET = {"theme", "border_title", "name"}
"""Attributes of Textual's that are meant to be set."""


def classes() -> list[type]:
    found = []
    for module in pkgutil.walk_packages(tui.__path__, "tui."):
        loaded = importlib.import_module(module.name)
        found += [
            kind
            for _, kind in inspect.getmembers(loaded, inspect.isclass)
            if kind.__module__ == module.name and issubclass(kind, (Widget, App))
        ]
    return found


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_no_attribute_of_ours_hides_one_of_textuals(kind: type) -> None:
    # A pane that called one of its own `_running` was not painted while no item trained.
    base: type = next(b for b in (App, Screen, Widget) if issubclass(kind, b))
    theirs = set(dir(base)) | set(vars(base()))
    ours = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(kind)))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    assert not ours & theirs - MAY_SET


async def test_before_the_first_answer_no_pane_claims_that_there_is_nothing() -> None:
    app = console_on(World(steps=3))
    app.poller.start = lambda: None  # type: ignore[method-assign]
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "reading…" in screen(pilot))
        for claim in ("No files yet", "No versions yet", "Nothing has happened"):
            assert claim not in screen(pilot)


async def shown_after(world: World, *keys: str, size: tuple[int, int] = NARROW) -> str:
    app = console_on(world)
    async with running(app, size) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        await until(pilot, lambda: True)
        return screen(pilot)


async def test_an_answer_longer_than_the_screen_is_wide_is_read_to_its_end() -> None:
    world = World(local=True, steps=3)
    world.items[0]["name"] = LONG
    shown = await shown_after(world, "x")
    assert "is training" in shown and "or paused" in shown
    assert len(shown.splitlines()) == NARROW[1] and "q leave" in shown.splitlines()[-1]


async def test_the_answer_gives_its_lines_back() -> None:
    world = World(steps=3)
    world.items[0]["name"] = LONG
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        before = lines(pilot)
        await pilot.press("x")
        await until(pilot, lambda: "or paused" in screen(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: lines(pilot) == before, "the screen as it was")


async def test_a_long_file_name_does_not_hide_what_happened_to_it() -> None:
    world = World(steps=3)
    world.event("item.prepared", f"{LONG} prepared: 5145 rows, 343 steps")
    shown = await shown_after(world, "6")
    assert "prepared: 5145 rows, 343 steps" in shown


def test_squeeze_shortens_the_longest_words_only_and_only_as_far_as_it_must() -> None:
    text = f"{LONG} moved before {LONG}"
    assert squeeze(text, 200) == text
    for width in (100, 90, 80, 60):
        short = squeeze(text, width)
        assert len(short) <= width and " moved before " in short
        assert short.startswith("train_binary") and short.endswith("l")
    assert squeeze("nothing to give", 5) == "nothing to give"
    assert squeeze("\x1b[31mred\x07", 40).isprintable()


async def test_details_tell_the_step_of_the_header_not_an_older_one_of_the_store() -> None:
    world = World(steps=40)
    stale = {**world.items[0], "step": 0, "cursor": 0, "report": unknown("not prepared yet")}
    world.item = lambda item: dict(stale)  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("enter")
        await until(pilot, lambda: "step 40 of 250" in screen(pilot))
        shown = screen(pilot)
    assert "1 960 an epoch, 1 epoch" in shown and "epochs" not in shown


async def test_the_choices_of_skip_are_read_whole_at_80_columns() -> None:
    shown = await shown_after(World(steps=3), "k")
    assert "undo it: what else trained since then trains again" in shown


async def test_help_tells_all_of_the_chosen_action() -> None:
    app = console_on(World(steps=3))
    async with running(app, NARROW) as pilot:
        await pilot.press("question_mark", *"rollback")
        whole = app.keymap.by_id["rollback"].help
        await until(pilot, lambda: whole in " ".join(plain(screen(pilot)).split()), whole)


def plain(text: str) -> str:
    """Without frames."""
    return "".join(c if c not in "│┃╭╮╰╯─━┏┓┗┛" else " " for c in text)


async def test_a_short_history_fills_a_long_window() -> None:
    shown = await shown_after(World(steps=60), "2", "w")
    assert "last 1 000" in shown
    assert "-9" not in shown.splitlines()[-5] and "└1 " in shown


async def test_the_cursor_where_no_step_is_says_so_and_not_nan() -> None:
    world = World(steps=57)
    app: Console = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.press("2", "full_stop")
        await until(pilot, lambda: "| step 57 " in screen(pilot), "it starts at the newest step")
        app.curves_pane.cursor = int(app.curves_pane.view()[1])  # past the newest
        app.curves_pane.redraw()
        await until(pilot, lambda: "no value here" in screen(pilot))
        assert "NaN" not in screen(pilot)


@pytest.mark.parametrize("size", [WIDE, NARROW])
async def test_a_reason_why_a_meter_is_unknown_is_read_whole(size: tuple[int, int]) -> None:
    world = World(steps=3)
    told: dict[str, Any] = world.do_snapshot()
    told["disk"]["snapshots_left"] = unknown("no checkpoint yet to take the size from")
    world.do_snapshot = lambda: told  # type: ignore[method-assign]
    shown = " ".join(plain(await shown_after(world, "3", size=size)).split())
    assert "take the size from" in shown or "the size from" in shown


async def test_leaving_while_paused_says_that_it_stays_paused() -> None:
    world = World(local=True, steps=3)
    world.state = "paused"
    shown = await shown_after(world, "q")
    assert "paused at step 3" in shown and "stays paused" in shown


async def test_the_narrow_list_of_versions_names_the_loss_that_it_shows() -> None:
    world = World(steps=30)
    made = world.version("one")
    made["loss"], made["val_loss"] = 5.433, 0.328
    shown = await shown_after(world, size=WIDE)
    heading = next(line for line in shown.splitlines() if "exact eval age" in line)
    row = next(line for line in shown.splitlines() if ">v001" in line)
    assert heading.index("val") + len("val") == row.index("0.328") + len("0.328")
