"""Deep validation of the chosen file: in a process of its own, watched from the screen."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from queue_store.errors import TrainctlError
from tui.commands.asking import Asking
from tui.dialogs.report import Validation, ValidationView
from tui.frame import key_of

if TYPE_CHECKING:
    from tui.console import Console
    from tui.frame import Record
    from tui.poller import Reader

log = logging.getLogger(__name__)


class ValidatingCommands(Asking):
    """The `do_…` method of the action that validates."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._validations: dict[object, Validation] = {}

    def do_validate(self) -> None:
        """Validate the chosen file; the one under way, or just validated, is shown instead."""
        item = self._item()
        if item is None:
            return
        key = key_of(item)
        found = self._validations.get(key)
        if found is None or found.problem:
            other = next((v for v in self._validations.values() if v.running), None)
            if other is not None:
                self._no(f"{other.name} is being validated: v on it shows it, c there ends it")
                return
            found = self._validations[key] = Validation(str(item.get("name")))
            self._console.poller.look(self._begin(found, item))
        self._console.push_screen(ValidationView(found))

    def _begin(self, found: Validation, item: Record) -> Callable[[Reader], None]:
        def begin(views: Reader) -> None:
            """On the poller's thread, as the reader belongs to it: only looks where the file is."""
            try:
                waits = item.get("state") == "waiting"
                file = str(item.get("source")) if waits else views.file_of(int(item["id"]))
            except TrainctlError as error:
                found.problem = str(error)
                return
            threading.Thread(
                target=self._run, args=(found, views, file), name="console-validate", daemon=True
            ).start()

        return begin

    def _run(self, found: Validation, views: Reader, file: str) -> None:
        try:
            found.report = views.validate(file, found.stop, found.progress)
        except TrainctlError as error:
            found.problem = "broken off" if found.stop.is_set() else str(error)
        except Exception:
            log.exception("a validation failed")
            found.problem = "this failed, see the log"
        self._console.later(lambda: self._ended(found))

    def _ended(self, found: Validation) -> None:
        screen = self._console.screen
        if isinstance(screen, ValidationView) and screen.validation is found:
            screen.look()
            return
        bad = found.report is None or bool(found.report.get("problems"))
        what = f"{found.name}: the validation is {found.problem}"
        text = what if found.stop.is_set() else f"{found.outcome()} (v shows it)"
        self._console.say(text, "warn" if bad else "good")
