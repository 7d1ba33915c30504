"""One act on several items: asked of the engine one by one, in a thread, with one report.

What did not work stays marked, and is told with its reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from queue_store.errors import NoEngine, TrainctlError
from tui.commands.asking import Asking, unable
from tui.dialogs.base import Fact
from tui.dialogs.confirm import TextDialog
from tui.figures import counted
from tui.frame import Record, key_of

log = logging.getLogger(__name__)

SAY_SECONDS = 0.5
NAMES_SHOWN = 8
REASONS_TOLD = 2

Ask = tuple[str, dict[str, Any]]
"""A command and its arguments."""


@dataclass
class Outcome:
    """What came of it: the items that it worked for, with the answers, and the others with why."""

    done: list[tuple[Record, Any]] = field(default_factory=list)
    failed: list[tuple[Record, TrainctlError]] = field(default_factory=list)

    def text(self, what: str) -> str:
        """`what` follows the items' names or number: "is removed", "are removed"."""
        total = len(self.done) + len(self.failed)
        if total == 1:
            if self.failed:
                return str(self.failed[0][1])
            return f"{self.done[0][0].get('name')} is {what}"
        if not self.failed:
            return f"{counted(total, 'item')} are {what}"
        told = "; ".join(
            f"{item.get('name')}: {error.what}" for item, error in self.failed[:REASONS_TOLD]
        )
        rest = len(self.failed) - REASONS_TOLD
        more = f"; and {rest} more" if rest > 0 else ""
        return f"{len(self.done)} of {total} are {what}. Not: {told}{more}"


def named(items: Sequence[Record]) -> list[Fact]:
    """The names of several items, for a dialog."""
    facts: list[Fact] = [f"  {item.get('name')}" for item in items[:NAMES_SHOWN]]
    if len(items) > NAMES_SHOWN:
        facts.append(f"  and {len(items) - NAMES_SHOWN} more")
    return facts


def of(items: Sequence[Record]) -> str:
    """One item by its name, several by their number."""
    return str(items[0].get("name")) if len(items) == 1 else counted(len(items), "item")


class Bulk(Asking):
    """What acts on the marked items, or on the one under the cursor."""

    def chosen(self, *states: str) -> tuple[list[Record], list[Fact]]:
        """The marked items (or the one under the cursor) in one of `states`, and a sentence on
        those that are not. None of them: a line that says why not, and an empty list."""
        items = self._console.queue_pane.selection()
        able = [item for item in items if item.get("state") in states]
        rest = [item for item in items if item.get("state") not in states]
        if not items:
            self._no(self._console.queue_pane.all_gone())
        elif not able and len(items) == 1:
            self._no(unable(rest[0], states))
        elif not able:
            self._no(f"none of the {len(items)} marked items is {' or '.join(states)}")
        elif rest:
            who = f"{rest[0].get('name')} is {rest[0].get('state')}"
            more = f", and {len(rest) - 1} more" if len(rest) > 1 else ""
            return able, [f"{counted(len(rest), 'marked item')} cannot: {who}{more}"]
        return able, []

    def each(
        self,
        items: Sequence[Record],
        ask: Callable[[Record], Ask],
        then: Callable[[Outcome], str],
        doing: str,
    ) -> None:
        """Ask for every item in turn; `then` says in the event loop what came of it."""
        console = self._console
        session = console.poller.session
        total = len(items)
        console.say(f"{doing}…", "dim")

        def run() -> None:
            outcome = Outcome()
            said = time.monotonic()
            for number, item in enumerate(items):
                command, arguments = ask(item)
                try:
                    outcome.done.append((item, session.request(command, **arguments)))
                except NoEngine as error:
                    outcome.failed += [(left, error) for left in items[number:]]
                    break
                except TrainctlError as error:
                    outcome.failed.append((item, error))
                except Exception:
                    log.exception("a request failed")
                    failure = TrainctlError("this failed, see the log")
                    outcome.failed.append((item, failure))
                if time.monotonic() - said >= SAY_SECONDS:
                    said = time.monotonic()
                    text = f"{doing}: {number + 1} of {total}…"
                    console.later(partial(console.say, text, "dim"))
            console.later(lambda: self._report(outcome, then))

        threading.Thread(target=run, name="console-request", daemon=True).start()

    def _report(self, outcome: Outcome, then: Callable[[Outcome], str]) -> None:
        console = self._console
        console.poller.hurry()
        text = then(outcome)
        tone = "good" if not outcome.failed else "warn" if outcome.done else "bad"
        console.say(text, tone)
        console.queue_pane.unmark([key_of(item) for item, _ in outcome.done])
        if len(outcome.failed) > REASONS_TOLD and len(console.screen_stack) == 1:
            facts: list[Fact] = [(str(i.get("name")), str(why)) for i, why in outcome.failed]
            total = len(outcome.done) + len(outcome.failed)
            title = f"{len(outcome.failed)} of {total} did not work"
            console.push_screen(TextDialog(title, facts))
