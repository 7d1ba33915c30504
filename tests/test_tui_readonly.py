"""A console that can look and never change: at its keys, and in its session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.messages import COMMANDS, Kind
from engine.reading.views import Views
from engine.sessions.client import connect
from engine.sessions.dispatch import Dispatcher
from engine.sessions.readonly import LOOKING, ReadOnlySession, StoreSession
from engine.sessions.server import Server
from queue_store.config import default
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.lock import EngineLock, holder
from tests import engine_kit as kit
from tests.stepping_engine import SteppingEngine
from tests.stepping_engine import make_home as stepping_home
from tests.test_tui_screen import trained
from tests.tui_pilot import NARROW, WIDE, configured, console_on, lines, running, screen, until
from tests.tui_rows import RowsWorld
from tests.tui_world import READING, World
from tui.actions import ACTIONS
from tui.console import Console


@pytest.mark.parametrize("command", COMMANDS)
def test_the_session_lets_through_what_looks_and_nothing_else(command: str) -> None:
    world = RowsWorld()
    asked: list[str] = []

    def request(command: str, timeout: float | None = None, **arguments: Any) -> str:
        asked.append(command)
        return "answered"

    world.request = request  # type: ignore[method-assign]
    session = ReadOnlySession(world)
    if COMMANDS[command].kind in (Kind.SERVER, Kind.READ, Kind.LOOK):
        assert session.request(command) == "answered"
    else:
        with pytest.raises(Refused, match=r"read-only.*without --readonly"):
            session.request(command)
        assert asked == []


async def test_an_action_that_changes_something_says_read_only_and_how_to_leave() -> None:
    world = trained()
    app = console_on(world, readonly=True)
    async with running(app, NARROW) as pilot:
        for action in (one for one in ACTIONS if one.changes):
            app.perform(action)
            await until(pilot, lambda a=action: f"read-only, so no {a.label}:" in screen(pilot))  # type: ignore[misc]
            assert "leave (q) and start trainctl without --readonly" in screen(pilot)
            assert app.screen is app._base(), "no dialog opens"
    assert [entry for entry in world.log if entry[0] != "close"] == []


async def test_no_key_at_all_asks_a_read_only_console_to_change_something() -> None:
    world = RowsWorld(steps=60)
    world.version("one")
    app = console_on(world, readonly=True)
    sent: list[str] = []
    request = world.request

    def heard(command: str, timeout: float | None = None, **arguments: Any) -> Any:
        sent.append(command)
        return request(command, timeout, **arguments)

    world.request = heard  # type: ignore[method-assign]
    async with running(app) as pilot:
        for action in ACTIONS:
            if action.id != "leave":
                app.perform(action)
                await pilot.pause()
                while app.screen is not app._base():
                    app.screen.dismiss(None)
                    await pilot.pause()
    known = {name for name, spec in COMMANDS.items() if spec.kind in LOOKING}
    assert set(sent) <= known and set(sent) <= set(READING)


@pytest.mark.parametrize("size", [WIDE, NARROW, (60, 16)])
async def test_the_header_is_marked_at_every_size(size: tuple[int, int]) -> None:
    app = console_on(trained(), readonly=True)
    async with running(app, size) as pilot:
        assert "READ-ONLY" in lines(pilot)[0] and "step 120" in lines(pilot)[0]


async def test_an_empty_home_promises_no_key_that_would_not_act() -> None:
    world = World()
    world.items.clear()
    world.state = "idle"
    app = console_on(world, readonly=True)
    async with running(app) as pilot:
        await pilot.press("1")
        await until(pilot, lambda: "No files yet" in screen(pilot))
        assert "the queue is empty" in screen(pilot) and "No versions yet." in screen(pilot)
        for promise in ("adds a file", "keeps the present", "Add one", "a add", "p pause", "skip"):
            assert promise not in screen(pilot), promise
        world.state = "paused"
        await until(pilot, lambda: "paused" in lines(pilot)[0])
        assert "goes on" not in screen(pilot)


async def test_the_keys_that_are_told_are_those_of_the_config() -> None:
    world = World()
    world.items.clear()
    world.state = "idle"
    app = console_on(world, config=configured(keys={"add": "f5", "snapshot": "f6"}))
    async with running(app) as pilot:
        await pilot.press("1")
        await until(pilot, lambda: "f5 adds a file" in screen(pilot))
        assert "f5              here" in screen(pilot) and "f6 keeps" in screen(pilot)


async def test_it_looks_at_the_store_until_an_engine_comes_and_starts_none(
    tmp_path: Path,
) -> None:
    home = stepping_home(tmp_path / "home")
    kit.add(home, "first.jsonl", 24)

    def attach() -> ReadOnlySession:
        return ReadOnlySession(connect(home))

    session = StoreSession(home, attach)
    app = Console(
        default(),
        session,
        Views(home),
        leave=lambda way: None,
        reconnect=attach,
        readonly=True,
    )
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "first.jsonl" in screen(pilot))
        assert "stopped" in lines(pilot)[0] and "no engine runs" in screen(pilot)
        assert holder(home) is None and not home.socket.exists(), "none is started"
        with pytest.raises(Refused):
            session.request("pause")
        with EngineLock.acquire(home, "daemon"), SteppingEngine(home) as engine:
            server = Server(home, Dispatcher(engine))
            server.start()
            await until(pilot, lambda: "training" in lines(pilot)[0], "the engine's word")
            before = engine.steps
            app.do_leave()
            await until(pilot, lambda: app.left == "detach")
            server.stop()
            assert engine.steps >= before and engine.done == []


def test_the_command_refuses_where_there_is_nothing_to_look_at(trainctl: Any, home: Home) -> None:
    from trainctl.console import _looking
    from trainctl.context import Context

    with pytest.raises(Refused, match="no engine has run here yet"):
        _looking(Context(str(home.root)), default())
    assert not home.state_db.exists()


def test_the_flags_are_the_consoles_alone(trainctl: Any, home: Home) -> None:
    for words in (("--readonly", "pause"), ("--readonly", "--daemon"), ("--ascii", "queue")):
        done = trainctl(*words, home=home)
        assert done.code == 2 and "is for the console" in done.err
