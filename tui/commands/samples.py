"""The actions on the samples: an example over time, and a prompt of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from queue_store.errors import TrainctlError
from tui.commands.asking import Asking
from tui.dialogs.development import DevelopmentView

if TYPE_CHECKING:
    from tui.console import Console
    from tui.dialogs.prompt import Exchange
    from tui.poller import Reader

TICKS_READ = 5000


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

    def _send(self, exchange: Exchange, answered: Callable[[], None]) -> None:
        def then(result: Any) -> None:
            exchange.result = result
            answered()

        def failed(problem: str) -> None:
            exchange.problem = problem or "it failed"
            answered()

        self.fetch(
            "generate",
            then,
            failed,
            prompt=exchange.prompt,
            system=exchange.system or None,
            max_tokens=exchange.max_tokens,
            temperature=exchange.temperature,
            key=exchange.key,
        )

    def _cancel(self, exchange: Exchange) -> None:
        # That it does not come through is told by the prompt's own answer.
        self.fetch("cancel_generate", lambda _: None, lambda _: None, key=exchange.key)
