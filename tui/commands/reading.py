"""The actions that show something whole: an item with its rows, an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from queue_store.errors import TrainctlError
from tui.commands.asking import Asking
from tui.dialogs.confirm import TextDialog
from tui.dialogs.details import event_facts
from tui.dialogs.hints import HintsDialog
from tui.dialogs.item import FACTS, ROWS, Again, ItemView, reader
from tui.hints import told

if TYPE_CHECKING:
    from tui.frame import Record
    from tui.poller import Reader


class ReadingCommands(Asking):
    """The `do_…` methods of the actions that only look."""

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
            ask, newest = reader(self.fetch, number), self._newest(found)
            whole = ItemView(title, newest, ask, view, self._again(number))
            self._console.later(lambda: self._look(whole))

        self._console.poller.look(read)

    def _newest(self, item: Record) -> Record:
        """An item with what the engine alone knows, newer than the store: how far it is, where
        it trains."""
        running = self._console.frame.item
        if running is None or running.get("id") != item.get("id"):
            return item
        return {**item, **{key: running[key] for key in ("step", "cursor") if key in running}}

    def _again(self, number: int) -> Again:
        """Reads the item again where anything moved since the last time."""
        seen: list[object] = [self._console.frame]

        def again(answer: Callable[[Record], None]) -> None:
            if self._console.frame is seen[0]:
                return
            seen[0] = self._console.frame

            def read(views: Reader) -> None:
                try:
                    found = self._newest(views.item(number))
                except TrainctlError:
                    return  # it was removed: what was known of it stays
                self._console.later(lambda: answer(found))

            self._console.poller.look(read)

        return again

    def _look(self, whole: ItemView) -> None:
        self._console.push_screen(whole)

    def do_why(self) -> None:
        console = self._console
        hints = told(console.frame.status)
        if hints:
            console.push_screen(HintsDialog(hints, console.hushed, console.refresh_hint))
        else:
            console.say("no hint stands: nothing needs you", "dim")

    def do_event(self) -> None:
        event = self._console.events_pane.selected()
        if event is None:
            self._console.say("no event is shown here: o and Esc show others", "dim")
        else:
            self.dialog(TextDialog(f"Event {event.get('seq')}", event_facts(event)), lambda _: None)
