"""`trainctl` without a verb: the full-screen console, attached or with an engine of its own.

With an engine of its own the first frame comes first and the engine's thread after it, so that
a person does not wait for torch. Leaving hands the engine over to a daemon; a terminal that
goes away leaves it training here, headless. What the console shows is the tui's affair.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from queue_store.errors import NoEngine, Refused, TrainctlError
from trainctl.context import Context

if TYPE_CHECKING:
    from engine.reading.views import Views
    from engine.sessions.session import Session
    from queue_store.config import Config
    from queue_store.home import Home
    from trainctl.host import Host

HEADLESS = "trainctl --daemon --detach"
ATTACH_SECONDS = 10.0
POLL_SECONDS = 0.1


def command(context: Context, arguments: argparse.Namespace) -> int:
    """The console; the exit code. Without a terminal: the plain status, exit 2."""
    from tui.terminal import missing

    home = context.home
    config = _configured(context, arguments)  # what is wrong in it is said before all else
    why = missing()
    if why:
        return _without_terminal(context, why)
    if arguments.readonly:
        return _looking(context, config)
    if context.engine_if_any() is not None:
        return _attached(context, config)
    from queue_store.lock import EngineLock
    from trainctl.host import Host, refuse_stop_file

    refuse_stop_file(home)
    try:
        lock = EngineLock.acquire(home, "console")
    except Refused:
        # Somebody starts an engine right now: its socket will answer in a moment.
        _wait_for_engine(context)
        return _attached(context, config)
    return _own_engine(Host(home, config, lock, "console"))


def _configured(context: Context, arguments: argparse.Namespace) -> Config:
    """The home's configuration with what this console was asked for. Raises ConfigError."""
    from tui import themes
    from tui.actions import remapped

    config = context.config
    remapped(config.console.keys, str(context.home.config))
    themes.checked(config.console.theme, str(context.home.config))
    if arguments.ascii:
        config = replace(config, console=replace(config.console, ascii=True))
    return config


def _without_terminal(context: Context, why: str) -> int:
    from trainctl.commands.status import plain, read

    data = read(context)
    context.show(data, lambda: plain(data))
    sys.stdout.flush()
    print(
        f"trainctl: no console here: {why} (to train without one: {HEADLESS}"
        f" --home {context.home.root})",
        file=sys.stderr,
    )
    return 2


def _wait_for_engine(context: Context) -> None:
    from queue_store.lock import holder

    deadline = time.monotonic() + ATTACH_SECONDS
    while context.engine_if_any() is None:
        if time.monotonic() > deadline:
            who = holder(context.home) or {"pid": "?"}
            raise NoEngine(
                f"process {who['pid']} holds this home and does not answer",
                where=str(context.home.root),
                mend="end that process, or wait",
            )
        time.sleep(POLL_SECONDS)


def _looking(context: Context, config: Config) -> int:
    """A console that changes nothing: on the engine where one runs, else on the store; none is
    started."""
    from engine.sessions.client import connect
    from engine.sessions.readonly import ReadOnlySession, StoreSession
    from tui.app import run_console

    home = context.home
    if not home.state_db.exists():
        raise Refused(
            "nothing to look at: no engine has run here yet",
            where=str(home.root),
            mend="start one: trainctl without --readonly",
        )

    def attach() -> ReadOnlySession:
        return ReadOnlySession(connect(home))

    live = context.engine_if_any()
    with closing(StoreSession(home, attach) if live is None else ReadOnlySession(live)) as session:
        return run_console(
            home,
            config,
            session,
            partial(store_reader, home),
            on_leave=_nothing,
            reconnect=attach,
            readonly=True,
        )


def _attached(context: Context, config: Config) -> int:
    """The console on an engine of another process; leaving touches nothing."""
    from engine.sessions.client import connect
    from tui.app import run_console

    with closing(context.engine()) as session:
        return run_console(
            context.home,
            config,
            session,
            partial(store_reader, context.home),
            on_leave=_nothing,
            reconnect=lambda: connect(context.home),
        )


def store_reader(home: Home) -> Views:
    """The store's reader; called once the console's first frame is shown."""
    from engine.reading.views import Views

    return Views(home)


def _nothing(way: str) -> None:
    """An attached console leaves the engine as it is, whichever way it is left."""


def _own_engine(host: Host) -> int:
    """The console with the engine in this process, until that is handed over or has ended."""
    from trainctl import logs
    from trainctl.signals import Signals
    from trainctl.training import serve
    from tui import app

    logs.log_to_file(host.home)
    leaving = _Leaving(host)
    signals = Signals()
    # ctrl+c is a key of the console; a SIGINT that somebody sends ends it as SIGTERM does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        code = app.run_console(
            host.home,
            host.config,
            HostSession(host),
            partial(store_reader, host.home),
            on_leave=leaving,
        )
    except KeyboardInterrupt:
        leaving.way = app.TERMINATE
    signals.listen()
    if leaving.pid is not None:
        _tell(f"training goes on in the background, pid {leaving.pid}; trainctl attaches again")
        return 0
    if leaving.way == app.HANGUP:
        host.train_on_as("headless")
        return serve(host, signals)  # with the SIGTERM that may have come meanwhile
    if leaving.way == app.DETACH and not code:
        host.stop()  # it has ended already, or was never started
        host.ended.wait()
    if host.ended.is_set():
        _tell(host.failure or "the engine has ended, everything is saved")
        return host.exit_code
    if leaving.way == app.TERMINATE:
        _tell("finishing this step and saving …")
        signals.count += 1
        host.stop()
        return serve(host, signals)
    # The screen broke down. That is no reason to stop training.
    _tell(f"the console broke down, see {host.home.logs}; handing over to the background …")
    try:
        _tell(f"training goes on in the background, pid {host.hand_over()}")
    except TrainctlError as error:
        _tell(f"training goes on here, without a console: {error}")
        host.train_on_as("headless")
        return serve(host, signals)
    return code or 1


def _tell(line: str) -> None:
    print(f"trainctl: {line}", file=sys.stderr, flush=True)


class _Leaving:
    """Carries out how a person leaves a console that has the engine; remembers which way."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.way = ""
        self.pid: int | None = None

    def __call__(self, way: str) -> None:
        """Raises TrainctlError where it cannot be done: the console stays, and says why."""
        from tui import app

        if way == app.HANDOVER:
            self.pid = self.host.hand_over()
        elif way == app.STOP:
            self.host.stop()
            self.host.ended.wait()
        self.way = way


class HostSession:
    """The console's session with the engine of its own process, which it starts when it is first
    asked something: then the first frame is on the screen."""

    local = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """As engine.sessions.session. After a hand-over that failed, it is the new engine's."""
        session: Session = self._host.started()
        return session.request(command, timeout, **arguments)

    def close(self) -> None:
        """The engine's end is the host's affair."""
