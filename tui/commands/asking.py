"""How an action asks the engine: in a thread, with one line on the screen for the answer.

Requests run in threads of their own, since an answer may take as long as a step; the event loop
never waits. Every answer, good or bad, ends as one line on the screen.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from queue_store.errors import TrainctlError
from tui.dialogs.base import Dialog

if TYPE_CHECKING:
    from tui.console import Console
    from tui.frame import Record

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5


def unable(item: Record, states: Sequence[str]) -> str:
    """Why an item that is in none of `states` cannot be meant."""
    name, state = item.get("name"), item.get("state")
    if state == "waiting":
        reason = item.get("reason")
        why = f" ({reason})" if isinstance(reason, str) and reason else ""
        return f"{name} waits in the inbox{why}: move or delete the file there"
    *others, last = states
    wanted = f"{', '.join(others)} or {last}" if others else last
    return f"{name} is {state}: this is for one that is {wanted}"


class Asking:
    """What the classes of actions share."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def ask(
        self,
        command: str,
        then: Callable[[Any], str],
        *,
        refused: Callable[[TrainctlError], None] | None = None,
        doing: str = "",
        **arguments: Any,
    ) -> None:
        """Send `command`; `then` says what came of it. `doing` stands on the screen meanwhile."""
        session = self._console.poller.session

        def request() -> Any:
            return session.request(command, **arguments)

        self.work(request, then, refused=refused, doing=doing or f"{command} asked for")

    def work(
        self,
        job: Callable[[], Any],
        then: Callable[[Any], str],
        *,
        refused: Callable[[TrainctlError], None] | None = None,
        doing: str = "",
    ) -> None:
        """Run `job` in a thread and `then` with its result in the event loop."""
        console = self._console
        if doing:
            console.say(f"{doing}…", "dim")

        def answer(result: Any) -> None:
            text = then(result)
            console.say(text, "good")
            console.poller.hurry()

        def fail(error: TrainctlError) -> None:
            console.poller.hurry()
            if refused is not None:
                refused(error)
            else:
                console.say(str(error), "bad")

        def run() -> None:
            try:
                result = job()
            except TrainctlError as error:
                failure = error
                console.later(lambda: fail(failure))
            except Exception:
                log.exception("a request failed")
                console.later(lambda: console.say("this failed, see the log", "bad"))
            else:
                console.later(lambda: answer(result))

        threading.Thread(target=run, name="console-request", daemon=True).start()

    def follow(
        self,
        job: Callable[[], Any],
        then: Callable[[Any], str],
        *,
        progress: str,
        far: Callable[[Any], str],
        doing: str,
    ) -> None:
        """`work` that may take minutes: meanwhile the engine is asked `progress`, and what `far`
        makes of the answer ("" for nothing) is on the screen."""
        console, ended = self._console, threading.Event()
        session = console.poller.session

        def whole() -> Any:
            try:
                return job()
            finally:
                ended.set()

        def look() -> None:
            while not ended.wait(LOOK_SECONDS):
                try:
                    text = far(session.request(progress))
                except TrainctlError:
                    return  # the answer to the job itself says what is wrong
                if text and not ended.is_set():
                    console.later(partial(console.say, text, "dim"))

        self.work(whole, then, doing=doing)
        threading.Thread(target=look, name="console-progress", daemon=True).start()

    def fetch(
        self,
        command: str,
        then: Callable[[Any], None],
        failed: Callable[[str], None],
        **arguments: Any,
    ) -> None:
        """Ask for something to be shown: in a thread, with no line on the screen; `then` or
        `failed` (with the reason in words) runs in the event loop."""
        console = self._console
        session = console.poller.session

        def run() -> None:
            try:
                result = session.request(command, **arguments)
            except TrainctlError as error:
                reason = str(error)
                console.later(lambda: failed(reason))
            except Exception:
                log.exception("a request failed")
                console.later(lambda: failed("this failed, see the log"))
            else:
                console.later(lambda: then(result))

        threading.Thread(target=run, name="console-request", daemon=True).start()

    def dialog(self, dialog: Dialog, then: Callable[[Any], None]) -> None:
        """Open `dialog`; `then` gets its result unless it was cancelled: what was typed into it
        does not vanish without a word."""

        def answered(result: Any) -> None:
            if result is not None:
                then(result)
            elif dialog.typed:
                self._console.say("cancelled: nothing was done", "dim")

        self._console.push_screen(dialog, answered)

    def _no(self, text: str) -> None:
        self._console.say(text, "warn")

    def _item(self, *states: str) -> Record | None:
        """The chosen item, if it is in one of `states`; else a line that says why not."""
        item = self._console.queue_pane.selected()
        if item is None:
            self._no(self._console.queue_pane.all_gone())
        elif states and item.get("state") not in states:
            self._no(unable(item, states))
        else:
            return item
        return None
