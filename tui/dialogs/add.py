"""Add files to the queue: paths as in a shell, completed with Tab.

What looks at a disk runs in threads; an answer that comes too late (something else was typed
meanwhile) is dropped. What is wrong stands in the dialog, and what was typed stays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from textual import on
from textual.binding import Binding
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from tui import paths
from tui.dialogs.base import Choice, Choices, Dialog, Fact, label
from tui.figures import count, real, size
from tui.frame import PRIORITIES, Record
from tui.safe import content, pad

ROWS = 4
"""Lines of candidates; fewer where there is little room."""


class PathField(Input):
    """An input in which Tab completes."""

    BINDINGS = [Binding("tab", "complete", show=False)]

    class Complete(Message):
        """Tab was pressed."""

    def action_complete(self) -> None:
        self.post_message(self.Complete())


class AddDialog(Dialog):
    """Result: {"paths", "priority", "text"}: absolute paths of files that can be read, and the
    line as it was typed. `known` are the items that there are."""

    title_text = "Add a file"
    button = "Add"
    AUTO_FOCUS = "#path"

    def __init__(
        self,
        known: Sequence[Record],
        *,
        text: str = "",
        priority: str = "normal",
        problem: str = "",
    ) -> None:
        super().__init__()
        self._known = known
        self._text = text
        self._priority = priority
        self._problem = problem
        self._base = str(Path.cwd())
        self._asked = 0
        self._agreed = ""

    def facts(self) -> Sequence[Fact]:
        if self._tight():
            return []
        return ["JSONL files on this machine, *.jsonl for several; they are copied."]

    def fields(self) -> Iterable[Widget]:
        yield label("Path (Tab completes)")
        made = PathField(
            self._text, placeholder="~/data/train.jsonl", id="path", select_on_focus=False
        )
        made.cursor_blink = False
        yield made
        yield Static(content(""), id="candidates")
        yield Static(content(self._problem), id="notice")
        yield label("Priority")
        yield Choices(
            *(Choice(word, value=word == self._priority) for word in PRIORITIES), id="level"
        )

    def _tell(self, selector: str, text: str) -> None:
        self.query_one(selector, Static).update(content(text))

    @on(Input.Changed, "#path")
    def _typed(self) -> None:
        self._asked += 1  # what is under way is about another text
        self._tell("#candidates", "")
        if not self._problem:
            self._tell("#notice", "")
        self._problem = ""

    def _look(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run `job` in a thread; `then` in the event loop, unless something was typed since."""
        self._asked += 1
        asked = self._asked

        def answer(found: Any) -> None:
            if self.is_attached and asked == self._asked:
                then(found)

        def run() -> None:
            try:
                found = job()
            except paths.Wrong as wrong:
                found = wrong
            later(lambda: answer(found))

        later: Callable[[Callable[[], None]], None] = self.app.later  # type: ignore[attr-defined]
        threading.Thread(target=run, name="console-paths", daemon=True).start()

    # -- completing

    @on(PathField.Complete)
    def _complete(self) -> None:
        text = self.query_one("#path", Input).value
        self._tell("#candidates", "reading ...")
        self._look(lambda: paths.complete(text, self._base), self._completed)

    def _completed(self, found: paths.Completed) -> None:
        field = self.query_one("#path", Input)
        with self.prevent(Input.Changed):
            field.value = found.text
        field.cursor_position = len(found.text)
        self._tell("#notice", found.problem)
        self._tell("#candidates", "\n".join(self._rows(found)))

    def _rows(self, found: paths.Completed) -> list[str]:
        """The candidates in columns, as many as there is room for."""
        width = max(20, self.query_one("#candidates").content_size.width)
        if not found.names:
            return []
        rows = 2 if self._tight() else ROWS
        wide = min(width, max(cell_len(name) for name in found.names) + 2)
        columns = max(1, width // wide)
        room = columns * rows
        shown = found.names[: room if found.count <= room else room - columns]
        lines = [
            "".join(pad(name, wide) for name in shown[at : at + columns]).rstrip()
            for at in range(0, len(shown), columns)
        ]
        if found.count > len(shown):
            lines.append(f"and {count(found.count - len(shown))} more")
        return lines

    # -- adding

    def result(self, button: str) -> Any:
        """Looks at the files first, in a thread; the dialog closes once they are fine."""
        text = self.query_one("#path", Input).value
        self._tell("#notice", "looking ...")

        def look() -> tuple[list[str], list[tuple[str, int]]]:
            files = paths.expanded(text, self._base)
            return files, paths.looked_at(files)

        self._look(look, lambda found: self._looked(text, found))
        return None

    def _looked(self, text: str, found: Any) -> None:
        if isinstance(found, paths.Wrong):
            self._refuse(str(found))
            return
        files, facts = found
        again = self._again(facts)
        if again and self._agreed != text:
            self._agreed = text
            self._refuse(again)
            return
        priority = PRIORITIES[self.picked("#level")]
        self.dismiss({"paths": files, "priority": priority, "text": text})

    def _refuse(self, why: str) -> None:
        self._tell("#notice", why)
        self.query_one("#path").focus()

    def _again(self, facts: Sequence[tuple[str, int]]) -> str:
        """Which of the files are in the queue already, by name and size; "" for none."""
        # Of what waits in the inbox no size is known, so nothing is said of it.
        known = {
            (item.get("name"), item.get("size")): item
            for item in self._known
            if real(item.get("size")) is not None
        }
        twice = [(name, known[name, bytes]) for name, bytes in facts if (name, bytes) in known]
        if not twice:
            return ""
        name, item = twice[0]
        more = f", and {len(twice) - 1} more are there" if len(twice) > 1 else ""
        about = f"item {item.get('id')}, {item.get('state')}, {size(item.get('size'))}"
        return f"{name} is there already ({about}){more}. Add again takes it once more."
