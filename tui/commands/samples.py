"""The actions on the samples: an example over time, and a prompt of one's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from queue_store.errors import TrainctlError
from tui.commands.asking import Asking
from tui.dialogs.development import DevelopmentView

if TYPE_CHECKING:
    from tui.console import Console
    from tui.dialogs.exchange import Exchange
    from tui.poller import Reader

TICKS_READ = 5000
GROWN_SECONDS = 0.25
"""How often an answer is looked at while it grows."""


class SampleCommands(Asking):
    """The `do_…` methods of the actions on the samples."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._asked: list[Exchange] = []
        """What this console has asked the model."""

    def do_development(self) -> None:
        """The chosen example at all ticks."""
        answer = self._console.samples_pane.selected()
        if answer is None:
            self._no("there is no example to look at")
            return
        example = str(answer.get("example"))

        def read(views: Reader) -> None:
            try:
                found = views.samples(example=example, limit=TICKS_READ)["samples"]
            except TrainctlError as error:
                message = str(error)
                self._console.later(lambda: self._no(message))
                return
            if found:
                self._console.later(lambda: self._open_development(found))

        self._console.poller.look(read)

    def _open_development(self, answers: Any) -> None:
        self._console.push_screen(DevelopmentView(answers))

    def do_try_prompt(self) -> None:
        # Imported late: the text editor is half of what the first frame would cost.
        from tui.dialogs.prompt import PromptBox

        console = self._console
        box = PromptBox(lambda: console.frame, self._asked, self._send, self._cancel)
        console.push_screen(box)

    def _send(self, exchange: Exchange, more: Callable[[], None]) -> None:
        """Ask the engine, and a worker of its for models that do not train; the answers are looked
        at while they grow."""
        words = {
            "prompt": exchange.prompt,
            "system": exchange.system or None,
            "max_tokens": exchange.max_tokens,
            "temperature": exchange.temperature,
        }

        def now(result: Any) -> None:
            exchange.take_now(result)
            more()

        def others(results: Any) -> None:
            exchange.take_others(results)
            more()

        def failed(problem: str, *, now: bool) -> None:
            exchange.fail(problem or "it failed", now=now)
            more()

        if exchange.now is not None:
            self.fetch("generate", now, partial(failed, now=True), **words, key=exchange.key)
        if exchange.others:
            models = [one.model for one in exchange.others]
            key = exchange.others_key
            self.fetch("ask", others, partial(failed, now=False), **words, models=models, key=key)
        look = partial(self._watch_growing, exchange, more)
        threading.Thread(target=look, name="console-progress", daemon=True).start()

    def _watch_growing(self, exchange: Exchange, more: Callable[[], None]) -> None:
        """How far the answers are, again and again until they are whole."""
        session = self._console.poller.session
        while exchange.open:
            time.sleep(GROWN_SECONDS)
            for now, key in ((True, exchange.key), (False, exchange.others_key)):
                if not _is_open(exchange, now):
                    continue
                try:
                    told = session.request("prompt_progress", key=key)
                except TrainctlError:
                    return  # the answer to the prompt itself says what is wrong
                self._console.later(partial(_grown, exchange, told, now, more))

    def _cancel(self, exchange: Exchange) -> None:
        # That it does not come through is told by the prompt's own answer.
        for now, key in ((True, exchange.key), (False, exchange.others_key)):
            if _is_open(exchange, now):
                self.fetch("cancel_generate", lambda _: None, lambda _: None, key=key)


def _is_open(exchange: Exchange, now: bool) -> bool:
    """Whether an answer of the engine (`now`), or of a worker, is still to come."""
    return any(one.open for one in exchange.said if (one is exchange.now) is now)


def _grown(exchange: Exchange, told: Any, now: bool, more: Callable[[], None]) -> None:
    if isinstance(told, Mapping) and told.get("answering"):
        exchange.grow(told, now=now)
        more()
