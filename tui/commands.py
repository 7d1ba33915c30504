"""What the actions ask of the engine: the dialogs before, the request, the answer after.

Those on versions have a room of their own (tui.version_commands).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from queue_store.errors import TrainctlError
from tui.dialogs.add import AddDialog
from tui.dialogs.base import Fact
from tui.dialogs.confirm import ConfirmDialog, TextDialog
from tui.dialogs.details import event_facts
from tui.dialogs.item import FACTS, ROWS, ItemView, reader
from tui.dialogs.priority import PriorityDialog, raised
from tui.dialogs.skip import SkipDialog
from tui.dialogs.snapshot import SnapshotDialog
from tui.figures import count
from tui.frame import Frame, Record
from tui.version_commands import VersionCommands

if TYPE_CHECKING:
    from tui.console import Console
    from tui.poller import Reader


class Commands(VersionCommands):
    """The `do_…` methods of the actions that talk to the engine or open a dialog."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._answered: tuple[Frame | None, bool] = (None, False)

    # -- training

    def do_pause(self) -> None:
        frame = self._console.frame
        paused = frame.state == "paused" or bool(frame.status.get("paused"))
        if frame is self._answered[0]:
            # No frame has come since the last answer: the answer is newer than what is shown.
            paused = self._answered[1]
        if paused:
            self.ask("resume", self._resumed, doing="resume")
        else:
            self.ask("pause", self._paused, doing="pausing after this step")

    def _paused(self, answer: Any) -> str:
        self._answered = (self._console.frame, True)
        return f"paused at step {count(answer.get('step'))}"

    def _resumed(self, answer: Any) -> str:
        self._answered = (self._console.frame, False)
        return "training goes on"

    def do_snapshot(self) -> None:
        def take(choice: dict[str, Any]) -> None:
            self.ask("snapshot_version", self._taken, doing="taking a snapshot", **choice)

        self.dialog(SnapshotDialog(self._console.frame), take)

    @staticmethod
    def _taken(answer: Any) -> str:
        name = answer.get("name") if isinstance(answer, Mapping) else answer
        return f"{name} is taken"

    def do_skip(self) -> None:
        running = self._console.frame.item
        chosen = self._console.queue_pane.selected()
        waits = chosen is not None and chosen.get("state") in ("queued", "paused")
        item = chosen if waits and chosen is not None else running
        if item is None:
            self._no("no item is in training, and none that waits is selected")
            return
        dialog = SkipDialog(item)

        def skip(choice: dict[str, Any]) -> None:
            word = "skipping and undoing" if choice["undo"] else "skipping"
            self.ask(
                "skip",
                lambda _: f"{item.get('name')} is skipped",
                doing=word,
                item=item.get("id"),
                **choice,
            )

        self.dialog(dialog, skip)

    # -- queue

    def _item(self, *states: str) -> Record | None:
        """The chosen item, if it is in one of `states`; else a line that says why not."""
        item = self._console.queue_pane.selected()
        if item is None:
            self._no("the queue is empty: a adds a file")
        elif states and item.get("state") not in states:
            self._no(f"{item.get('name')} is {item.get('state')}, not {' or '.join(states)}")
        else:
            return item
        return None

    def do_raise(self) -> None:
        self._priority(-1)

    def do_lower(self) -> None:
        self._priority(+1)

    def _priority(self, by: int) -> None:
        item = self._item("queued", "paused", "training", "preparing")
        if item is None:
            return
        word = raised(str(item.get("priority")), by)
        if word is None:
            self._no(f"{item.get('name')} has the {'highest' if by < 0 else 'lowest'} priority")
            return
        dialog = PriorityDialog(
            self._console.queue_pane.items(), item, word, preempt=self._console.preempt
        )

        def change(priority: str) -> None:
            text = f"{item.get('name')} is {priority} now"
            self.ask("priority", lambda _: text, id=item.get("id"), priority=priority)

        self.dialog(dialog, change)

    def do_move_up(self) -> None:
        self._move(-1)

    def do_move_down(self) -> None:
        self._move(+1)

    def _move(self, by: int) -> None:
        """Change places with a neighbour of the same priority."""
        item = self._item("queued", "paused")
        if item is None:
            return
        peers = [
            other
            for other in self._console.queue_pane.items()
            if other.get("priority") == item.get("priority")
            and other.get("state") == item.get("state")
        ]
        at = next(n for n, other in enumerate(peers) if other.get("id") == item.get("id"))
        if not 0 <= at + by < len(peers):
            self._no(f"{item.get('name')} is {'first' if by < 0 else 'last'} of its priority")
            return
        other = peers[at + by]
        mover, before = (item, other) if by < 0 else (other, item)
        self.ask(
            "move",
            lambda _: f"{mover.get('name')} goes before {before.get('name')}",
            id=mover.get("id"),
            before=before.get("id"),
        )

    def do_retry(self) -> None:
        item = self._item("failed", "skipped")
        if item is not None:
            name = item.get("name")
            self.ask("retry", lambda _: f"{name} is queued again", id=item.get("id"))

    def do_remove(self) -> None:
        item = self._item("queued", "failed", "skipped", "rejected", "paused")
        if item is None:
            return
        facts: list[Fact] = ["It will not train. Its copy in the store goes to the trash folder."]
        dialog = ConfirmDialog(f"Remove {item.get('name')}", facts, "Remove")

        def remove(_: Any) -> None:
            self.ask("remove", lambda _: f"{item.get('name')} is removed", id=item.get("id"))

        self.dialog(dialog, remove)

    def do_add(self) -> None:
        def add(choice: dict[str, Any]) -> None:
            self.ask("add", self._added, doing="adding", **choice)

        self.dialog(AddDialog(), add)

    @staticmethod
    def _added(answer: Any) -> str:
        item = answer[0] if isinstance(answer, list) and answer else answer
        if not isinstance(item, Mapping):
            return "added"
        reason = item.get("error") or item.get("reason")
        return f"{item.get('name')} is {item.get('state')}" + (f": {reason}" if reason else "")

    # -- reading

    def do_details(self) -> None:
        self._open(FACTS)

    def do_rows(self) -> None:
        self._open(ROWS)

    def _open(self, view: str) -> None:
        """The chosen item whole, at its facts or at its rows."""
        item = self._item()
        if item is None:
            return
        if item.get("state") == "waiting":
            self._look(ItemView(f"File {item.get('name')}", item, None, view))
            return
        number = int(item["id"])
        title = f"Item {number}: {item.get('name')}"

        def read(views: Reader) -> None:
            try:
                found: Record = views.item(number)
            except TrainctlError as error:
                message = str(error)
                self._console.later(lambda: self._no(message))
                return
            # What the engine alone knows (how far the item in training is) is newer than the store.
            newer = {key: item[key] for key in ("step", "cursor") if key in item}
            whole = ItemView(title, {**found, **newer}, reader(self.fetch, number), view)
            self._console.later(lambda: self._look(whole))

        self._console.poller.look(read)

    def _look(self, whole: ItemView) -> None:
        self._console.push_screen(whole)

    def do_event(self) -> None:
        event = self._console.events_pane.selected()
        if event is not None:
            self.dialog(TextDialog(f"Event {event.get('seq')}", event_facts(event)), lambda _: None)
