"""What a command is given: the home, the store, an engine's session, and where output goes.

Everything is found when it is first asked for, so that a verb pays only for what it uses.
Never prints foreign text that did not pass `safe`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from queue_store.errors import NoEngine, TrainctlError
from queue_store.home import Home, find_home

if TYPE_CHECKING:
    from engine.reading.views import Views
    from engine.sessions.session import Session
    from queue_store.config import Config
    from queue_store.database import State


ANSWER_SECONDS = 10.0
"""For an engine's hello: while it loads torch it may be silent for seconds."""


class Context:
    """One run of one command."""

    def __init__(self, given_home: str | None = None, json: bool = False) -> None:
        self.given_home = given_home
        self.json = json
        self._home: Home | None = None
        self._state: State | None = None
        self._views: Views | None = None
        self._session: Session | None = None

    @property
    def home(self) -> Home:
        """The home of this command. Raises NotFound with how to make one."""
        if self._home is None:
            self._home = find_home(self.given_home)
        return self._home

    def found_home(self) -> Home | None:
        """The home if there is one; never raises."""
        try:
            return self.home
        except (TrainctlError, OSError):
            return None

    @property
    def config(self) -> Config:
        """The home's configuration, checked. Raises ConfigError."""
        from queue_store import config

        return config.load(self.home.config)

    @property
    def state(self) -> State:
        """This command's connection to state.db."""
        if self._state is None:
            from queue_store.database import open_state

            self._state = open_state(self.home)
        return self._state

    @property
    def views(self) -> Views:
        """Reads of the store, in the shapes that scripts rely on."""
        if self._views is None:
            from engine.reading.views import Views

            self._views = Views(self.home)
        return self._views

    def engine(self) -> Session:
        """A session with the home's engine. Raises NoEngine (exit 3)."""
        if self._session is None:
            from engine.sessions.client import connect

            self._session = connect(self.home, timeout=ANSWER_SECONDS)
        return self._session

    def engine_if_any(self) -> Session | None:
        """A session with the home's engine, None where none runs."""
        try:
            return self.engine()
        except NoEngine:
            return None

    def forget_engine(self) -> None:
        """Close a session whose engine is gone; the next `engine` looks again."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def close(self) -> None:
        """End the session and the connections that were opened."""
        for opened in (self._session, self._views, self._state):
            if opened is not None:
                opened.close()

    def show(self, data: Any, human: Callable[[], str]) -> None:
        """Print `data` as JSON where that was asked for, else the text that `human` makes."""
        if self.json:
            print_json(data)
            return
        text = human()
        if text:
            print(text)


def print_json_list(rows: Iterable[Any]) -> None:
    """`rows` as a JSON list, one object a line, never all of them in memory."""
    import orjson

    before = "["
    for row in rows:
        print(before + _harmless(orjson.dumps(row).decode()), end="")
        before = ",\n"
    print("[]" if before == "[" else "]")


def print_json(data: Any, *, line: bool = False) -> None:
    """`data` on stdout: indented for a person at a terminal, else (or with `line`) one line."""
    import orjson

    pretty = sys.stdout.isatty() and not line
    text = orjson.dumps(
        data, option=(orjson.OPT_INDENT_2 if pretty else 0) | orjson.OPT_NON_STR_KEYS
    ).decode()
    print(_harmless(text), flush=line)


def _harmless(text: str) -> str:
    """JSON as it may go to stdout: a terminal would obey DEL and C1 controls, which JSON leaves
    as they are."""
    if (text.isascii() and "\x7f" not in text) or not sys.stdout.isatty():
        return text
    return "".join(f"\\u{ord(c):04x}" if "\x7f" <= c <= "\x9f" else c for c in text)
