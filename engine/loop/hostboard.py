"""The evaluation hosts as the engine knows them: idle, busy, unreachable since when, and meters.

A place has one occupant at a time: a job of ours, or a look. What is shown is built anew for
each who asks; fields are written by the keeper's threads alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from engine.messages import known, unknown
from queue_store.config import Host
from queue_store.database import now
from queue_store.safe import safe_line

Json = dict[str, Any]
IDLE, BUSY, UNREACHABLE, UNKNOWN = "idle", "busy", "unreachable", "unknown"
FIRST_REST, LONGEST_REST, MEND_REST = 5.0, 300.0, 600.0
"""Seconds until a host is looked at again: doubled after each failure, and where somebody must
mend something first."""
STALE = 300.0
"""Seconds after which what is known of an idle host is looked at again."""
MOST_CARDS = 16
NUMBERS = ("utilization", "memory_used", "memory_total", "temperature", "power")
NOT_YET = unknown("not asked yet")


@dataclass
class Place:
    """A host, or this machine. `look_at` (monotonic) is when it may be looked at again."""

    name: str
    settings: Host | None = None
    """As config.toml has them: with others it is another host of that name."""
    state: str = UNKNOWN
    error: str = ""
    seen: float | None = None
    idle_since: float | None = None
    gpus: Any = field(default_factory=lambda: NOT_YET)
    ram: Any = field(default_factory=lambda: NOT_YET)
    job: int | None = None
    taken: bool = False
    look_at: float = 0.0
    stage: str = ""
    model: str = ""
    progress: Json = field(default_factory=dict)
    _failures: int = 0

    def met(self, state: str, error: str = "") -> None:
        """The host answered, and is idle or busy."""
        if state == IDLE and self.state != IDLE:
            self.idle_since = now()
        if state != IDLE:
            self.idle_since = None
        self.state, self.error, self.seen = state, error, now()
        self._failures = 0
        self.look_at = time.monotonic() + STALE

    def rest(self, error: str, *, busy: bool = False, mend: bool = False) -> None:
        """The host could not do it; it is looked at again after a while. `busy`: somebody else has
        it; `mend`: somebody must act first."""
        self.state, self.error, self.idle_since = (BUSY if busy else UNREACHABLE), error, None
        if busy:
            self.seen = now()
        pause = min(LONGEST_REST, FIRST_REST * 2**self._failures)
        self.look_at = time.monotonic() + (MEND_REST if mend else pause)
        self._failures = min(self._failures + 1, 10)

    def measured(self, gpus: Any, ram: Any) -> None:
        """What the host says of its cards and memory: foreign words, cut to the known shape."""
        self.gpus, self.ram, self.seen = cards(gpus), memory(ram), now()

    def to_json(self) -> Json:
        """The host as `jobs` and the status have it."""
        return {
            "name": self.name,
            "state": self.state,
            "error": self.error,
            "seen": known(self.seen, "never reached since the engine started"),
            "idle_since": known(self.idle_since, f"it is {self.state}"),
            "job": known(self.job, "no job of this home runs there"),
            "gpus": self.gpus,
            "ram": self.ram,
        }

    def work(self) -> Json | None:
        """The job that runs there: {id, model, host, state, items, answered, sent, of}."""
        job = self.job
        if job is None:
            return None
        told = self.progress
        return {
            **{"id": job, "model": self.model, "host": self.name, "state": self.stage},
            "items": known(told.get("items"), "not counted yet"),
            "answered": known(told.get("answered"), "not counted yet"),
            "sent": known(told.get("sent"), "nothing is being sent"),
            "of": known(told.get("of"), "nothing is being sent"),
        }


def cards(value: Any) -> Any:
    """`gpus` of a host in the shape of the status's, or unknown."""
    if not isinstance(value, list):
        why = value.get("unknown") if isinstance(value, dict) else None
        return unknown(safe_line(str(why or "the host does not say"))[:200])
    found = []
    for card in value[:MOST_CARDS]:
        if isinstance(card, dict):
            name = safe_line(str(card.get("name", "?")))[:80]
            found.append({"name": name, **{key: _number(card.get(key)) for key in NUMBERS}})
    return found


def memory(value: Any) -> Any:
    """`ram` of a host: {used, total} in bytes, or unknown."""
    if not isinstance(value, dict) or "total" not in value:
        return unknown("the host does not say")
    return {key: _number(value.get(key)) for key in ("used", "total")}


def _number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return known(value, "the host does not say")
    return unknown("the host does not say")
