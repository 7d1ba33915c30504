"""Waiting until an application is calm: its keys are done, no widget has a message left, and the
screen is laid out and painted.

Textual's Pilot waits until the process uses little CPU instead: 40 ms a key at least, and a second
where another thread trains. What threads do later is waited for by its effect, as everywhere.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import textual.app
import textual.pilot
from textual._context import active_app
from textual.app import App

from tui.console import Console
from tui.keyorder import KeysInOrder

ROUNDS = 3
"""A message makes others on its way: from a widget to the application, and back."""
KEY_SECONDS = 2.0
PAINT_SECONDS = 0.5
"""Something blinks or spins for ever in no screen of ours, but a test must not hang on it."""
ANSWER_SECONDS = 0.3
"""For a request of an action; a test may hold one for longer."""


async def calm(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """In the place of textual._wait.wait_for_idle."""
    app = active_app.get()
    deadline = time.monotonic() + KEY_SECONDS
    while isinstance(app, KeysInOrder) and app._under_way is not None:
        if time.monotonic() > deadline or not app._running:
            break
        await asyncio.sleep(0.001)
    await _drained(app)
    answered = time.monotonic() + ANSWER_SECONDS
    while _asking(app) and time.monotonic() < answered:
        await asyncio.sleep(0.002)
    for _ in range(ROUNDS):
        await _drained(app)
    painted = time.monotonic() + PAINT_SECONDS
    while _to_paint(app) and time.monotonic() < painted:
        await asyncio.sleep(0.002)
        await _drained(app)


def _to_paint(app: App[Any]) -> bool:
    """Whether the screen on top waits for its next turn (60 a second) to lay out or paint."""
    if not app.screen_stack or not app._running:
        return False
    top: Any = app.screen
    return bool(
        top._layout_required
        or top._scroll_required
        or top._repaint_required
        or top._recompose_required
        or top._dirty_widgets
        or top._callbacks
    )


def _asking(app: App[Any]) -> bool:
    """Whether an action's request or its look into the store is under way."""
    if isinstance(app, Console) and app.poller.looking:
        return True
    return any(thread.name == "console-request" for thread in threading.enumerate())


async def _drained(app: App[Any]) -> None:
    """Until all messages are processed that wait now."""
    left = 0
    empty = asyncio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            empty.set()

    for node in [app, *(node for screen in app.screen_stack for node in screen.walk_children())]:
        left += node.call_later(done)
    if left:
        failed = asyncio.ensure_future(app._exception_event.wait())
        ended = asyncio.ensure_future(empty.wait())
        await asyncio.wait((failed, ended), timeout=5, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        ended.cancel()


def use() -> None:
    """Let Pilot wait so."""
    textual.app.wait_for_idle = calm  # type: ignore[attr-defined]
    textual.pilot.wait_for_idle = calm  # type: ignore[attr-defined]
