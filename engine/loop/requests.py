"""What faces ask of the engine thread: requests that wait for the next step boundary.

Any thread may submit; only the engine thread takes. A request's future is answered by the
engine thread once the effect is there (or is scheduled).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Request:
    """`requested_step` is the last step that was done when the request came."""

    command: str
    arguments: dict[str, Any]
    requested_step: int
    future: Future[Any] = field(default_factory=Future)

    def answer(self, result: Any) -> None:
        """The request's effect is there. A caller that has gone is no error."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(result)

    def refuse(self, error: BaseException) -> None:
        """The request is not done, for this reason."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Requests:
    """A queue of requests with a bell: `wake` rings it without a request."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._rung = False
        self._closed: BaseException | None = None

    def submit(self, request: Request) -> Future[Any]:
        """Queue a request; after `close` it is refused at once."""
        with self._condition:
            if self._closed is None:
                self._waiting.append(request)
                self._condition.notify_all()
                return request.future
        request.refuse(self._closed)
        return request.future

    def wake(self) -> None:
        """Something outside changed: let the engine thread look."""
        with self._condition:
            self._rung = True
            self._condition.notify_all()

    def take(self) -> Request | None:
        """The oldest request, or None."""
        with self._condition:
            return self._waiting.popleft() if self._waiting else None

    def take_first(self, commands: frozenset[str]) -> Request | None:
        """The oldest request of one of these commands; the others keep their order."""
        with self._condition:
            found = next((r for r in self._waiting if r.command in commands), None)
            if found is not None:
                self._waiting.remove(found)
            return found

    def waits_for(self, commands: frozenset[str]) -> bool:
        """Whether a request of one of these commands waits."""
        return any(command in commands for command in self.commands())

    def holds(self, command: str, **arguments: Any) -> bool:
        """Whether a request of this command with these arguments waits."""
        with self._condition:
            return any(
                request.command == command and arguments.items() <= request.arguments.items()
                for request in self._waiting
            )

    def rung(self) -> bool:
        """Whether the bell was rung since the last time this was asked."""
        with self._condition:
            rung, self._rung = self._rung, False
            return rung

    def waiting(self) -> bool:
        """Whether a request waits. No lock: asked for every sampled token."""
        return bool(self._waiting)

    def commands(self) -> list[str]:
        """The commands that wait, oldest first."""
        with self._condition:
            return [request.command for request in self._waiting]

    def wait(self, seconds: float) -> None:
        """Sleep until a request, the bell, or the time."""
        deadline = time.monotonic() + seconds
        with self._condition:
            while not self._waiting and not self._rung and self._closed is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._condition.wait(left)

    def close(self, reason: BaseException) -> None:
        """The engine thread ends: refuse what waits and what comes."""
        with self._condition:
            self._closed = reason
            left, self._waiting = list(self._waiting), deque()
            self._condition.notify_all()
        for request in left:
            request.refuse(reason)
