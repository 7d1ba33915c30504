"""What an engine offers to sessions: the one door between faces and the engine thread.

The engine implements it, a dispatcher calls it; neither knows more of the other.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from queue_store.home import Home


class Control(Protocol):
    """What an engine offers to sessions. All may be called from any thread."""

    @property
    def home(self) -> Home: ...

    def snapshot(self) -> dict[str, Any]:
        """The latest status (see `status`), never changed once handed out; never blocks."""
        ...

    def meters(self) -> dict[str, Any]:
        """The machine over the last minutes (see engine.machine.meters); never blocks."""
        ...

    def prompt_progress(self, key: str) -> dict[str, Any]:
        """How far the answer to a prompt is: {answering, answer, tokens}; never blocks."""
        ...

    def submit(self, command: str, arguments: dict[str, Any]) -> Future[Any]:
        """Have a command of kind ENGINE done at the next step boundary; returns at once.

        The future's result is a JSON object; its exception one of the TrainctlError family.
        {"scheduled": true, …} says that the effect follows (stop, drain).
        """
        ...

    def look_at_hosts(self) -> None:
        """An evaluation host may answer now that did not: ask them anew."""
        ...

    def wake(self) -> None:
        """The queue has changed: look at it (and pre-empt, where that follows)."""
        ...
