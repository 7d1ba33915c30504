"""Keys in the order in which they were pressed, also where they come faster than they are done.

Textual hands a key to the widget that has the focus, from where it goes up to the application,
and hands over the next one meanwhile: behind a slow link (many keys in one read) or on a busy
machine that one would still go to a view that is closing, or to the screen behind one that is
opening, and mean nothing there.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial

from textual.app import App
from textual.events import Event, Key, Paste
from textual.message_pump import MessagePump

OPENING_SECONDS, LOOK_SECONDS = 0.5, 0.01
"""How long a screen may take to have its focus, and how often to look."""
STUCK_SECONDS = 2.0
"""A key that takes longer holds up the next ones no more."""
AT_ONCE = "ctrl+c"
"""The key that waits for none; what was typed before it means nothing any more."""


class KeysInOrder(App[int], inherit_bindings=False):
    """Hands over a key only when the one before it went all the way, and what it opened is up."""

    def __init__(self) -> None:
        super().__init__()
        self._typed: deque[Key | Paste] = deque()
        self._under_way: object | None = None
        """What tells the key that is under way from all others, None where none is."""

    async def on_event(self, event: Event) -> None:
        if not isinstance(event, Key | Paste) or event.is_forwarded:
            await super().on_event(event)
            return
        if isinstance(event, Key) and event.key == AT_ONCE:
            self._typed.clear()
        elif self._under_way is not None:
            self._typed.append(event)
            return
        await self._hand_over(event)

    async def _hand_over(self, event: Key | Paste) -> None:
        mark = self._under_way = object()
        start: MessagePump = self.focused or self.screen
        await super().on_event(event)
        self.set_timer(STUCK_SECONDS, partial(self._went, mark))
        # Twice: what the application does with the key, it may ask of the widget again (the
        # binding of Enter), and the answer (that a field was submitted) comes the same way.
        self._follow(start, mark, start)

    def _follow(
        self, pump: MessagePump | None, mark: object, again: MessagePump | None = None
    ) -> None:
        """Go the way of the key, behind it: through the queue of each widget, up to this one."""
        while pump is not None and pump is not self:
            above = pump._parent
            if pump.call_later(self._follow, above, mark, again):
                return
            pump = above  # it closes, and takes no more
        if again is not None:
            self.call_later(self._follow, again, mark)
        else:
            # Once more to the end of the queue: moving the focus may be put off as well.
            self.call_later(self.call_later, self._went, mark)

    async def _went(self, mark: object, since: float | None = None) -> None:
        """A key went all the way: the next one, once there is somebody to hear it."""
        if mark is not self._under_way:
            return
        now = time.monotonic()
        since = now if since is None else since
        if self._typed and self.screen.focused is None and now - since < OPENING_SECONDS:
            self.set_timer(LOOK_SECONDS, partial(self._went, mark, since))
            return
        self._under_way = None
        if self._typed:
            await self._hand_over(self._typed.popleft())
