"""Driving the console in tests: an application on a World, waited for, never slept for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from textual.pilot import Pilot

from queue_store.config import Config, default
from queue_store.errors import NoEngine
from tests import tui_calm
from tests.tui_world import World
from tests.waiting import LEAST
from tui.console import Console

tui_calm.use()
WIDE, NARROW = (120, 36), (80, 24)


def configured(**console: Any) -> Config:
    """The default configuration with other [console] keys."""
    base = default()
    return msgspec.structs.replace(base, console=msgspec.structs.replace(base.console, **console))


def console_on(world: World, config: Config | None = None, **more: Any) -> Console:
    """A console attached to `world`, on its clock; an engine that was lost may come back."""

    def reconnect() -> World:
        if world.lost:
            raise NoEngine(world.lost)
        return world

    more.setdefault("leave", lambda way: None)
    return Console(
        config or default(),
        world,
        world,
        reconnect=reconnect,
        clock=lambda: world.now,
        **more,
    )


async def until(pilot: Pilot[Any], condition: Callable[[], Any], what: str = "") -> None:
    """Let the application run until `condition` holds."""
    deadline = time.monotonic() + LEAST
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}\n" + screen(pilot))
        await pilot.pause(0.02)
    await pilot.pause()


@asynccontextmanager
async def running(app: Console, size: tuple[int, int] = WIDE) -> AsyncIterator[Pilot[Any]]:
    """The application with everything read once."""
    async with app.run_test(size=size) as pilot:
        if size >= (60, 16):
            await until(pilot, lambda: loaded(app), "the first frame with data")
        yield pilot


async def go_to(pilot: Pilot[Any], selector: str) -> None:
    """Give the focus to a widget of the dialog on top, and wait until it has it."""
    widget = pilot.app.screen.query_one(selector)
    widget.focus()
    await until(pilot, lambda: pilot.app.focused is widget, f"the focus on {selector}")


async def push(pilot: Pilot[Any], selector: str) -> None:
    """Press Enter on a button of the dialog on top."""
    await go_to(pilot, selector)
    button = pilot.app.screen.query_one(selector)
    # For as long as a button shows that it was pressed, Textual passes over a second Enter.
    await until(pilot, lambda: not button.has_class("-active"), f"{selector} can be pressed")
    await pilot.press("enter")


def loaded(app: Console) -> bool:
    frame = app.frame
    return bool(frame.status) and (frame.step == 0 or bool(frame.series))


def lines(pilot: Pilot[Any]) -> list[str]:
    """What the terminal shows, line by line."""
    return [strip.text for strip in pilot.app.screen._compositor.render_strips()]


def screen(pilot: Pilot[Any]) -> str:
    return "\n".join(lines(pilot))


__all__ = [
    "NARROW",
    "WIDE",
    "configured",
    "console_on",
    "go_to",
    "lines",
    "push",
    "running",
    "screen",
    "until",
]
