"""The table of actions as a whole, whatever is in it: every action can be reached by the keyboard
in its place, is in help and palette, takes another key, and does something or says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.tui_pilot import NARROW, WIDE, configured, console_on, running, screen, until
from tests.tui_rows import RowsWorld
from tui.actions import ACTIONS, PANES, Action, Keymap
from tui.bars import Footer
from tui.console import Console
from tui.dialogs.help import ActionList

FREE = "f9"
"""A key that no action has."""
STAY = {
    *("down", "up", "page_down", "page_up", "top", "bottom"),  # at the end of their lines
    *("back", "redraw", "next", "previous"),
    *(f"pane_{number}" for number in range(1, 7)),
    *("pan_left", "pan_right", "follow"),  # where the whole history is on the screen
}
"""Actions that may leave the screen as it is, as there is nothing more in that direction."""


def places(action: Action) -> tuple[str, ...]:
    return action.where or PANES


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_an_action_has_a_key_in_each_of_its_places_and_takes_another(action: Action) -> None:
    keymap, other = Keymap({}), Keymap({action.id: FREE})
    for pane in places(action):
        found = [keymap.lookup(pane, key) for key in action.keys]
        assert any(one is not None and one.id == action.id for one in found), (
            f"in {pane} other actions have all of its keys: {', '.join(action.keys)}"
        )
        remapped = other.lookup(pane, FREE)
        assert remapped is not None and remapped.id == action.id
        for key in action.keys:
            old = other.lookup(pane, key)
            assert old is None or old.id != action.id, "the old key is free"


def told(pane: str) -> list[str]:
    """The ids in help and palette, in their order."""
    return list(ActionList(Keymap({}), pane, "Keys")._rows._actions)


def test_an_action_stands_once_in_the_table() -> None:
    """Help, palette, a click and [console.keys] know actions by id: of two with one id, each would
    act for the other, in the other's pane."""
    ids = [action.id for action in ACTIONS]
    assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("pane", PANES)
def test_help_and_palette_list_every_action_those_of_the_pane_first(pane: str) -> None:
    ids = told(pane)
    assert sorted(ids) == sorted(action.id for action in ACTIONS)
    own = [action.id for action in ACTIONS if pane in action.where]
    assert ids[: len(own)] == own
    assert {a.id for a in Footer(Keymap({}))._keymap.footer(pane)} >= set(own)


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_every_key_reaches_its_action_in_each_of_its_places(size: tuple[int, int]) -> None:
    app = console_on(RowsWorld(steps=3))
    ran: list[str] = []
    async with running(app, size) as pilot:
        app.perform = lambda action: ran.append(action.id)  # type: ignore[method-assign]
        app.do_leave = lambda: ran.append("leave")  # type: ignore[method-assign]
        for pane in PANES:
            app._focus_pane(pane)
            await until(pilot, lambda pane=pane: app.focused is app.panes[pane])
            keys = {
                key: found.id
                for action in app.keymap.actions
                for key in action.keys
                if (found := app.keymap.lookup(pane, key)) is not None
            }
            ran.clear()
            await pilot.press(*keys)
            await pilot.pause()
            assert dict(zip(keys, ran, strict=True)) == keys, pane


async def test_a_remapped_key_is_the_one_that_footer_and_help_show() -> None:
    app = console_on(RowsWorld(steps=3), configured(keys={"help": "f1", "pause": "ctrl+p"}))
    async with running(app) as pilot:
        foot = screen(pilot).splitlines()[-1]
        assert "f1 help" in foot and "^p pause" in foot
        await pilot.press("f1")
        await pilot.press(*"pause at")
        await until(pilot, lambda: "^p" in screen(pilot) and "Pause at the next" in screen(pilot))


@pytest.mark.parametrize(
    ("typed", "meant"), [("rolback", "rollback"), ("snpshot", "snapshot"), ("priorty", "priority")]
)
async def test_the_palette_finds_what_is_typed_nearly_right(typed: str, meant: str) -> None:
    app = console_on(RowsWorld(steps=3))
    async with running(app) as pilot:
        await pilot.press(":", *typed)
        await pilot.pause()
        top = app.screen
        assert isinstance(top, ActionList)
        chosen = top._rows.action()
        assert chosen is not None and meant in f"{chosen.label} {chosen.help}"
        await pilot.press(*"zzzzzz")
        await until(pilot, lambda: "nothing" in screen(pilot))


# -- pressed, it does something or says why not


def fresh() -> RowsWorld:
    world = RowsWorld()
    world.items.clear()
    world.state = "idle"
    return world


def training() -> RowsWorld:
    world = RowsWorld(steps=130)
    world.version("one")
    world.train(20)
    world.version("two")
    world.items[-1] |= {"state": "failed", "error": "loss is NaN"}
    return world


def paused() -> RowsWorld:
    world = training()
    world.state = "paused"
    return world


STATES: dict[str, Callable[[], RowsWorld]] = {
    "fresh": fresh,
    "training": training,
    "paused": paused,
    "lost": training,
    "readonly": training,
}


def picture(app: Console) -> Any:
    """All that a person sees, colours included."""
    return [[(s.text, s.style) for s in strip] for strip in app.screen._compositor.render_strips()]


async def settle(pilot: Any, app: Console) -> None:
    """Back to the panes, without a dialog, a filter, a zoom, or an answer on the screen."""
    while app.screen is not app._base():
        app.screen.dismiss(None)
        await pilot.pause()
    if app._base().has_class("-filtering"):
        app._close_filter()
    for pane in app.panes.values():
        if getattr(pane, "filter", ""):
            pane.set_filter("")  # type: ignore[attr-defined]
    if app._zoomed:
        app.do_zoom()
    app.say("")
    await pilot.pause()


@pytest.mark.parametrize(
    "state",
    [
        "fresh",
        "training",
        "lost",
        *(pytest.param(s, marks=pytest.mark.slow) for s in ("paused", "readonly")),
    ],
)
async def test_an_action_does_something_visible_or_says_why_not(state: str) -> None:
    world = STATES[state]()
    app = console_on(world, readonly=state == "readonly")
    silent = []
    async with running(app, NARROW) as pilot:
        if state == "lost":
            world.lost = "no engine is running for this home"
            await until(pilot, lambda: app.frame.lost)
        app.first.dismiss()
        for action in ACTIONS:
            if action.id in STAY or action.id == "leave":
                continue
            for pane in action.where or PANES[:1]:
                await settle(pilot, app)
                app._focus_pane(pane)
                await pilot.pause()
                key = next(k for k in action.keys if app.keymap.lookup(pane, k) == action)
                before, asked = picture(app), len(world.log)
                await pilot.press(key)
                await pilot.pause()
                if picture(app) == before and len(world.log) == asked:
                    await pilot.pause(0.2)  # an answer of a thread
                    if picture(app) == before:
                        silent.append(f"{action.id} in {pane}")
        await settle(pilot, app)
        app.do_leave()
        await until(pilot, lambda: app.left == "detach")
    assert not silent, ", ".join(silent)
