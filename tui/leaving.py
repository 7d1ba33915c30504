"""How the console is left: the keys for it, the question, and what must be done before."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from textual.screen import Screen
from textual.widgets import Input

from queue_store.errors import TrainctlError
from tui.dialogs.leave import LeaveDialog
from tui.figures import count
from tui.frame import Frame
from tui.keyorder import KeysInOrder
from tui.poller import Poller
from tui.toosmall import TooSmall

if TYPE_CHECKING:
    from tui.commands import Commands


class Leaving(KeysInOrder, inherit_bindings=False):
    """The part of the console that ends it. `left` is the way it was left, "" while it shows."""

    frame: Frame
    poller: Poller
    left: str
    _local: bool
    _leave: Callable[[str], None]

    @cached_property
    def _commands(self) -> Commands:
        raise NotImplementedError

    def _base(self) -> Screen[Any]:
        return self.screen_stack[0]

    def say(self, text: str, tone: str = "") -> None:
        """One line for a person, for some seconds."""
        raise NotImplementedError

    def _close_filter(self) -> None:
        raise NotImplementedError

    def action_leave(self) -> None:
        """ctrl+c: out of a dialog or a filter, else as q."""
        if self.screen is not self._base():
            if not isinstance(self.screen, TooSmall):
                self.screen.dismiss(None)
        elif isinstance(self.focused, Input):
            self._close_filter()
        else:
            self.do_leave()

    def do_leave(self) -> None:
        if not self._local or self.frame.state == "stopped":
            self.exit_as("detach")
            return
        dialog = LeaveDialog(count(self.frame.step), paused=self.frame.state == "paused")
        self._commands.dialog(dialog, self._leave_as)

    def _leave_as(self, way: str) -> None:
        doing = "handing over to the background" if way == "handover" else "saving"

        def refused(error: TrainctlError) -> None:
            self.say(f"training goes on here: {error}", "bad")

        def done(_: Any) -> str:
            self.exit_as(way)
            return ""

        self._commands.work(lambda: self._leave(way), done, refused=refused, doing=doing)

    def call_soon(self, job: Callable[[], None]) -> None:
        """Do `job` in the event loop, from a thread or a signal handler, before anything else
        that waits. Raises RuntimeError where the application does not run."""
        if self._loop is None:
            raise RuntimeError("the application does not run")
        self._loop.call_soon_threadsafe(job)

    def exit_as(self, way: str) -> None:
        """Close the screen; `left` tells how."""
        self.left = way
        self.poller.stop()
        self.exit(0)
