"""The supervisor: a small process that owns the one that trains, and starts it again when it dies.

It holds the home's lock, which its child inherits; it reads the engine's heartbeat from a pipe;
it tells systemd. It knows no torch, no database and no model. A child that ends as it was asked
to, or cannot start for a reason that another start would not change, is not started again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from queue_store import config as configuration
from queue_store import durable, lastend
from queue_store.errors import EXIT_IO, TrainctlError
from queue_store.failures import advice
from queue_store.home import Home
from queue_store.lock import EngineLock
from trainctl import ends, logs
from trainctl.context import print_json
from trainctl.notify import notify, watchdog_seconds

log = logging.getLogger("trainctl.supervisor")
FIRST_WAIT, LONGEST_WAIT = 0.2, 60.0
LOOK_SECONDS = 0.1
DUMP_SECONDS = 5.0
STARTING_FACTOR = 4
"""Loading may fetch a model from a hub, which beats for no step: it gets so many times longer."""

NEVER_HANGS = ("stopped", "failed")


@dataclass
class Beat:
    """What the child last said of its engine thread. `token` changes whenever that moves."""

    state: str = "starting"
    step: int = 0
    token: float = -1.0
    changed: float = 0.0
    ready: bool = False


class Supervisor:
    """One run of `trainctl --daemon`."""

    def __init__(self, home: Home, lock: EngineLock, *, json: bool = False) -> None:
        self.home = home
        self.lock = lock
        self.json = json
        self.asked = 0
        self.child: subprocess.Popen[bytes] | None = None
        self.beat = Beat()
        self.highest = -1
        self.in_a_row = 0
        self.io_errors = 0
        self.hold = ""
        self._watchdog_settings = configuration.load(home.config).watchdog
        self._told = False
        self._passed_on = False
        self._log_start = 0
        self._pipe: IO[bytes] | None = None
        self._rest = b""
        self._watchdog = watchdog_seconds()
        self._notified = 0.0

    # -- life -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Supervise until the engine has ended for good; the exit code."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked)
        wait = FIRST_WAIT
        while True:
            before = ends.oom_counts()
            self._start()
            code, hung = self._watch()
            self._clear()
            if code == -signal.SIGTERM:
                code = 0  # asked to end before it could listen: it had nothing to save yet
            if code in ends.FINAL:
                log.info("the training process ended with exit code %d", code)
                notify(STOPPING=1)
                return code
            oom = ends.rose(before, ends.oom_counts())
            self._note(code, hung, oom)
            if self.asked:  # killed while it saved, as it was asked to: it has not saved
                notify(STOPPING=1)
                return 1
            if self.in_a_row == 0:
                wait = FIRST_WAIT
            self.in_a_row += 1
            limit = self._settings().restarts
            if self.in_a_row > limit:
                return self._give_up(limit)
            log.info("another one in %g s (%d of %d)", wait, self.in_a_row, limit)
            self._sleep(wait)
            if self.asked or self._stop_file():
                return 0  # nothing runs, and what the last process had saved is saved
            wait = min(LONGEST_WAIT, 2 * wait)

    def _asked(self, number: int, frame: Any) -> None:
        """SIGTERM or SIGINT came: the first is passed on by `_watch`, the second ends all now."""
        self.asked += 1
        if self.asked > 1 and self.child is not None and self.child.poll() is None:
            self._kill()
            os._exit(1)

    def _pass_on(self) -> None:
        """Tell the child once that it is to save and end: to it, a second time means "now"."""
        if self.asked and not self._passed_on:
            self._passed_on = True
            assert self.child is not None
            self.child.send_signal(signal.SIGTERM)

    def _stop_file(self) -> bool:
        """Whether `.stop` came while no process trains that could obey it; it is taken away."""
        if not self.home.stop_file.exists():
            return False
        durable.remove_file(self.home.stop_file)
        log.info("stopped by the file .stop")
        return True

    def _settings(self) -> configuration.Watchdog:
        """[watchdog] as it stands now; an edit that broke config.toml changes nothing."""
        try:
            self._watchdog_settings = configuration.load(self.home.config).watchdog
        except TrainctlError as error:
            log.warning("%s: going on with the settings of before", error)
        return self._watchdog_settings

    def _start(self) -> None:
        """Start the process that trains."""
        read, write = os.pipe()
        words = [sys.executable, "-P", "-m", "trainctl", "--engine", "--home", str(self.home.root)]
        words += ["--lock-fd", str(self.lock.fd), "--beat-fd", str(write)]
        words += ["--supervisor-pid", str(os.getpid())]
        if self.hold:
            words += ["--hold", self.hold]
        ours = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")]))
        systemd = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        env = {k: v for k, v in os.environ.items() if k not in systemd}
        self.beat = Beat(changed=time.monotonic())
        self._rest = b""
        self._log_start = self.home.log.stat().st_size if self.home.log.exists() else 0
        try:
            # A group of its own: ctrl+c in a terminal reaches us alone, and what the child
            # started can be ended with it.
            self.child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                pass_fds=(self.lock.fd, write),
                process_group=0,
                env={**env, "PYTHONPATH": path},
            )
        finally:
            os.close(write)
        os.set_blocking(read, False)
        self._pipe = os.fdopen(read, "rb", buffering=0)
        log.info("the training process is %d", self.child.pid)

    def _watch(self) -> tuple[int, str]:
        """Until the child has ended: its exit code, and where the stacks are if it hung."""
        assert self.child is not None
        minutes = self._settings().stall_minutes
        while True:
            self._pass_on()
            code = self._ended(LOOK_SECONDS)
            self._listen()
            if code is not None:
                return code, ""
            self._tell()
            if minutes and self._stalled(60 * minutes):
                where = self._dump(minutes)
                self._kill()
                self.child.wait()
                return -signal.SIGKILL, where

    def _ended(self, seconds: float) -> int | None:
        assert self.child is not None
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    # -- the heartbeat --------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take what the child has said since the last look."""
        assert self._pipe is not None
        while data := self._pipe.read(65536):
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines[-50:]:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._take(json.loads(line))

    def _take(self, said: dict[str, Any]) -> None:
        beat = self.beat
        before, beat.state, beat.step = beat.step, str(said["state"]), int(said["step"])
        if beat.step < before:  # a rollback or an undo: what is trained from here on is progress
            self.highest = beat.step
        if float(said["token"]) != beat.token:
            beat.token, beat.changed = float(said["token"]), time.monotonic()
        if beat.step > self.highest:
            if self.highest >= 0:
                self.in_a_row = self.io_errors = 0
            self.highest = beat.step
        if not beat.ready:
            beat.ready = True
            self._ready()

    def _ready(self) -> None:
        """The child's socket answers."""
        notify(READY=1, MAINPID=os.getpid())
        assert self.child is not None
        if self._told:
            return
        self._told = True
        data = {
            "pid": self.child.pid,
            "supervisor_pid": os.getpid(),
            "socket": str(self.home.socket),
            "log": str(self.home.log),
        }
        with contextlib.suppress(OSError):
            if self.json:
                print_json(data, line=True)
            else:
                print(
                    f"trainctl: pid {data['pid']} listens on {self.home.socket};"
                    f" log {self.home.log}",
                    flush=True,
                )

    def _stalled(self, seconds: float) -> bool:
        if self.beat.state in NEVER_HANGS:
            return False
        if self.beat.state == "starting":
            seconds *= STARTING_FACTOR
        return time.monotonic() - self.beat.changed > seconds

    def _tell(self) -> None:
        """systemd hears at half its watchdog's time that we live, and in words what goes on."""
        now = time.monotonic()
        if now - self._notified < min(self._watchdog or 5.0, 5.0):
            return
        self._notified = now
        fields: dict[str, str | int] = {"STATUS": f"{self.beat.state}, step {self.beat.step}"}
        if self._watchdog:
            fields["WATCHDOG"] = 1
        if self.asked:  # a save of many gigabytes takes its time
            fields["EXTEND_TIMEOUT_USEC"] = 60_000_000
        notify(**fields)

    # -- ends -----------------------------------------------------------------------------------

    def _dump(self, minutes: float) -> str:
        """Have every thread's stack written; the one line that says so."""
        assert self.child is not None
        place = self.home.logs / "stacks.log"
        before = place.stat().st_size if place.exists() else 0
        with contextlib.suppress(OSError):
            self.child.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + DUMP_SECONDS
        size = before
        while time.monotonic() < deadline and self.child.poll() is None:
            time.sleep(LOOK_SECONDS)
            last, size = size, place.stat().st_size if place.exists() else 0
            if size > before and size == last:
                break
        state = f"no sign of life for {minutes:g} min while {self.beat.state}"
        if size > before:
            return f"{state}, after step {self.beat.step}; its stacks are in {place}"
        return f"{state}, after step {self.beat.step}; it did not even write its stacks"

    def _kill(self) -> None:
        """End the child and all that it started."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)

    def _clear(self) -> None:
        """After the child's end: nothing that it started may go on working in the store."""
        self._kill()
        self.lock.describe("daemon")
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _note(self, code: int, hung: str, oom: bool) -> None:
        """Leave a note for the next process, and a line in the log."""
        assert self.child is not None
        # An older process's line is no reason of this one's end.
        last = logs.last_error(self.home, self._log_start).removeprefix("trainctl: ")
        cause, error = ends.classify(code, hung=hung, oom=oom, last_line=last)
        log.error("process %d ended: %s: %s (%s)", self.child.pid, cause, error, advice(cause))
        if code == EXIT_IO:
            self.io_errors += 1
            if self.io_errors > 1:
                self.hold = f"I/O errors on the disk of {self.home.store}: {error}"
        end = lastend.LastEnd(cause=str(cause), error=error, pid=self.child.pid, time=time.time())
        try:
            lastend.write(self.home, end)
        except OSError as problem:
            log.error("the note for the next process cannot be written: %s", problem)

    def _give_up(self, limit: int) -> int:
        text = (
            f"{limit} restarts in a row without a step: given up"
            f" (the reasons are in {self.home.logs / 'supervisor.log'})"
        )
        log.error(text)
        print(f"trainctl: {text}", file=sys.stderr, flush=True)
        notify(STOPPING=1, STATUS=text)
        return 1

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.asked and (left := deadline - time.monotonic()) > 0:
            if self.home.stop_file.exists():
                return
            self._tell()
            time.sleep(min(left, LOOK_SECONDS))


def run(home: Home, *, lock_fd: int | None = None, json: bool = False) -> int:
    """Hold the lock and supervise; the exit code. Raises TrainctlError before anything started."""
    lock = (
        EngineLock.acquire(home, "daemon") if lock_fd is None else EngineLock.adopt(lock_fd, home)
    )
    lock.describe("daemon")
    home.create()
    logs.log_supervisor(home)
    try:
        return Supervisor(home, lock, json=json).run()
    except TrainctlError as error:
        log.error("%s", error)
        raise
