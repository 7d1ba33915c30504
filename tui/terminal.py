"""The terminal: is there one, who may write to it, and what happens when it goes away.

Libraries write to file descriptors 1 and 2 (progress bars, warnings, NCCL); that would destroy
the screen. `Terminal` gives the application a descriptor of its own and points 1 and 2 at a log.
Without handlers a hangup or SIGTERM would leave the terminal in its alternate screen.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.cells import cell_len

SCREEN_EXIT_WITHIN = 2.0
STALL_SECONDS = 0.2
SIGNALS = (signal.SIGHUP, signal.SIGTERM)


def missing() -> str:
    """Why a full-screen console cannot run here, "" if it can."""
    if os.environ.get("TERM", "") in ("", "dumb"):
        return f"the terminal cannot show a full screen (TERM={os.environ.get('TERM', '')!r})"
    for name, descriptor in (("input", 0), ("output", 1), ("error output", 2)):
        try:
            if not os.isatty(descriptor):
                return f"the {name} is not a terminal"
        except OSError:
            return f"there is no {name}"
    return ""


def unicode_terminal(environ: bytes | None = None) -> bool:
    """Whether the locale lets the terminal show more than ASCII.

    The locale is that of the process's start (`environ`, NUL-separated): Python itself replaces
    C by C.UTF-8 in its own environment. Where none is set, or none that names a character set,
    UTF-8 is assumed, as other full-screen programs do.
    """
    if environ is None:
        try:
            environ = Path("/proc/self/environ").read_bytes()
        except OSError:
            environ = b"\0".join(os.fsencode(f"{k}={v}") for k, v in os.environ.items())
    given = dict(line.partition(b"=")[::2] for line in environ.split(b"\0"))
    locale = next((given[k] for k in (b"LC_ALL", b"LC_CTYPE", b"LANG") if given.get(k)), b"")
    name, _, charset = locale.partition(b".")
    if not charset:
        return name not in (b"C", b"POSIX")
    return charset.partition(b"@")[0].lower().replace(b"-", b"") == b"utf8"


def to_ascii(text: str) -> str:
    """`text` with a question mark in every column of what is not ASCII."""
    if text.isascii():
        return text
    return "".join(c if c.isascii() else "?" * cell_len(c) for c in text)


class _Output:
    """The application's own way to the terminal: what sys.__stderr__ is while it runs.

    Writing never raises: once the terminal has gone, everything is thrown away and `gone` is
    called once. A writer that died would leave the application waiting for it for ever; so would
    one that hangs in the kernel, so the descriptor does not block and `drop` ends the waiting.
    """

    def __init__(self, descriptor: int, gone: Callable[[], None], encoding: str = "utf-8") -> None:
        self.encoding = encoding
        self._descriptor = descriptor
        self._gone: Callable[[], None] | None = gone
        self._dropped = False

    def write(self, text: str) -> int:
        shown = to_ascii(text) if self.encoding == "ascii" else text
        left = memoryview(shown.encode("utf-8", "replace"))
        while left and not self._dropped:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                self._wait()
            except OSError:
                self._lose()
        return len(text)

    def _wait(self) -> None:
        """Until the terminal takes more, or for as long as one may take to notice `drop`."""
        ready = select.poll()
        ready.register(self._descriptor, select.POLLOUT)
        ready.poll(STALL_SECONDS * 1000)

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return True

    def drop(self) -> None:
        """Throw away what is being written and all that comes; from any thread."""
        self._dropped = True

    def close(self) -> None:
        self._dropped = True
        os.close(self._descriptor)

    def _lose(self) -> None:
        self._dropped = True
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()


def _own_descriptor() -> int:
    """The terminal of fd 2, opened anew where that is possible: then it can be set not to block
    without changing that for the shell, which shares fd 2's state."""
    try:
        return os.open(os.ttyname(2), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return os.dup(2)


class Terminal:
    """Holds the terminal for one application: a context in which fds 1 and 2 are the log's.

    `gone` is called from any thread when the terminal stops taking output; with the encoding
    "ascii" nothing else reaches the terminal. `released` is true
    once it has gone away; then fds 0 to 2 stay on the log after the context, and whoever
    trains on in this process writes there.
    """

    def __init__(self, log: Path, gone: Callable[[], None], encoding: str = "utf-8") -> None:
        self._log = log
        self._encoding = encoding
        self._gone = gone
        self._saved: list[int] = []
        self._streams: tuple[Any, Any] | None = None
        self._attributes: list[Any] | None = None
        self._output: _Output | None = None
        self.released = False

    def __enter__(self) -> Terminal:
        sys.stdout.flush()
        sys.stderr.flush()
        self._attributes = termios.tcgetattr(0)
        self._saved = [os.dup(1), os.dup(2)]
        # Textual draws on sys.__stderr__ and asks sys.__stdout__ for the terminal's size.
        self._output = _Output(_own_descriptor(), self._gone, self._encoding)
        self._streams = (sys.__stdout__, sys.__stderr__)
        _onto(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 1, 2)
        sys.__stdout__ = sys.__stderr__ = self._output  # type: ignore[misc, assignment]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._streams is not None and self._output is not None
        sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc]
        self._output.close()
        try:
            termios.tcsetattr(0, termios.TCSANOW, self._attributes or [])
        except (termios.error, TypeError):
            self.released = True
        if self.released:
            _onto(Path(os.devnull), os.O_RDONLY, 0)
        else:
            for target, saved in zip((1, 2), self._saved, strict=True):
                os.dup2(saved, target)
        for saved in self._saved:
            os.close(saved)

    def drop(self) -> None:
        """Stop waiting for a terminal that takes nothing: throw away what was to be written. It
        counts as gone, for whoever writes to it next would wait as long."""
        assert self._output is not None
        self.released = True
        self._output.drop()


def _onto(path: Path, flags: int, *targets: int) -> None:
    """Make the descriptors `targets` those of the file at `path`."""
    descriptor = os.open(path, flags, 0o600)
    for target in targets:
        os.dup2(descriptor, target)
    os.close(descriptor)


class Signals:
    """A context in which SIGHUP and SIGTERM call `exit_screen` instead of killing.

    When the screen is not gone `within` seconds later (its writer may be stuck on a dead
    terminal), `give_up` is called; the engine's save is never bounded by this.
    """

    def __init__(
        self,
        exit_screen: Callable[[int], None],
        give_up: Callable[[], None],
        within: float = SCREEN_EXIT_WITHIN,
    ) -> None:
        self._exit_screen = exit_screen
        self._give_up = give_up
        self._within = within
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self.received = 0

    def __enter__(self) -> Signals:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: object) -> None:
        first, self.received = not self.received, self.received or number
        if first:
            self._timer = threading.Timer(self._within, self._give_up)
            self._timer.daemon = True
            self._timer.start()
        self._exit_screen(number)
