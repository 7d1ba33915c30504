"""When the terminal's bell rings: once when an item ends or fails while one is not looking.

Never for what had ended before this console came, and never for what a person did (skip, remove).
"""

from __future__ import annotations

from tui.frame import Frame

RINGS = ("done", "failed", "rejected")


class Bell:
    """Remembers the items' states from frame to frame."""

    def __init__(self) -> None:
        self._states: dict[int, str] | None = None
        self._seen: object = None

    def rings(self, frame: Frame) -> bool:
        """Whether an item has ended or failed since the frame before."""
        if frame.queue is self._seen or not frame.status:
            return False
        self._seen = frame.queue
        # A file that waits in the inbox has no number yet.
        items = ((item.get("id"), str(item.get("state"))) for item in frame.queue)
        now = {key: state for key, state in items if isinstance(key, int)}
        before, self._states = self._states, {**(self._states or {}), **now}
        if before is None:
            return False
        newest = max(before, default=0)
        return any(
            state in RINGS and before.get(key, "" if key > newest else state) != state
            for key, state in now.items()
        )
