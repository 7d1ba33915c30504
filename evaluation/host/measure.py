"""How fast a link to a host is: the round trip of a frame, and bytes a second both ways."""

from __future__ import annotations

import time

from evaluation.host.channel import expect
from evaluation.host.session import Session

SECONDS = 60.0
BLOCK = 4 << 20


def round_trips(session: Session, times: int) -> list[float]:
    """Milliseconds from a small frame to its answer, each."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        session.channel.send({"kind": "ping", "echo": ""})
        expect(session.channel, "pong", SECONDS)
        found.append((time.perf_counter() - started) * 1000)
    return found


def throughput(session: Session, block: int = BLOCK) -> float:
    """Bytes a second of a block that goes there and comes back."""
    started = time.perf_counter()
    session.channel.send({"kind": "ping", "echo": "x" * block})
    expect(session.channel, "pong", SECONDS)
    return 2 * block / (time.perf_counter() - started)
