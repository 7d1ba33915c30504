"""Waiting until an application is calm: its keys are done, and no widget has a message left.

Textual's Pilot waits until the process uses little CPU instead: 40 ms a key at least, and a second
where another thread trains. What threads do later is waited for by its effect, as everywhere.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import textual.app
import textual.pilot
from textual._context import active_app
from textual.app import App

from tui.keyorder import KeysInOrder

ROUNDS = 3
"""A message makes others on its way: from a widget to the application, and back."""
KEY_SECONDS = 2.0


async def calm(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """In the place of textual._wait.wait_for_idle."""
    app = active_app.get()
    deadline = time.monotonic() + KEY_SECONDS
    while isinstance(app, KeysInOrder) and app._under_way is not None:
        if time.monotonic() > deadline or not app._running:
            break
        await asyncio.sleep(0.001)
    for _ in range(ROUNDS):
        await _drained(app)


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
