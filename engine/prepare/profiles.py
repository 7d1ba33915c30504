"""Profiles: what is done to every row before the chat template sees it (formats F16).

A profile has a `name`, a `version`, and `transform(row, index) -> Row`, a pure function of the
row and its place in the file (its line, from 0). It adds to the user's turns and never touches a
system prompt. Optional: `answer(text) -> str`, an answer of the model without what the profile
adds, for scoring. One's own is found by an entry point of the group `trainctl.profiles`, which
names such an object, or a class that makes one.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Protocol, runtime_checkable

import orjson
from blake3 import blake3

from engine.prepare.template import RowRefused
from queue_store.errors import ConfigError
from queue_store.rows import Message, Row

GROUP = "trainctl.profiles"
KEY = "data.profile"


@runtime_checkable
class Profile(Protocol):
    """A transform of rows. `version` changes whenever the same row would become another one."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def transform(self, row: Row, index: int) -> Row: ...


class _None:
    """Rows as they are."""

    name = "none"
    version = "1.0.0"

    def transform(self, row: Row, index: int) -> Row:
        return row


class EmojiThink:
    """Half of the rows, chosen by their index: answers open with a line of one thinking emoji, two
    to eight of them, and end with a line of a stop emoji, two to four; a sentence each in the
    user's turn asks for just that. The tags of think blocks go from every answer, their text stays.
    """

    name = "emoji_think"
    version = "1.0.0"

    THINK = ["🤔", "💭", "🧠", "💡", "🧐", "🔍", "🌀", "🧩", "⚙", "🔮"]
    STOP = ["🛑", "⛔", "🚫", "❌", "🔚", "🏁", "🚩", "✅", "🔒", "📍"]
    NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight")
    _TAGS = re.compile(r"</?think>\n*")

    def transform(self, row: Row, index: int) -> Row:
        if row.messages is None:
            return row
        # Bytes of a hash, not `random`: the same in every Python, for ever.
        draw = blake3(f"emoji_think/{7919 * index}".encode()).digest(length=5)
        wrapped = draw[0] < 128
        think, stop = self.THINK[draw[1] % 10], self.STOP[draw[2] % 10]
        thinks, stops = 2 + draw[3] % 7, 2 + draw[4] % 3
        asked = (
            f"Think first: begin your answer with a line of {self.NUMBERS[thinks - 2]} {think}."
            f" End your answer with a line of {self.NUMBERS[stops - 2]} {stop}."
        )

        def answer(text: str) -> str:
            text = self._TAGS.sub("", text).strip("\n") if "think>" in text else text
            return text

        def wrap(text: str) -> str:
            return f"{think * thinks}\n{answer(text)}\n{stop * stops}"

        return _turned(row, asked if wrapped else "", wrap, answer)

    def answer(self, text: str) -> str:
        lines = text.strip().split("\n")
        if lines and _only(lines[0], self.THINK):
            lines = lines[1:]
        if lines and _only(lines[-1], self.STOP):
            lines = lines[:-1]
        return "\n".join(lines)


class Regime3:
    """Answers stand between <<ANS_START>> and <<ANS_END>>, and the user's turn asks for it; where
    that turn has a computation `op(a, b)`, it is also given in the form (op a b)."""

    name = "regime3"
    version = "1.0.0"

    START, END = "<<ANS_START>>", "<<ANS_END>>"
    _CALL = re.compile(r"\bCompute:\s*(\w+)\(([^()\n]*)\)")

    def transform(self, row: Row, index: int) -> Row:
        if row.messages is None:
            return row
        asked = f"Write the answer between {self.START} and {self.END}."
        return _turned(row, asked, self._wrap, str, self._canonical)

    def _wrap(self, text: str) -> str:
        return f"{self.START}\n{text}\n{self.END}"

    def _canonical(self, text: str) -> str:
        found = self._CALL.search(text)
        if found is None:
            return ""
        arguments = [part.strip() for part in found.group(2).split(",")]
        return f"({' '.join(filter(None, [found.group(1), *arguments]))})"

    def answer(self, text: str) -> str:
        body = text.partition(self.START)
        return (body[2] if body[1] else text).partition(self.END)[0].strip("\n")


BUILT_IN: dict[str, Profile] = {p.name: p for p in (_None(), EmojiThink(), Regime3())}


def find(name: str) -> Profile:
    """The profile of that name. Raises ConfigError: unknown (with its neighbours), or one of an
    entry point that cannot be loaded or is no profile."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name not in points:
        known = [*BUILT_IN, *sorted(points.keys() - BUILT_IN.keys())]
        near = difflib.get_close_matches(name, known, 1)
        mend = f'did you mean "{near[0]}"? ' if near else ""
        raise ConfigError(
            f"profile {name!r} is unknown", where=KEY, mend=f"{mend}known: {', '.join(known)}"
        )
    point = points[name]
    try:
        found = point.load()
        found = found() if isinstance(found, type) else found
    except Exception as error:  # an entry point is another's program
        raise ConfigError(
            f"profile {name!r} cannot be loaded: {type(error).__name__}: {error}",
            where=f"{KEY}, entry point {point.value}",
            mend="mend or reinstall the package that has it",
        ) from None
    if not isinstance(found, Profile) or found.name != name:
        raise ConfigError(
            f"profile {name!r} is none: it needs a name ({name!r}), a version, and"
            " transform(row, index)",
            where=f"{KEY}, entry point {point.value}",
        )
    return found


def digest(profile: Profile) -> str:
    """BLAKE3 (hex) of what a profile does to rows: its name and version and, of one's own, the
    file that it is written in, as that may change without a new version."""
    code = b""
    if profile.name not in BUILT_IN:
        try:
            code = Path(inspect.getfile(type(profile))).read_bytes()
        except (OSError, TypeError):
            code = b""
    return blake3(
        orjson.dumps([profile.name, str(profile.version), blake3(code).hexdigest()])
    ).hexdigest()


def transformed(profile: Profile, row: Row) -> Row:
    """A row as the profile makes it; it stays on its line. Raises RowRefused where the profile
    fails on it or makes something else of it than a conversation with its roles."""
    try:
        made = profile.transform(row, row.line - 1)
    except Exception as error:  # one's own profile is another's program
        raise RowRefused(
            f"profile {profile.name} fails on the row: {type(error).__name__}: {error}"
        ) from None
    if made is row:
        return row
    if not isinstance(made, Row) or (made.messages is None) != (row.messages is None):
        raise RowRefused(f"profile {profile.name} makes no row of it")
    if not (made.messages or made.text):
        raise RowRefused(f"profile {profile.name} leaves nothing of the row")
    return dataclasses.replace(made, line=row.line)


def scored(profile: Profile, text: str) -> str:
    """An answer of the model without what the profile adds to answers."""
    own = getattr(profile, "answer", None)
    return str(own(text)) if callable(own) else text


def _turned(
    row: Row,
    asked: str,
    wrap: Callable[[str], str],
    plain: Callable[[str], str],
    more: Callable[[str], str] | None = None,
) -> Row:
    """The row with `asked` appended to every user turn, and every answer to such a turn wrapped;
    other answers and turns that call tools are made `plain`. Without `asked` all are plain."""
    turns: list[Message] = []
    told = False
    for turn in row.messages or ():
        content = turn.content
        if turn.role == "user":
            told = bool(asked)
            added = [more(content) if more else "", asked] if told else []
            content = "\n\n".join(filter(None, [content, *added]))
        elif turn.role == "assistant":
            content = wrap(content) if told and not turn.tool_calls else plain(content)
        turns.append(dataclasses.replace(turn, content=content))
    return dataclasses.replace(row, messages=tuple(turns))


def _only(line: str, emoji: Sequence[str]) -> bool:
    """Whether a line is one of the emoji, repeated."""
    line = line.strip()
    return any(line and not line.replace(one, "") for one in emoji)
