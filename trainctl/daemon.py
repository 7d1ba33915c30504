"""`trainctl --daemon`: the engine without a console, in the foreground or in the background.

For systemd, tmux and nohup. A supervisor owns the process that trains (see `supervisor`).
SIGTERM, SIGINT and `.stop` in the home save and end both with exit code 0; a second signal ends
them at once. SIGHUP is ignored: no terminal is needed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from queue_store import config as configuration
from queue_store import records
from queue_store.errors import Refused, TrainctlError
from queue_store.home import Home
from queue_store.lock import holder
from trainctl import logs
from trainctl.context import Context
from trainctl.host import refuse_stop_file

ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.05


def command(context: Context, arguments: argparse.Namespace) -> int:
    """Run the daemon here, or with --detach start it in the background and return."""
    home = context.home
    config = configuration.load(home.config)  # what is wrong there is said before anything starts
    refuse_stop_file(home)
    if not arguments.detach:
        from trainctl.supervisor import run

        return run(home, lock_fd=arguments.lock_fd, json=context.json)
    if (who := holder(home)) is not None:
        raise Refused(
            f"process {who['pid']} runs an engine on this home already ({who['mode']})",
            where=str(home.root),
            mend="attach with trainctl",
        )
    if not home.state_db.exists() or records.head(context.state) is None:
        # It never trained, so this is what it would begin with. In the background nobody would
        # read it.
        from engine.training.base import check_named

        check_named(home, config.model.base, config.training.seed)
    pid, supervisor_pid = spawn(home)
    data = {
        "pid": pid,
        "supervisor_pid": supervisor_pid,
        "socket": str(home.socket),
        "log": str(home.log),
    }
    context.show(data, lambda: f"the engine runs in the background, pid {pid}; log {home.log}")
    return 0


def spawn(home: Home, *, lock_fd: int | None = None) -> tuple[int, int]:
    """Start a daemon in the background, in a session of its own; the process ids of its engine
    and of its supervisor, once the engine answers.

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
        pid = _answers(home, child.pid)
        if pid:
            child.returncode = 0  # it outlives us: nobody here waits for it
            return pid, child.pid
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


def _answers(home: Home, supervisor_pid: int) -> int:
    """The process id of the engine that this supervisor owns, once it says hello; else 0."""
    from engine.sessions.client import connect

    try:
        session = connect(home, timeout=1.0)
    except TrainctlError:
        return 0
    try:
        hello = session.hello
        return int(hello["pid"]) if hello.get("supervisor_pid") == supervisor_pid else 0
    finally:
        session.close()


def _path() -> str:
    """PYTHONPATH with which a child finds the packages of this process, installed or not."""
    ours = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")]))
