"""What is read once of a home, and the violations found in it so far."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Ack = dict[str, Any]
"""What somebody outside was told, by its `kind`."""


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold, by its number in the storage contract."""

    invariant: int
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.text}"


@dataclass
class Looked:
    """What is read once: rows by id or name, and the violations found so far."""

    store: Path
    recovered: bool
    damaged: frozenset[str]
    db: sqlite3.Connection
    metrics: sqlite3.Connection | None
    found: list[Violation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.items = {r["id"]: r for r in self.db.execute("SELECT * FROM items")}
        self.checkpoints = {r["id"]: r for r in self.db.execute("SELECT * FROM checkpoints")}
        self.versions = {r["name"]: r for r in self.db.execute("SELECT * FROM versions")}
        self.runs = {r["id"]: r for r in self.db.execute("SELECT * FROM runs")}
        self.events = list(self.db.execute("SELECT * FROM events ORDER BY seq"))
        self.head = self.db.execute("SELECT * FROM head").fetchone()

    def wrong(self, invariant: int, text: str) -> None:
        self.found.append(Violation(invariant, text))

    def event(self, kind: str, **columns: Any) -> bool:
        """Whether the journal has an event of that kind with these columns."""
        return any(
            e["kind"] == kind and all(e[name] == value for name, value in columns.items())
            for e in self.events
        )

    def said_of(self, version: str, kind: str) -> bool:
        """Whether the journal has an event of a kind that begins so about a version."""
        return any(
            e["kind"].startswith(kind) and json.loads(e["data"]).get("version") == version
            for e in self.events
        )

    def gone(self, name: str) -> bool:
        """Whether the journal says that a version or checkpoint of that name was removed."""
        words = ("removed", "delet", "trash")
        return any(
            any(w in e["kind"] for w in words)
            and (name in e["text"] or json.loads(e["data"]).get("version") == name)
            for e in self.events
        )
