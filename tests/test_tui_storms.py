"""Storms of keys: whatever is pressed, in whatever order, the console lives, can be left, and the
engine under it trains on with its store in order."""

from __future__ import annotations

import asyncio
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.reading.views import Views
from engine.sessions.dispatch import Dispatcher
from engine.sessions.session import LocalSession
from queue_store.config import default
from tests import engine_kit as kit
from tests.engine_forks import audit
from tests.tui_pilot import console_on, running, screen, until
from tests.tui_rows import RowsWorld
from tui.actions import ACTIONS
from tui.console import Console
from tui.dialogs.leave import LeaveDialog
from tui.toosmall import TooSmall

KEYS = sorted({key for action in ACTIONS for key in action.keys})
INSIDE = [
    "enter",
    "escape",
    "tab",
    "shift+tab",
    "up",
    "down",
    "left",
    "right",
    "space",
    "backspace",
]
"""Keys that dialogs and fields take."""
SIZES = [(120, 36), (80, 24), (60, 16), (40, 10), (200, 60), (1, 1)]
HAPPENS = ("step", "event", "lost", "back", "end", "gone")

one = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(INSIDE),
    st.sampled_from([f":{letter}" for letter in string.ascii_letters + string.digits]),
    st.sampled_from(SIZES),
    st.sampled_from([f"!{what}" for what in HAPPENS]),
)
storms = st.lists(one, min_size=10, max_size=60)


def happen(world: RowsWorld, what: str) -> None:
    """Something changes behind the keys."""
    if what == "step":
        world.train(1)
    elif what == "event":
        world.event("note", "something happened")
    elif what == "lost":
        world.lost = "killed"
    elif what == "back":
        world.lost = ""
    elif what == "end" and world.items:
        world.items[0]["state"] = "done"
    elif what == "gone":
        del world.items[1:]
        del world.versions_[1:]


async def storm(app: Console, pilot: Any, world: RowsWorld | None, keys: list[Any]) -> None:
    for key in keys:
        if isinstance(key, tuple):
            await pilot.resize_terminal(*key)
        elif len(key) > 1 and key[0] == "!":
            if world is not None:
                happen(world, key[1:])
        elif app.is_running and not app.left:
            await pilot.press(key[1:] if len(key) == 2 and key[0] == ":" else key)


async def leave(app: Console, pilot: Any) -> None:
    """By the keys that a person tries: Esc until nothing is open, then q."""
    await pilot.resize_terminal(120, 36)
    await until(pilot, lambda: not isinstance(app.screen, TooSmall))
    for _ in range(6):
        if app.left:
            return
        await pilot.press("escape")
        await pilot.pause()
    if app._base().has_class("-filtering"):
        await pilot.press("ctrl+c")
        await pilot.pause()
    assert app.left or app.screen is app._base(), screen(pilot)
    if not app.left:
        await pilot.press("q")
        await until(pilot, lambda: app.left or isinstance(app.screen, LeaveDialog), "q leaves")


def run_on_a_world(keys: list[Any], *, local: bool, readonly: bool) -> None:
    async def go() -> None:
        world = RowsWorld(local=local, steps=30)
        world.version("one")
        world.train(5)
        world.version("two")
        app = console_on(world, readonly=readonly)
        async with running(app, (80, 24)) as pilot:
            await storm(app, pilot, world, keys)
            await leave(app, pilot)

    asyncio.run(go())


quick = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@quick
@given(storms, st.booleans(), st.booleans())
def test_no_storm_of_keys_ends_the_console_or_keeps_a_person_in_it(
    keys: list[Any], local: bool, readonly: bool
) -> None:
    run_on_a_world(keys, local=local, readonly=readonly)


@pytest.mark.slow
@settings(quick, max_examples=150, derandomize=False, phases=tuple(Phase))
@given(storms, st.booleans(), st.booleans())
def test_many_storms_of_keys(keys: list[Any], local: bool, readonly: bool) -> None:
    run_on_a_world(keys, local=local, readonly=readonly)


# -- on a real engine


def run_on_an_engine(folder: Path, keys: list[Any]) -> None:
    home = kit.make_home(folder, training={"sample_steps": 0})
    kit.add(home, "long.jsonl", 1500, 1)
    kit.add(home, "next.jsonl", 200, 2)
    with kit.Running(home) as engine:
        engine.wait_step(3)
        engine.ask("snapshot_version")

        async def go() -> None:
            views = Views(home)
            session = LocalSession(Dispatcher(engine.engine))
            app = Console(default(), session, views, leave=lambda way: None)
            async with app.run_test(size=(80, 24)) as pilot:
                await until(pilot, lambda: app.frame.status and app.frame.versions)
                await storm(app, pilot, None, keys)
                await leave(app, pilot)

        asyncio.run(go())
        assert engine.engine.error is None
        # What the keys asked for is done or refused by now; then it goes on.
        if not any(
            state in ("queued", "paused", "training") for state in kit.states(home).values()
        ):
            kit.add(home, "after.jsonl", 200, 3)
            engine.engine.wake()
        engine.unpause()
        at = engine.step
        kit.wait_until(lambda: engine.step != at, timeout=60, what="the engine trains on")
    assert audit(home) == []


def test_a_storm_of_keys_leaves_the_engine_training_and_its_store_in_order(tmp_path: Path) -> None:
    # As a hand that slips: pause, a snapshot that is taken, a skip, a rollback that is called off
    # and one that is typed, a pin, another size in the middle of it, and a way out.
    keys: list[Any] = [
        *("p", "s", "shift+tab", "enter", "p", "k", "escape", "+", "right", "enter", (40, 10), "p"),
        *((120, 36), "5", "G", "R", "escape", "*", "enter", ":v", ":0", ":0", ":1", "tab"),
        *("tab", "enter", "1", "J", "x", "right", "enter", "t", "escape", "2", "y", "q"),
    ]
    run_on_an_engine(tmp_path / "home", keys)


@pytest.mark.slow
@settings(quick, max_examples=20, derandomize=False)
@given(keys=storms)
def test_many_storms_on_a_real_engine(
    tmp_path_factory: pytest.TempPathFactory, keys: list[Any]
) -> None:
    run_on_an_engine(tmp_path_factory.mktemp("storm") / "home", keys)
