"""The process that trains under a supervisor: `trainctl --engine`, which nobody types.

The same engine as a console's. It tells its supervisor over a pipe how the engine thread is,
ends (saving) when the supervisor dies, and writes every thread's stack when it is asked to.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time

import orjson

from queue_store import config as configuration
from queue_store.home import Home
from queue_store.lock import EngineLock
from queue_store.safe import safe_line
from trainctl import logs
from trainctl.context import Context
from trainctl.host import Host
from trainctl.signals import Signals

BEAT_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def command(context: Context, arguments: argparse.Namespace) -> int:
    """Train until told to stop; the exit code, one of errors.EXIT_* where another process is to
    be started."""
    home = context.home
    # Said by the supervisor: had it died by now, getppid would already name another process.
    supervisor = arguments.supervisor_pid
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signals = Signals()
    if os.getppid() != supervisor:
        return 1  # it died before it could be noticed
    config = configuration.load(home.config)
    os.set_inheritable(arguments.beat_fd, False)
    lock = EngineLock.adopt(arguments.lock_fd, home)
    lock.describe("daemon", supervisor_pid=supervisor)
    logs.log_to_file(home)
    _write_stacks_on_signal(home)
    host = Host(home, config, lock, "daemon", supervisor_pid=supervisor, hold=arguments.hold)
    host.start()
    beats = threading.Thread(
        target=_beat, args=(host, arguments.beat_fd), name="trainctl-beat", daemon=True
    )
    beats.start()
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


def _write_stacks_on_signal(home: Home) -> None:
    """SIGUSR2 appends the stack of every thread to store/logs/stacks.log, in C, so that it works
    while the interpreter hangs; a crash in native code (SIGSEGV and its like) does so too."""
    file = (home.logs / "stacks.log").open("a", encoding="utf-8")
    os.fchmod(file.fileno(), 0o600)
    file.write(f"process {os.getpid()} started {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    file.flush()
    faulthandler.enable(file=file, all_threads=True)
    faulthandler.register(signal.SIGUSR2, file=file, all_threads=True)


def _beat(host: Host, fd: int) -> None:
    """Tell the supervisor, twice a second, where the engine thread is: `token` moves only when
    that thread does."""
    os.set_blocking(fd, False)
    while not host.ended.is_set():
        board = host.engine.board
        said = {"state": str(board.state), "step": board.global_step, "token": board.heartbeat}
        try:
            os.write(fd, orjson.dumps(said) + b"\n")
        except BlockingIOError:
            pass  # it does not read just now; the next beat says the same
        except OSError:
            return
        host.ended.wait(BEAT_SECONDS)
