"""`trainctl --daemon`: the engine without a console, in the foreground or in the background.

For systemd, tmux and nohup. SIGTERM, SIGINT and `.stop` in the home save and end it with exit
code 0; a second signal ends it at once. SIGHUP is ignored: no terminal is needed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from queue_store import config as configuration
from queue_store.errors import Refused, TrainctlError
from queue_store.home import Home
from queue_store.lock import EngineLock, holder
from queue_store.safe import safe_line
from trainctl import logs
from trainctl.context import Context, print_json
from trainctl.host import Host, refuse_stop_file

ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.05
KILLED = 1


def command(context: Context, arguments: argparse.Namespace) -> int:
    """Run the daemon here, or with --detach start it in the background and return."""
    home = context.home
    configuration.load(home.config)  # what is wrong there is said before anything starts
    refuse_stop_file(home)
    if not arguments.detach:
        return run(home, lock_fd=arguments.lock_fd, json=context.json)
    if (who := holder(home)) is not None:
        raise Refused(
            f"process {who['pid']} runs an engine on this home already ({who['mode']})",
            where=str(home.root),
            mend="attach with trainctl",
        )
    pid = spawn(home)
    data = {"pid": pid, "socket": str(home.socket), "log": str(home.log)}
    context.show(data, lambda: f"the engine runs in the background, pid {pid}; log {home.log}")
    return 0


def run(home: Home, *, lock_fd: int | None = None, json: bool = False) -> int:
    """Hold the lock and train until told to stop; the exit code."""
    config = configuration.load(home.config)
    lock = (
        EngineLock.acquire(home, "daemon") if lock_fd is None else EngineLock.adopt(lock_fd, home)
    )
    lock.describe("daemon")
    logs.log_to_file(home)
    signals = Signals()
    host = Host(home, config, lock, "daemon")
    host.start()
    data = {"pid": os.getpid(), "socket": str(home.socket), "log": str(home.log)}
    if json:
        print_json(data, line=True)
    else:
        print(f"trainctl: pid {data['pid']} listens on {home.socket}; log {home.log}", flush=True)
    return serve(host, signals)


def serve(host: Host, signals: Signals) -> int:
    """Wait for the engine's end, or for a signal that asks for it; the exit code."""
    asked = False
    while not host.wait(0.1):
        if signals.count and not asked:
            asked = True
            host.stop()
    if host.failure:
        print(f"trainctl: {safe_line(host.failure)}", file=sys.stderr, flush=True)
    return host.exit_code


class Signals:
    """Counts SIGTERM and SIGINT; the second one ends the process at once."""

    def __init__(self) -> None:
        self.count = 0
        self.listen()

    def listen(self) -> None:
        """Take the signals (again, after somebody else had them)."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._come)

    def _come(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            os._exit(KILLED)


def spawn(home: Home, *, lock_fd: int | None = None) -> int:
    """Start a daemon in the background, in a session of its own; its process id once it answers.

    `lock_fd` is a held lock to hand on. Raises TrainctlError with the last line of its log.
    """
    home.create()
    # -P: the folder one stands in must not put a `trainctl` of its own in front of ours.
    words = [sys.executable, "-P", "-m", "trainctl", "--daemon", "--home", str(home.root)]
    if lock_fd is not None:
        words += ["--lock-fd", str(lock_fd)]
    start = home.log.stat().st_size if home.log.exists() else 0
    with home.log.open("ab") as log:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=() if lock_fd is None else (lock_fd,),
            env={**os.environ, "PYTHONPATH": _path()},
        )
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            why = logs.last_error(home, start).removeprefix("trainctl: ")
            raise TrainctlError(
                f"the daemon did not start: {why or f'exit code {child.returncode}'}",
                mend=f"its log is {home.log}",
            )
        if _answers(home, child.pid):
            child.returncode = 0  # it outlives us: nobody here waits for it
            return child.pid
        time.sleep(POLL_SECONDS)
    child.terminate()
    try:
        child.wait(POLL_SECONDS * 100)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    raise TrainctlError(
        f"the daemon did not answer within {ANSWER_SECONDS:.0f} s", mend=f"its log is {home.log}"
    )


def _answers(home: Home, pid: int) -> bool:
    """Whether the process `pid` says hello on the home's socket."""
    from engine.client import connect

    try:
        session = connect(home, timeout=1.0)
    except TrainctlError:
        return False
    try:
        return bool(session.hello.get("pid") == pid)
    finally:
        session.close()


def _path() -> str:
    """PYTHONPATH with which a child finds the packages of this process, installed or not."""
    ours = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")]))
