"""A session: what a face holds to talk to an engine, whether it runs in this process or not.

A face never sees the engine's objects, only answers in JSON's types. Light to import: the
dispatcher of a session in this process is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Protocol

from engine.faults import Internal, NoAnswer
from engine.messages import COMMANDS, Kind, spelled
from queue_store.errors import NoEngine, TrainctlError

READ_SECONDS = 30.0


def patience(command: str, timeout: float | None) -> float | None:
    """Seconds to wait for an answer: what the caller says, else 30 for what needs no step, and
    no limit for what happens at a step boundary (a step may take minutes), reads versions or asks
    a host or a child (which have a limit of their own)."""
    if timeout is not None:
        return timeout
    spec = COMMANDS.get(command)
    if spec is not None and spec.kind in (Kind.ENGINE, Kind.UPKEEP, Kind.LOOK, Kind.ASK):
        return None
    return READ_SECONDS


def wait(command: str, answer: Future[Any], timeout: float | None) -> Any:
    """The result of a request under way. Raises the TrainctlError family only."""
    seconds = patience(command, timeout)
    try:
        return answer.result(seconds)
    except TrainctlError:
        raise
    except FutureTimeout:
        raise NoAnswer(
            f"the engine did not answer {command} within {seconds:g} s",
            mend="it may still do it: trainctl log tells",
        ) from None
    except CancelledError:
        raise NoEngine("the engine has ended") from None
    except Exception as error:
        raise Internal(f"{command} failed: {error}") from error


class Session(Protocol):
    """Thread-safe: several threads of a face may ask at once, and a slow answer holds up
    nobody but the one who waits for it."""

    @property
    def local(self) -> bool:
        """Whether the engine thread is in this process."""
        ...

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """Ask and wait for the result; arguments that are None are left out, and `id=` names an
        item as `item=` does.

        Raises the TrainctlError family: UsageError, Refused, NotFound …, NoEngine when the
        connection is gone, NoAnswer after `timeout` seconds (see `patience`).
        """
        ...

    def close(self) -> None:
        """Leave; the engine goes on. Idempotent."""
        ...


class Begins(Protocol):
    """What LocalSession needs of a dispatcher."""

    def begin(self, command: str, arguments: Mapping[str, Any]) -> Future[Any]: ...


class LocalSession:
    """A session with the engine thread of this process."""

    local = True

    def __init__(self, dispatcher: Begins) -> None:
        self._dispatcher = dispatcher
        self._closed = False

    def request(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """See Session.request."""
        if self._closed:
            raise NoEngine("this session was closed")
        return wait(command, self._dispatcher.begin(command, spelled(arguments)), timeout)

    def close(self) -> None:
        """See Session.close."""
        self._closed = True
