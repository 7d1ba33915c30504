"""All actions in one searchable list: the help (`?`) and, with other words, the palette (`:`)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from tui.actions import Action, Keymap, key_label
from tui.dialogs.base import field
from tui.panes.base import ListPane, words
from tui.safe import Line, content, pad


class ActionRows(ListPane):
    """The actions that match; never focused, the search keeps the keys."""

    name_of = "list"
    can_focus = False

    def __init__(self, actions: Sequence[Action]) -> None:
        super().__init__()
        self.remove_class("pane")
        self._actions = {action.id: action for action in actions}

    def set_title(self) -> None:
        """The dialog has a title of its own."""

    def keys(self) -> Sequence[object]:
        return list(self._actions)

    def shown(self) -> list[object]:
        """The actions that the search may mean, the likeliest first."""
        found = [(likeness(self.filter, action), name) for name, action in self._actions.items()]
        return [name for share, name in sorted(found, key=lambda f: -f[0]) if share]

    def row(self, key: object, width: int) -> Line:
        action = self._actions[str(key)]
        keys = " ".join(key_label_of(name) for name in action.keys)
        place = f"{', '.join(action.where)}: " if action.where else ""
        head = f"{pad(keys, 10)} {pad(action.label, 13)} "
        return ((head, "bold"), (place, "dim"), (action.help, ""))

    def selected(self) -> str | None:
        """The id of the chosen action."""
        keys = self.shown()
        return str(keys[self.position(keys)]) if keys else None

    def action(self) -> Action | None:
        """The chosen action."""
        return self._actions.get(self.selected() or "")

    def empty(self, width: int) -> list[Line]:
        return words(["nothing"])


NEAR = 0.8
"""How alike a word that is typed wrong and the word that was meant are at least (difflib)."""


def likeness(search: str, action: Action) -> float:
    """How well `search` names an action, 0 for not at all: the beginning of its label before its
    letters anywhere, those before all of its words, those before words that are nearly so."""
    wanted = search.lower().split()
    name = f"{action.label} {action.id.replace('_', ' ')}".lower()
    text = f"{name} {' '.join(action.where)} {action.help}".lower()
    whole = " ".join(wanted)
    if name.startswith(whole):
        return 5
    for share, place in ((4, name), (3, text)):
        if whole in place:
            return share
    if all(word in text for word in wanted):
        return 2
    known = re.findall(r"[\w?]+", text)
    best = [
        max(difflib.SequenceMatcher(None, word, one).ratio() for one in known) for word in wanted
    ]
    return min(best) if min(best) >= NEAR else 0


def key_label_of(key: str) -> str:
    """One key as it is printed."""
    return key_label(Action("", (key,), "", ""))


class ActionList(ModalScreen[str | None]):
    """Result: the id of the action to run, None for none. `pane` comes first in the list."""

    BINDINGS = [
        Binding("escape", "cancel", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("pagedown", "move(10)", show=False, priority=True),
        Binding("pageup", "move(-10)", show=False, priority=True),
        Binding("tab,shift+tab", "nothing", show=False, priority=True),
    ]
    AUTO_FOCUS = "#search"

    def __init__(self, keymap: Keymap, pane: str, title: str) -> None:
        super().__init__()
        here = [action for action in keymap.actions if pane in action.where]
        rest = [action for action in keymap.actions if pane not in action.where]
        self._rows = ActionRows([*here, *rest])
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(content(self._title), id="title")
            yield field("search", "type to search")
            yield self._rows
            yield Static(id="chosen")
            yield Static(content("Enter runs it   Esc closes", "dim"), id="foot")

    def on_mount(self) -> None:
        self._explain()

    def on_resize(self) -> None:
        self._explain()

    def _explain(self) -> None:
        """The whole help of the chosen action: its row may be too narrow for it."""
        action = self._rows.action()
        text = "" if action is None else action.help
        self.query_one("#chosen", Static).update(content(text))

    def action_cancel(self) -> None:
        self.dismiss(None)

    def action_nothing(self) -> None:
        """Tab stays in the search."""

    def action_move(self, by: int) -> None:
        self._rows._move(by)
        self._explain()

    @on(Input.Changed, "#search")
    def _search(self, event: Input.Changed) -> None:
        self._rows.chosen = None
        self._rows.set_filter(event.value)
        self._explain()

    @on(Input.Submitted, "#search")
    def _run(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(self._rows.selected())
