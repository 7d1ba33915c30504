"""The process of an evaluation job, as the engine sees it: started, listened to, broken off.

It has the lowest priority and dies with the thread that waits for it (engine.judging.job). Broken
off it is asked first, so that it keeps what was answered, and killed where it does not listen.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from queue_store import programs
from queue_store.errors import TrainctlError
from queue_store.safe import safe_line

Json = dict[str, Any]
MODULE = "engine.judging.job"
LOOK_SECONDS = 0.25
END_SECONDS = 3.0
"""How long it may take to end once it was asked to: what was answered is written meanwhile, and an
engine that ends waits for it. One that still loads a model has nothing to write, and is killed."""
LONGEST = 1 << 20
"""Bytes of a line."""


class Died(TrainctlError):
    """The process ended without a word on what came of it."""


def run(order: Mapping[str, Any], told: Callable[[Json], None], ending: Callable[[], bool]) -> Json:
    """The last line of the process that gets `order`; `told` hears the others. It is asked to end
    once `ending` says so. Blocks. Raises Died, OSError."""
    command = programs.lowered(programs.python(MODULE), signal.SIGKILL)
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            env=programs.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        ) as child,
    ):
        try:
            _say(child, order)
            last = _listen(child, told, ending)
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise Died("the process of the job did not end") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise Died(f"the process of the job made no sense: {error}") from None
        finally:
            if child.poll() is None:
                child.kill()
        if not last.get("ok"):
            raise Died(_why(child.returncode, last, errors))
        return last


def _say(child: subprocess.Popen[bytes], words: Mapping[str, Any]) -> None:
    assert child.stdin is not None
    with contextlib.suppress(OSError):  # it ended: its output says so, too
        child.stdin.write(json.dumps(words).encode() + b"\n")


def _listen(
    child: subprocess.Popen[bytes], told: Callable[[Json], None], ending: Callable[[], bool]
) -> Json:
    assert child.stdout is not None
    fd, rest, asked = child.stdout.fileno(), b"", 0.0
    last: Json = {}
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if asked:
                if time.monotonic() - asked > END_SECONDS:
                    raise Died("the process of the job did not end when it was asked to")
            elif ending():
                asked = time.monotonic()
                _say(child, {"cancel": True})
            if not selector.select(LOOK_SECONDS):
                continue
            data = os.read(fd, 1 << 16)
            if not data:
                return last
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LONGEST:
                raise ValueError("a line without an end")
            for line in lines:
                last = json.loads(line)
                if "ok" not in last:
                    told(last)


def _why(code: int, last: Json, errors: IO[bytes]) -> str:
    """Why there is no outcome, in a few words."""
    if last.get("error"):
        return str(last["error"])
    if code < 0:
        return f"the process of the job was killed by signal {-code} ({signal.Signals(-code).name})"
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    tail = f": {safe_line(lines[-1])[:300]}" if lines else ""
    return f"the process of the job ended with exit status {code}{tail}"
