"""How a key is written in config.toml: what a terminal can send, and the nearest to a wrong one.

A printed character is written as itself ("?", "J", "é"); the others have the names of the table
of actions. Imports no Textual, for `trainctl config show` checks with it too.
"""

from __future__ import annotations

import difflib
import string

MOVING = (
    *("left", "right", "up", "down", "home", "end", "pageup", "pagedown", "insert", "delete"),
)
NAMED = ("space", "enter", "escape", "tab", "backspace")
FUNCTION = tuple(f"f{number}" for number in range(1, 25))
TAKEN = {"ctrl+i": "tab", "ctrl+m": "enter", "ctrl+h": "backspace"}
"""Chords that a terminal sends as another key."""
NEVER = {
    "ctrl+z": "it stops a process, and would stop training with it",
    "ctrl+c": "it always leaves",
}

KEYS = frozenset(
    (
        *NAMED,
        *MOVING,
        *FUNCTION,
        *(f"{chord}+{key}" for chord in ("ctrl", "shift", "ctrl+shift") for key in MOVING),
        *(f"ctrl+{letter}" for letter in string.ascii_lowercase),
        *(f"ctrl+{key}" for key in FUNCTION),
        "shift+tab",
    )
)
_OTHER_WORDS = {
    "esc": "escape",
    "return": "enter",
    "del": "delete",
    "ins": "insert",
    "pgup": "pageup",
    "pgdn": "pagedown",
    "pgdown": "pagedown",
    "question_mark": "?",
    "full_stop": ".",
    "comma": ",",
    "slash": "/",
    "colon": ":",
    "plus": "+",
    "minus": "-",
    "asterisk": "*",
}


def wrong(key: str) -> tuple[str, str] | None:
    """(why, how to mend it) where `key` is none that a terminal can send and we may take."""
    if len(key) == 1 and key.isprintable() and not key.isspace():
        return None
    if key in NEVER:
        return f"{key!r} cannot be a key: {NEVER[key]}", "choose another"
    if key in TAKEN:
        return f"{key!r} cannot be a key", f"a terminal sends it as {TAKEN[key]}"
    if key in KEYS:
        return None
    near = _near(key)
    mend = f"did you mean {near}?" if near else 'for example "x", "space", "f5", "ctrl+x"'
    return f"{key!r} cannot be a key", mend


def _near(key: str) -> str:
    """The keys that were probably meant, as they are written; "" where nothing is near."""
    if key.isspace():
        return '"space"'
    word = key.lower().replace("-", "+").replace("control", "ctrl").replace("^", "ctrl+")
    word = word.replace("c+", "ctrl+", 1) if word.startswith("c+") else word
    word = word.replace("page+", "page").replace("page_", "page").replace(" ", "")
    head, _, last = word.rpartition("+")
    if head == "shift" and len(last) == 1 and last.isalpha():
        return f'"{last.upper()}"'
    last = _OTHER_WORDS.get(last, last)
    whole = f"{head}+{last}" if head else last
    if whole in KEYS or len(whole) == 1:
        return f'"{whole}"'
    return " or ".join(f'"{name}"' for name in difflib.get_close_matches(whole, sorted(KEYS), 2))
