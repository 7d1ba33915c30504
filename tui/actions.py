"""The table of actions: the one source of key bindings, footer, help and palette.

An action names what it does and where; who does it are the methods `do_<id>` of the panes and
of the console. A key that is not in this table does nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from queue_store.errors import ConfigError
from tui import keynames

PANES = ("queue", "curves", "meters", "samples", "versions", "events")
LISTS = ("queue", "samples", "versions", "events")


@dataclass(frozen=True)
class Action:
    """`where` are the panes in which the keys act, () everywhere; the pane's own keys come first.

    `footer` orders the footer (0: not in it by default, shown last when there is room).
    `engine` tells that it needs an engine that answers; `reads` that it only looks there, so
    that a read-only console may do it.
    """

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    where: tuple[str, ...] = ()
    footer: int = 0
    engine: bool = False
    reads: bool = False

    @property
    def changes(self) -> bool:
        """Whether it changes something, as a read-only console must not."""
        return self.engine and not self.reads


ACTIONS: tuple[Action, ...] = (
    Action("help", ("?",), "help", "All keys, with a search; Enter runs the chosen one", footer=1),
    Action("palette", (":",), "command", "Find an action by its name and run it", footer=2),
    Action("filter", ("/",), "filter", "Show only the lines that contain a text", LISTS, footer=3),
    Action("pause", ("p",), "pause", "Pause at the next step, or resume", footer=4, engine=True),
    Action("snapshot", ("s",), "snapshot", "Keep the present state as a version", (), 9, True),
    Action(
        "rollback",
        ("R",),
        "rollback",
        "Go back to a version: the chosen one, or the newest verified one before now",
        footer=10,
        engine=True,
    ),
    Action("zoom", ("z",), "zoom", "Give the chosen pane the whole screen, and back", footer=11),
    Action("leave", ("q", "ctrl+c"), "leave", "Leave the console", footer=12),
    Action(
        "back",
        ("escape",),
        "back",
        "Clear marks, the filter or the overlay; or leave the zoom",
    ),
    Action("next", ("tab",), "next pane", "Go to the next pane"),
    Action("previous", ("shift+tab",), "previous pane", "Go to the pane before"),
    Action("pane_1", ("1",), "queue", "Go to the queue"),
    Action("pane_2", ("2",), "curves", "Go to the curves"),
    Action("pane_3", ("3",), "meters", "Go to the meters"),
    Action("pane_4", ("4",), "samples", "Go to the samples"),
    Action("pane_5", ("5",), "versions", "Go to the versions"),
    Action("pane_6", ("6",), "events", "Go to the events"),
    Action("down", ("j", "down"), "down", "One line down"),
    Action("up", ("k", "up"), "up", "One line up (in the queue: the arrow key, k is skip)"),
    Action("page_down", ("pagedown",), "page down", "One page down"),
    Action("page_up", ("pageup",), "page up", "One page up"),
    Action("top", ("g", "home"), "top", "To the first line"),
    Action("bottom", ("G", "end"), "bottom", "To the last line"),
    Action("why", ("w", "W"), "why", "The hints: their figures, the reason, what one can do"),
    Action("redraw", ("ctrl+l",), "redraw", "Draw the whole screen again"),
    # queue
    Action(
        "skip",
        ("k",),
        "skip",
        "Skip the item in training: keep what it taught, or undo it",
        ("queue",),
        5,
        True,
    ),
    Action("raise", ("+",), "raise", "Raise the item's priority", ("queue",), 6, True),
    Action("lower", ("-",), "lower", "Lower the item's priority", ("queue",), 6, True),
    Action("add", ("a",), "add", "Add a file to the queue", ("queue",), 7, True),
    Action(
        "details", ("enter",), "details", "Attempts, counts, lengths, why it failed", ("queue",), 12
    ),
    Action("rows", ("t",), "tokens", "The item's rows: which tokens of them train", ("queue",), 12),
    Action(
        "move_up", ("K",), "earlier", "Move the item up within its priority", ("queue",), 0, True
    ),
    Action("move_down", ("J",), "later", "Move the item down in its priority", ("queue",), 0, True),
    Action("validate", ("v",), "validate", "Check the whole file, deep", ("queue",), 13),
    Action(
        "mark",
        ("space",),
        "mark",
        "Mark an item, or the version that c compares with; or take the mark off",
        ("queue", "versions"),
        9,
    ),
    Action("mark_all", ("A",), "mark all", "Mark all items shown (Esc: none)", ("queue",), 14),
    Action(
        "only",
        ("o",),
        "only",
        "Show one kind only: of items, answers or events; the next one, or all again",
        ("queue", "samples", "events"),
        7,
    ),
    Action("retry", ("r",), "retry", "Queue a failed or skipped item again", ("queue",), 13, True),
    Action(
        "remove", ("x",), "remove", "Take an item out of the queue (asks)", ("queue",), 13, True
    ),
    Action(
        "unremove",
        ("u",),
        "undo",
        "Take back the last removal of this console",
        ("queue",),
        13,
        True,
    ),
    # curves
    Action("metric", ("m",), "metric", "Next metric", ("curves",), 5),
    Action("metric_before", ("M",), "metric before", "The metric before", ("curves",), 13),
    Action("log", ("y",), "log scale", "Logarithmic or linear y", ("curves",), 5),
    Action("window", ("w",), "window", "All steps, or the last 1000, 300, 100", ("curves",), 5),
    Action("band", ("b",), "band", "Show or hide the band from minimum to maximum", ("curves",), 6),
    Action("ema", ("e",), "EMA", "Smoothed line (EMA), or the mean as it is", ("curves",), 6),
    Action("pan_left", ("h", "left"), "left", "Earlier steps, or the cursor left", ("curves",), 7),
    Action(
        "pan_right", ("l", "right"), "right", "Later steps, or the cursor right", ("curves",), 7
    ),
    Action("zoom_out", ("<",), "wider", "Twice as many steps", ("curves",), 7),
    Action("zoom_in", (">",), "closer", "Half as many steps", ("curves",), 7),
    Action("follow", ("f",), "follow", "Stay at the newest step", ("curves",), 8),
    Action(
        "markers",
        ("i",),
        "marks",
        "Which marks are shown: | version, > item begins, < rolled back, x failure, + restart",
        ("curves",),
        13,
    ),
    Action(
        "branches", ("B",), "branches", "Show or hide the branches left behind", ("curves",), 13
    ),
    Action(
        "overlay",
        ("C",),
        "overlay",
        "Lay the lines of two versions over each other, and take that off",
        ("curves",),
        13,
    ),
    Action("cursor", (".",), "cursor", "Read values at a step; h and l move it", ("curves",), 8),
    # samples
    Action("next_example", ("n",), "next", "Next example", ("samples",), 5),
    Action("previous_example", ("N",), "previous", "Example before", ("samples",), 5),
    Action("earlier", ("[",), "earlier", "Answers at the step before", ("samples",), 6),
    Action("later", ("]",), "later", "Answers at the next step", ("samples",), 6),
    Action("newest", ("}",), "newest", "Back to the newest answers", ("samples",), 6),
    Action("diff", ("d",), "diff", "Answer against the expected one", ("samples",), 7),
    Action(
        "development",
        ("D",),
        "over time",
        "All that was answered to this example, step by step",
        ("samples",),
        7,
    ),
    Action(
        "try_prompt",
        ("t",),
        "try a prompt",
        "Ask the model that trains, or versions beside each other",
        ("samples",),
        8,
        True,
    ),
    Action("list", ("f",), "list", "Show or fold the list of examples", ("samples",), 8),
    # versions
    Action(
        "restore", ("enter",), "restore", "Go back to the chosen version", ("versions",), 5, True
    ),
    Action("pin", ("*",), "pin", "Pin a version, or take the pin off", ("versions",), 6, True),
    Action("verify", ("V",), "verify", "Read a version back and compare", ("versions",), 7, True),
    Action(
        "facts",
        ("i",),
        "facts",
        "All about a version: files, copies",
        ("versions",),
        footer=8,
        engine=True,
        reads=True,
    ),
    Action("delete", ("ctrl+d",), "delete", "Delete a version (asks)", ("versions",), 8, True),
    Action("tree", ("T",), "tree", "As they came from each other, or by age", ("versions",), 13),
    Action("tag", ("t",), "tag", "Give a version a name of your own", ("versions",), 13, True),
    Action("describe", ("D",), "describe", "Say what a version is", ("versions",), 13, True),
    Action(
        "verify_deep",
        ("L",),
        "loads?",
        "Read a version back, load it, and compute with it",
        ("versions",),
        13,
        True,
    ),
    Action(
        "compare",
        ("c",),
        "compare",
        "A version beside the marked one, or the present state: losses, answers, items",
        ("versions",),
        8,
        engine=True,
        reads=True,
    ),
    Action(
        "backup", ("b",), "back up", "Copy a version to a backup target", ("versions",), 13, True
    ),
    Action(
        "trash", ("X",), "trash", "What was deleted: bring back, or empty", ("versions",), 13, True
    ),
    Action(
        "evaluate",
        ("e",),
        "evaluate",
        "Have a version asked the evaluation sets, on a host or here",
        ("versions",),
        7,
        True,
    ),
    Action(
        "jobs",
        ("E",),
        "evaluations",
        "The evaluation jobs: how far each is, cancel, priority",
        ("versions", "meters"),
        13,
        engine=True,
        reads=True,
    ),
    Action(
        "hosts",
        ("H",),
        "hosts",
        "The evaluation hosts: state, cards, what they hold; trust a new key",
        ("meters", "versions"),
        13,
        engine=True,
        reads=True,
    ),
    Action("checkpoints", ("C",), "checkpoints", "The checkpoints beneath", ("versions",), 13),
    # meters
    Action(
        "what_if",
        ("m",),
        "memory",
        "What training takes of memory, and what other settings or another card would take",
        ("meters",),
        5,
    ),
    # events
    Action("event", ("enter",), "read", "The whole text of an event", ("events",), 5),
)

BY_ID: Mapping[str, Action] = {action.id: action for action in ACTIONS}


def remapped(keys: Mapping[str, str], file: str = "") -> tuple[Action, ...]:
    """The table with the keys of config.toml's [console.keys] in it; `file` is where they stand.

    Raises ConfigError for an unknown action, a key that another action has in the same place,
    and what cannot be a key (see tui.keynames).
    """
    at = f"{file}: " if file else ""
    for name, key in keys.items():
        where = f"{at}console.keys.{name}"
        if name not in BY_ID:
            near = difflib.get_close_matches(name, BY_ID, 1)
            mend = f"did you mean {near[0]}?" if near else "trainctl's ? lists the actions"
            raise ConfigError(f"unknown action {name}", where=where, mend=mend)
        found = keynames.wrong(key)
        if found is not None:
            raise ConfigError(found[0], where=where, mend=found[1])
    table = tuple(
        replace(action, keys=(keys[action.id],)) if action.id in keys else action
        for action in ACTIONS
    )
    taken: dict[tuple[str, str], str] = {}
    for action in table:
        for place in action.where or ("everywhere",):
            for key in action.keys:
                other = taken.setdefault((place, key), action.id)
                if other != action.id:
                    raise ConfigError(
                        f"key {key} is both {other} and {action.id}",
                        where=f"{at}console.keys",
                        mend=f"give {action.id if action.id in keys else other} another key",
                    )
    return table


class Keymap:
    """Which action a key means in a pane."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self.actions = remapped(keys)
        self.by_id = {action.id: action for action in self.actions}
        self._map = {
            (place, key): action
            for action in self.actions
            for place in action.where or ("",)
            for key in action.keys
        }

    def lookup(self, pane: str, key: str) -> Action | None:
        """The action of `key` in `pane`: the pane's own before those of everywhere."""
        return self._map.get((pane, key)) or self._map.get(("", key))

    def pressed(self, pane: str, name: str, character: str | None) -> Action | None:
        """The action of a key as a terminal tells it: its name, and what it prints, if anything."""
        key = character if character and character.isprintable() else name
        return self.lookup(pane, "space" if key == " " else key)

    def footer(self, pane: str) -> list[Action]:
        """The actions that act in `pane`, the most wanted first."""
        here = [
            a if a.where else self._acting(pane, a)
            for a in self.actions
            if not a.where or pane in a.where
        ]
        return sorted(here, key=lambda a: a.footer or 99)

    def keys_of(self, id: str, pane: str) -> tuple[str, ...]:
        """The keys of an action that mean it in `pane`."""
        return self._acting(pane, self.by_id[id]).keys

    def _acting(self, pane: str, action: Action) -> Action:
        """An action of everywhere with the keys that the pane does not use itself."""
        left = tuple(key for key in action.keys if (pane, key) not in self._map)
        return replace(action, keys=left or action.keys)


def key_label(action: Action) -> str:
    """The first key as it is printed on a keyboard."""
    names = {"escape": "Esc", "enter": "Enter", "tab": "Tab", "shift+tab": "Shift-Tab"}
    key = action.keys[0]
    return names.get(key, key.replace("ctrl+", "^"))
