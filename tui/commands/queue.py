"""What the actions on the queue ask of the engine: the dialogs before, the request, the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.commands.asking import Asking
from tui.dialogs.add import AddDialog
from tui.dialogs.base import Fact
from tui.dialogs.confirm import ConfirmDialog
from tui.dialogs.priority import PriorityDialog, raised


class QueueCommands(Asking):
    """The `do_…` methods of the actions that change the queue."""

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
