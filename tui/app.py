"""Running the console in a terminal: signals, file descriptors, and how it was left.

`run_console` is what the command line calls; the caller has checked `terminal.missing()`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from queue_store.config import Config
from queue_store.home import Home
from tui.console import Console
from tui.poller import Reader, Session
from tui.terminal import Signals, Terminal, unicode_terminal

DETACH, HANDOVER, STOP, HANGUP, TERMINATE = "detach", "handover", "stop", "hangup", "terminate"


def run_console(
    home: Home,
    config: Config,
    session: Session,
    views: Callable[[], Reader] | Reader,
    *,
    on_leave: Callable[[str], None],
    reconnect: Callable[[], Session] | None = None,
    readonly: bool = False,
) -> int:
    """Show the console until it is left; returns the exit code.

    `on_leave` is called once with the way it was left. "handover" and "stop" (chosen where
    `session.local`): in a thread, while the console still shows, to carry it out; what it raises
    is shown and the console stays. After the terminal is back: "detach" (attached, or the engine
    has stopped), "hangup" (the terminal has gone, fds 0 to 2 are on the log: train on headless)
    and "terminate" (SIGTERM: save and end). `reconnect` makes a session anew after the engine was
    lost and raises NoEngine until there is one. `readonly`: the console offers no change (the
    session refuses them too). Must be called in the main thread.
    """
    log = home.store / "logs" / "console.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    charset = "utf-8" if unicode_terminal() else "ascii"
    if charset == "ascii":
        config = replace(config, console=replace(config.console, ascii=True))
    console = Console(
        config,
        session,
        views,
        leave=on_leave,
        reconnect=reconnect,
        readonly=readonly,
        inbox=str(home.inbox),
    )

    def exit_as(way: str) -> None:
        # A terminal that goes away must not undo a SIGTERM that came before or meanwhile.
        if console.left == TERMINATE:
            return
        # At once, as the event loop may be busy with a backlog of keys: they mean nothing now.
        console.left = way
        # Also before the application runs and after it ended, from a signal or a thread.
        with suppress(RuntimeError):
            console.call_soon(lambda: console.exit_as(way))

    def signalled(number: int) -> None:
        if number == signal.SIGHUP:
            terminal.released = True
        exit_as(HANGUP if number == signal.SIGHUP else TERMINATE)

    def gone() -> None:
        terminal.released = True
        exit_as(HANGUP)

    terminal = Terminal(log, gone, charset)
    with Signals(signalled, terminal.drop), terminal, asyncio.Runner() as runner:
        runner.run(console.run_async())
    if console.poller.session is not session:
        console.poller.session.close()
    if console.return_code and not session.local:
        # Textual tells of it in the log; of an engine in this process the caller tells more.
        print(f"trainctl: the console broke down; what happened stands in {log}", file=sys.stderr)
    way = console.left or (HANGUP if terminal.released else DETACH)
    if way not in (HANDOVER, STOP):
        on_leave(way)
    return console.return_code or 0
