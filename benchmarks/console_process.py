"""A console, or a bare Textual app to compare with, as the process that bench_console measures.

`python -m benchmarks.console_process bare` or `… HOME [HURRY]`: with HURRY its poller asks so many
times as often as in life.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path


def bare() -> None:
    from textual.app import App, ComposeResult
    from textual.widgets import Static

    class Bare(App[None]):
        def compose(self) -> ComposeResult:
            yield Static("6 events")

    Bare().run()


def console(root: str) -> None:
    from engine.sessions.client import connect
    from queue_store import config
    from queue_store.home import Home
    from trainctl.console import store_reader
    from tui.app import run_console

    home = Home(Path(root))
    run_console(
        home,
        config.load(home.config),
        connect(home),
        partial(store_reader, home),
        on_leave=lambda way: None,
        reconnect=lambda: connect(home),
    )


def hurry(times: float) -> None:
    """Let the seconds between two questions be shorter."""
    from tui import poller

    poller.Poller.__init__.__kwdefaults__["interval"] = poller.INTERVAL / times
    poller.LISTS_EVERY /= times
    poller.METERS_EVERY /= times


if __name__ == "__main__":
    if len(sys.argv) > 2:
        hurry(float(sys.argv[2]))
    bare() if sys.argv[1] == "bare" else console(sys.argv[1])
