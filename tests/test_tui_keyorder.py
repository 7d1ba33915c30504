"""Keys that come faster than they are done: each means what it means after the one before."""

from __future__ import annotations

from typing import Any

import pytest
from textual.events import Key, Paste
from textual.widgets import Input

from tests.test_tui_screen import trained
from tests.tui_pilot import console_on, running, screen, until
from tui.console import Console
from tui.dialogs.help import ActionList
from tui.dialogs.snapshot import SnapshotDialog


def at_once(app: Console, *keys: str) -> None:
    """As one read from a terminal brings them: nothing is done between two of them."""
    for key in keys:
        app.post_message(Key(key, key if len(key) == 1 else None))


@pytest.mark.parametrize(
    ("pane", "opens"),
    [("1", "?"), ("1", "enter"), ("1", "a"), ("1", "/"), ("4", "t"), ("4", "D"), ("5", "R")],
)
async def test_a_key_behind_the_one_that_closes_a_view_acts_in_the_pane(
    pane: str, opens: str
) -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press(pane, opens)
        await until(
            pilot, lambda: app.screen is not app._base() or isinstance(app.focused, Input), opens
        )
        await pilot.pause()
        at_once(app, "escape", "6")
        await until(pilot, lambda: app.pane_name == "events", "the key was heard")
        assert app.screen is app._base()


async def test_keys_behind_the_one_that_opens_a_view_are_for_that() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        at_once(app, "5", "?", *"snap")
        await until(pilot, lambda: isinstance(app.screen, ActionList))
        await until(pilot, lambda: app.screen.query_one(Input).value == "snap")
        at_once(app, "enter", "tab", "tab")
        await until(pilot, lambda: isinstance(app.screen, SnapshotDialog))
        at_once(app, "escape", "1", "/", *"gsm", "enter", "6")
        await until(pilot, lambda: app.pane_name == "events")
        assert app.queue_pane.filter == "gsm"


async def test_panes_chosen_one_behind_the_other_end_at_the_last() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        for _ in range(5):
            at_once(app, "6", "1", "4", "5", "2", "3")
        await until(pilot, lambda: app._under_way is None and app.pane_name == "meters")
        chosen: list[str] = []
        app._tabs.choose = chosen.append  # type: ignore[method-assign]
        for _ in range(20):
            await pilot.pause()
        assert not chosen and app.focused is app.panes["meters"]


async def test_escape_gives_up_the_filter_that_is_being_typed_and_keeps_the_marks() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        await pilot.press("1", "down", "space", "/", *"gsm")
        await until(pilot, lambda: app.queue_pane.filter == "gsm")
        await pilot.press("escape")
        await until(pilot, lambda: app.focused is app.queue_pane)
        assert app.queue_pane.filter == "" and len(app.queue_pane.marks) == 1
        assert not app._base().has_class("-filtering")


async def test_ctrl_c_waits_for_nothing_and_ends_what_was_typed_before() -> None:
    app = console_on(trained())
    async with running(app) as pilot:
        slow = app._under_way = object()  # a key that does not come to its end
        at_once(app, "5", "?")
        app.post_message(Paste("text"))
        await pilot.pause()
        assert app._under_way is slow and len(app._typed) == 3
        at_once(app, "ctrl+c")
        await until(pilot, lambda: app.left == "detach")


async def test_a_key_that_gets_stuck_holds_up_the_next_ones_for_two_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tui.keyorder.STUCK_SECONDS", 0.1)
    app = console_on(trained())
    follow: Any = app._follow
    async with running(app) as pilot:
        monkeypatch.setattr(app, "_follow", lambda *where: None)
        at_once(app, "5", "6")
        await until(pilot, lambda: app.pane_name == "events")
        monkeypatch.setattr(app, "_follow", follow)
        assert "6 events" in screen(pilot)
