"""One table of actions: every key, in footer, help and palette, doing what it says."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from textual.keys import Keys

from queue_store.errors import ConfigError
from queue_store.home import Home
from tests.tui_pilot import NARROW, configured, console_on, running, screen, until
from tests.tui_world import World
from tui import keynames
from tui.actions import ACTIONS, PANES, Keymap, remapped
from tui.commands import Commands
from tui.console import Console
from tui.dialogs.help import key_label_of
from tui.dialogs.rollback import RollbackDialog
from tui.toosmall import TooSmall


def test_every_action_is_carried_out_somewhere_and_nothing_else_is() -> None:
    app = console_on(World())
    places = [*app.panes.values(), app._commands, app]
    carried = {
        name[3:]
        for place in places
        for name in dir(place)
        if name.startswith("do_") and callable(getattr(place, name))
    }
    wanted = {action.id for action in ACTIONS if not action.id.startswith("pane_")}
    assert wanted - carried == set()
    assert carried - wanted == set()


def test_an_action_stands_in_the_table_once() -> None:
    """The lists of help and palette, and what they run, go by the id."""
    names = [action.id for action in ACTIONS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("pane", PANES)
def test_no_two_actions_share_a_key_in_a_pane(pane: str) -> None:
    own = [key for a in ACTIONS if pane in a.where for key in a.keys]
    assert len(own) == len(set(own))


def test_ctrl_z_is_never_a_key() -> None:
    assert all("ctrl+z" not in action.keys for action in ACTIONS)
    with pytest.raises(ConfigError, match="cannot be a key: it stops a process"):
        remapped({"pause": "ctrl+z"})
    with pytest.raises(ConfigError, match="cannot be a key: it always leaves"):
        remapped({"pause": "ctrl+c"})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Ctrl+P", '"ctrl+p"'),
        ("C-p", '"ctrl+p"'),
        ("^p", '"ctrl+p"'),
        ("Space", '"space"'),
        (" ", '"space"'),
        ("esc", '"escape"'),
        ("Page Up", '"pageup"'),
        ("shift+p", '"P"'),
        ("question_mark", '"?"'),
        ("F5", '"f5"'),
        ("entre", '"enter"'),
        ("ctrl+ö", '"ctrl+'),
        ("ctrl+i", "a terminal sends it as tab"),
        ("", "for example"),
        ("pq", "for example"),
    ],
)
def test_a_key_that_no_terminal_sends_is_refused_with_the_one_that_was_meant(
    written: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match="cannot be a key") as found:
        remapped({"pause": written}, "/home/config.toml")
    assert meant in found.value.mend
    assert found.value.where == "/home/config.toml: console.keys.pause"


def test_every_key_of_the_table_and_every_name_of_textuals_that_is_offered_is_one() -> None:
    assert all(
        keynames.wrong(key) is None for action in ACTIONS for key in action.keys if key != "ctrl+c"
    )
    known = {key.value for key in Keys}
    strange = {key for key in keynames.KEYS if key not in known}
    assert not strange, "a terminal never sends these"


@pytest.mark.parametrize("words", [("config", "show"), ()])
def test_a_wrong_key_is_told_by_config_show_and_before_the_console_starts(
    trainctl: Any, home: Home, words: tuple[str, ...]
) -> None:
    home.config.write_text('[console.keys]\npause = "Spce"\n')
    done = trainctl(*words, home=home)
    assert done.code == 2 and done.out == ""
    assert "console.keys.pause" in done.err and 'did you mean "space"' in done.err


def test_a_remapped_key_replaces_the_old_one() -> None:
    keymap = Keymap({"pause": "ctrl+p"})
    found = keymap.lookup("queue", "ctrl+p")
    assert found is not None and found.id == "pause"
    assert keymap.lookup("queue", "p") is None


def test_an_unknown_action_in_the_configuration_names_its_neighbour() -> None:
    with pytest.raises(ConfigError, match="did you mean pause"):
        remapped({"pasue": "space"})


def test_a_key_given_to_two_actions_is_refused_with_both_names() -> None:
    with pytest.raises(ConfigError, match="key s is both pause and snapshot"):
        remapped({"pause": "s"})


async def test_the_configured_key_works_on_the_screen() -> None:
    world = World(steps=3)
    app = console_on(world, configured(keys={"pause": "ctrl+p"}))
    async with running(app) as pilot:
        await pilot.press("p")
        await pilot.press("ctrl+p")
        await until(pilot, lambda: world.state == "paused", "ctrl+p pauses")
    assert [command for command, _ in world.log if command != "close"] == ["pause"]


async def test_the_footer_shows_only_keys_that_act_in_the_chosen_pane() -> None:
    app = console_on(World(steps=3))
    async with running(app) as pilot:
        for number, pane in enumerate(PANES, 1):
            await pilot.press(str(number))
            await until(pilot, lambda pane=pane: app.pane_name == pane)
            foot = screen(pilot).splitlines()[-1]
            assert "? help" in foot and "q leave" in foot
            foreign = {a.label for a in ACTIONS if a.where and pane not in a.where}
            here = {a.label for a in ACTIONS if not a.where or pane in a.where}
            assert not any(f" {label}  " in foot for label in foreign - here)


async def test_a_wide_footer_has_every_action_of_the_pane() -> None:
    app = console_on(World(steps=3))
    async with running(app, (600, 40)) as pilot:
        for number, pane in enumerate(PANES, 1):
            await pilot.press(str(number))
            await until(pilot, lambda pane=pane: app.pane_name == pane)
            foot = screen(pilot).splitlines()[-1]
            for action in ACTIONS:
                if not action.where or pane in action.where:
                    key = app.keymap.keys_of(action.id, pane)[0]
                    assert f"{key_label_of(key)} {action.label}" in foot


@pytest.mark.parametrize("pane", PANES)
def test_the_footer_names_no_key_that_means_another_action_in_the_pane(pane: str) -> None:
    keymap = Keymap({})
    for action in keymap.footer(pane):
        found = keymap.lookup(pane, action.keys[0])
        assert found is not None and found.id == action.id
    assert keymap.keys_of("why", "curves") == ("W",) and keymap.keys_of("why", "queue")[0] == "w"


@pytest.mark.parametrize("key", ["?", ":"])
async def test_help_and_palette_find_an_action_and_enter_runs_it(key: str) -> None:
    world = World(steps=3)
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press(key)
        await pilot.press(*"pause at")
        assert "Pause at the next step" in screen(pilot)
        assert "Take an item" not in screen(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: world.state == "paused", "the found action runs")


async def test_help_lists_every_action() -> None:
    app = console_on(World(steps=3))
    async with running(app, (120, 140)) as pilot:
        await pilot.press("?")
        await pilot.pause()
        shown = screen(pilot)
        for action in ACTIONS:
            assert action.help[:30] in shown, action.id


async def test_an_action_of_another_pane_run_from_the_palette_goes_there() -> None:
    app = console_on(World(steps=30))
    async with running(app) as pilot:
        await pilot.press(":", *"log scale", "enter")
        await until(pilot, lambda: app.curves_pane.log_scale)
        assert app.pane_name == "curves"


async def test_below_the_smallest_size_no_key_does_anything() -> None:
    world = World(steps=3)
    app = console_on(world)
    async with running(app, NARROW) as pilot:
        await pilot.resize_terminal(59, 15)
        await until(pilot, lambda: "too small" in screen(pilot))
        keys = {key for action in ACTIONS for key in action.keys}
        await pilot.press(*sorted(keys))
        await pilot.pause()
        assert "too small: 59x15" in screen(pilot) and "needs 60x16" in screen(pilot)
        assert world.log == []
        await pilot.resize_terminal(60, 16)
        await until(pilot, lambda: "too small" not in screen(pilot))
        assert app.pane_name == "queue" and "train_syllo" in screen(pilot)


def test_the_table_has_no_action_without_help_or_label() -> None:
    for action in ACTIONS:
        assert action.help and action.label and action.keys
    assert Commands and Console


async def test_a_view_that_opens_late_opens_behind_the_screen_that_is_too_small() -> None:
    world = World(steps=60)
    world.version("one")
    world.train(5)
    gate, plan = threading.Event(), world.do_rollback_plan

    def slow(**words: Any) -> Any:
        gate.wait(120)
        return plan(**words)

    world.do_rollback_plan = slow  # type: ignore[method-assign]
    app = console_on(world)
    async with running(app) as pilot:
        await pilot.press("5", "R")
        await pilot.resize_terminal(40, 10)
        gate.set()
        await until(pilot, lambda: any(isinstance(s, RollbackDialog) for s in app.screen_stack))
        assert isinstance(app.screen, TooSmall), "no key acts on a dialog that nobody can see"
        await pilot.press("enter", "escape")
        await pilot.resize_terminal(120, 36)
        await until(pilot, lambda: isinstance(app.screen, RollbackDialog))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app._base(), "it is not too small any more")
