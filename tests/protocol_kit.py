"""A served engine and clients that send it whatever bytes a test wants."""

from __future__ import annotations

from typing import Any

import orjson

from engine.sessions.client import connect
from engine.sessions.dispatch import Dispatcher
from engine.sessions.server import Limits, Server
from engine.sessions.wire import at_socket, new_socket
from queue_store.home import Home
from tests.stepping_engine import SteppingEngine
from tests.waiting import wait_until


class Raw:
    """A client that sends whatever bytes the test wants."""

    def __init__(self, home: Home, timeout: float = 60) -> None:
        self.link = new_socket()
        self.link.settimeout(timeout)
        at_socket(home, self.link.connect)
        self.rest = b""

    def send(self, data: bytes) -> None:
        self.link.sendall(data)

    def line(self) -> Any:
        """The next answer; None when the engine closed the connection."""
        while b"\n" not in self.rest:
            try:
                data = self.link.recv(1 << 16)
            except (ConnectionResetError, BrokenPipeError):
                return None
            if not data:
                return None
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return orjson.loads(line)

    def ask(self, **request: Any) -> Any:
        self.send(orjson.dumps(request) + b"\n")
        return self.line()

    def close(self) -> None:
        self.link.close()


class World:
    """A served engine and the raw clients of a test."""

    def __init__(self, home: Home, limits: Limits | None = None) -> None:
        self.home = home
        self.engine = SteppingEngine(home)
        self.dispatcher = Dispatcher(self.engine)
        self.server = Server(home, self.dispatcher, limits)
        self.server.start()
        self.clients: list[Raw] = []

    def client(self) -> Raw:
        self.clients.append(Raw(self.home))
        return self.clients[-1]

    def steps_on(self) -> None:
        """The engine steps, and answers a well-behaved client, whatever happened before."""
        before = self.engine.steps
        wait_until(lambda: self.engine.steps > before, 5, what="the engine steps on")
        session = connect(self.home, timeout=60)
        assert session.request("snapshot", timeout=60)["state"] == "training"
        session.close()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.server.stop()
        self.dispatcher.close()
        self.engine.end()
