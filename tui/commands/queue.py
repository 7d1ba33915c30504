"""What the actions on the queue ask of the engine: the dialogs before, the request, the answer.

Each acts on the marked items, or on the one under the cursor where none is marked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from queue_store.errors import DataError, NotFound, TrainctlError
from tui.commands.bulk import Bulk, Outcome, named, of
from tui.dialogs.add import AddDialog
from tui.dialogs.base import Fact
from tui.dialogs.confirm import ConfirmDialog
from tui.dialogs.priority import PriorityDialog, raised
from tui.dialogs.skip import SkipDialog
from tui.figures import counted
from tui.frame import Record, key_of

if TYPE_CHECKING:
    from tui.console import Console

log = logging.getLogger(__name__)

ADD_SECONDS = 600.0
"""How long the copying of a file may take."""
OPEN = ("queued", "paused", "training", "preparing")


class QueueCommands(Bulk):
    """The `do_…` methods of the actions that change the queue."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._removed: list[list[Record]] = []
        self._shifts: list[tuple[list[Record], int, list[object] | None]] = []
        self._shifting = False

    # -- priority

    def do_raise(self) -> None:
        self._priority(-1)

    def do_lower(self) -> None:
        self._priority(+1)

    def _priority(self, by: int) -> None:
        items, notes = self.chosen(*OPEN)
        words = {key_of(item): raised(str(item.get("priority")), by) for item in items}
        movable = [item for item in items if words[key_of(item)] is not None]
        if items and not movable:
            edge = "highest" if by < 0 else "lowest"
            verb = "has" if len(items) == 1 else "have"
            self._no(f"{of(items)} {verb} the {edge} priority")
        if not movable:
            return
        wanted = {key_of(item): str(words[key_of(item)]) for item in movable}
        dialog = PriorityDialog(
            self._console.queue_pane.items(),
            wanted,
            preempt=self._console.preempt,
            notes=notes,
        )

        def change(priorities: Mapping[object, str]) -> None:
            to = set(priorities.values())
            word = next(iter(to)) if len(to) == 1 else "changed"
            self.each(
                movable,
                lambda item: (
                    "priority",
                    {"id": item.get("id"), "priority": priorities[key_of(item)]},
                ),
                lambda outcome: outcome.text(f"{word} now" if len(to) == 1 else word),
                "changing the priority",
            )

        self.dialog(dialog, change)

    # -- order

    def do_move_up(self) -> None:
        self._move(-1)

    def do_move_down(self) -> None:
        self._move(+1)

    def _move(self, by: int) -> None:
        """One place on among the rows shown, for every press of the key: what is pressed while a
        request is under way is added up, and the engine moves on the order as it is then."""
        items, _ = self.chosen("queued", "paused")
        if not items:
            return
        among = self._console.queue_pane.among(items[0])
        if self._shifts:
            last, so_far, seen = self._shifts[-1]
            if [*map(key_of, last)] == [*map(key_of, items)] and seen == among:
                by += so_far
                self._shifts.pop()
        if by:
            self._shifts.append((items, by, among))
        self._shift()

    def _shift(self) -> None:
        if self._shifting or not self._shifts:
            return
        self._shifting = True
        items, by, among = self._shifts.pop(0)

        def moved(answer: Any) -> str:
            self._next_shift()
            where = "earlier" if by < 0 else "later"
            return f"{of(items)} moved {abs(by)} {where}"

        def refused(error: TrainctlError) -> None:
            self._next_shift()
            self._console.say(error.what, "warn")

        words: dict[str, Any] = {"items": [item.get("id") for item in items], "by": by}
        if among is not None:
            words["among"] = among
        session = self._console.poller.session

        def request() -> Any:
            try:
                return session.request("shift", **words)
            except TrainctlError:
                raise
            except Exception:
                # Whatever breaks, the presses that wait must get their turn.
                log.exception("a request failed")
                raise TrainctlError("this failed, see the log") from None

        self.work(request, moved, refused=refused, doing="moving")

    def _next_shift(self) -> None:
        self._shifting = False
        self._shift()

    # -- retry, skip, remove and back

    def do_retry(self) -> None:
        items, notes = self.chosen("failed", "skipped")

        def retry(_: Any = True) -> None:
            self.each(
                items,
                lambda item: ("retry", {"id": item.get("id")}),
                lambda outcome: outcome.text("queued again"),
                "queueing again",
            )

        if len(items) == 1:
            retry()
        elif items:
            self.dialog(
                ConfirmDialog(f"Retry {of(items)}", [*named(items), *notes], "Retry"), retry
            )

    def do_skip(self) -> None:
        """The marked items, or the chosen one where it waits; else the one in training."""
        pane = self._console.queue_pane
        notes: list[Fact] = []
        if pane.marks:
            items, notes = self.chosen(*OPEN)
            if not items:
                return
        else:
            item, running = pane.selected(), self._console.frame.item
            if item is None or item.get("state") not in ("queued", "paused"):
                item = running
            if item is None:
                self._no("no item is in training, and none that waits is selected")
                return
            items = [item]
        told = [*named(items), *notes] if len(items) > 1 else notes

        def skip(choice: dict[str, Any]) -> None:
            self.each(
                items,
                lambda item: ("skip", {"item": item.get("id"), **choice}),
                lambda outcome: outcome.text("skipped"),
                "skipping and undoing" if choice["undo"] else "skipping",
            )

        self.dialog(SkipDialog(items, told), skip)

    def do_remove(self) -> None:
        items, notes = self.chosen("queued", "failed", "skipped", "rejected", "paused")
        if not items:
            return
        one = len(items) == 1
        days = self._console.trash_days
        until = f"for {counted(days, 'day')}" if days else "until that is emptied"
        facts: list[Fact] = [*(() if one else named(items)), *notes]
        facts.append(
            f"{'It' if one else 'They'} will not train. The {'copy' if one else 'copies'} in the"
            f" store {'goes' if one else 'go'} to the trash {until}: u takes this back."
        )

        def removed(outcome: Outcome) -> str:
            if outcome.done:
                self._removed.append([item for item, _ in outcome.done])
            back = " (u takes it back)" if outcome.done else ""
            return outcome.text("removed") + back

        def remove(_: Any) -> None:
            self.each(items, lambda item: ("remove", {"id": item.get("id")}), removed, "removing")

        self.dialog(ConfirmDialog(f"Remove {of(items)}", facts, "Remove"), remove)

    def do_unremove(self) -> None:
        """Take back the last removal of this console, whole; pressed again, the one before."""
        if not self._removed:
            self._no("nothing was removed here; trainctl trash lists what can come back")
            return
        items = self._removed.pop()

        def back(outcome: Outcome) -> str:
            left = [item for item, why in outcome.failed if not isinstance(why, NotFound)]
            if left:
                self._removed.append(left)
            return outcome.text("back in the queue")

        self.each(items, lambda item: ("unremove", {"id": item.get("id")}), back, "taking back")

    # -- add

    def do_add(self) -> None:
        self._ask_for_files(AddDialog(self._console.queue_pane.items()))

    def _ask_for_files(self, dialog: AddDialog) -> None:
        def add(choice: dict[str, Any]) -> None:
            files = [{"name": path.rsplit("/", 1)[-1], "path": path} for path in choice["paths"]]

            def added(outcome: Outcome) -> str:
                if len(files) == 1 and outcome.failed:
                    why = str(outcome.failed[0][1])
                    self._ask_for_files(
                        AddDialog(
                            self._console.queue_pane.items(),
                            text=choice["text"],
                            priority=choice["priority"],
                            problem=why,
                        )
                    )
                    return why
                return _added(outcome)

            self.each(
                files,
                lambda file: (
                    "add",
                    {
                        "path": file["path"],
                        "priority": choice["priority"],
                        "timeout": ADD_SECONDS,
                    },
                ),
                added,
                "adding",
            )

        self.dialog(dialog, add)


def _added(outcome: Outcome) -> str:
    """What became of the files: a rejected one was taken, and will not train."""
    items = [(file, _item(answer)) for file, answer in outcome.done]
    if len(items) == 1 and not outcome.failed:
        item = items[0][1]
        reason = item.get("error") or item.get("reason")
        return f"{item.get('name')} is {item.get('state')}" + (f": {reason}" if reason else "")
    outcome.done = [(file, item) for file, item in items if item.get("state") != "rejected"]
    outcome.failed += [
        (file, DataError(f"rejected: {item.get('error')}"))
        for file, item in items
        if item.get("state") == "rejected"
    ]
    return outcome.text("queued")


def _item(answer: Any) -> Record:
    found = answer[0] if isinstance(answer, list) and answer else answer
    return found if isinstance(found, Mapping) else {}
