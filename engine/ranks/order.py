"""What an agent and its ranks are told of their launch, as one object of JSON. No torch here."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

ENVIRONMENT = "TRAINCTL_LAUNCH"
"""The variable in which a rank finds its order."""


@dataclass(frozen=True)
class Order:
    """One launch on one host. `home` is at the same path on all; `parent` is the process that gives
    the order; `socket` where rank 0 reaches the engine, "" on a further host; `folder` is for what
    ranks leave to be read by their agent, `stacks` the file that stacks are written to; `address`
    by which others reach this host."""

    id: str
    home: str
    parent: int
    each: int
    nodes: int
    kind: str
    device: str
    rendezvous: str
    address: str
    join_seconds: float
    timeout_seconds: float
    folder: str
    stacks: str
    socket: str = ""

    @property
    def size(self) -> int:
        """Ranks of the whole training."""
        return self.each * self.nodes

    @property
    def leads(self) -> bool:
        """Whether this is the engine's host."""
        return bool(self.socket)

    def for_ranks(self, agent: int) -> Order:
        """The same from the agent to its ranks."""
        return dataclasses.replace(self, parent=agent)

    def dumps(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def loads(text: str | bytes) -> Order:
        return Order(**json.loads(text))
