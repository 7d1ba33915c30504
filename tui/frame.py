"""What a console knows at one moment: the plain data that the poller hands to the panes.

A part that did not change is the same object as before, so a pane compares identities.
Nothing here has a thread, a socket or a widget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tui.figures import real

if TYPE_CHECKING:
    from tui.series import Series

Record = Mapping[str, Any]

ACTIVE = ("training", "preparing", "trained")
WAITING = ("paused", "queued")
ENDED = ("done", "failed", "skipped", "rejected")
PRIORITIES = ("high", "normal", "low")
CLOSE = 0.8
"""Similarity to the expected answer from which a wrong one counts as close."""


@dataclass(frozen=True)
class Samples:
    """Answers at one step, and how one of the examples went over the steps.

    `history` are the marks of example `of`, oldest first: o exact, x close, . wrong.
    """

    step: int
    steps: tuple[int, ...]
    answers: tuple[Record, ...]
    of: str = ""
    history: str = ""


@dataclass(frozen=True)
class Frame:
    """`at` is when `status` was answered (seconds since the epoch), `now` when this was made;
    `lost` says why no engine answers, "" while one does."""

    status: Record = field(default_factory=dict)
    at: float = 0.0
    now: float = 0.0
    lost: str = ""
    problem: str = ""
    queue: Sequence[Record] = ()
    versions: Sequence[Record] = ()
    checkpoints: Sequence[Record] = ()
    events: Sequence[Record] = ()
    samples: Samples | None = None
    series: Mapping[str, Series] = field(default_factory=dict)
    detail: Mapping[str, Series] = field(default_factory=dict)
    meters: Record = field(default_factory=dict)
    """The machine over the last minutes, as the engine's `meters` answers; {} before it did."""

    @property
    def state(self) -> str:
        return str(self.status.get("state", ""))

    @property
    def step(self) -> int | None:
        number = real(self.status.get("global_step"))
        return None if number is None else int(number)

    @property
    def item(self) -> Record | None:
        item = self.status.get("item")
        return item if isinstance(item, Mapping) and "id" in item else None


def mark(answer: Record) -> str:
    """One character for how right an answer is: o exact, x close, . wrong."""
    if answer.get("exact"):
        return "o"
    likeness = real(answer.get("similarity"))
    return "x" if likeness is not None and likeness >= CLOSE else "."


def in_order(queue: Sequence[Record]) -> list[Record]:
    """Items as they will run: what is running, then by priority and position, then the rest.

    What has ended comes last, the newest first.
    """

    def rank(item: Record) -> tuple[float, ...]:
        state = str(item.get("state"))
        position = real(item.get("position")) or 0.0
        if state in ACTIVE:
            return (0, ACTIVE.index(state), position)
        if state in WAITING:
            word = str(item.get("priority"))
            level = PRIORITIES.index(word) if word in PRIORITIES else len(PRIORITIES)
            return (1, level, WAITING.index(state), position)
        if state in ENDED:
            return (3, -(real(item.get("updated")) or real(item.get("id")) or 0.0))
        return (2, position)

    return sorted(queue, key=rank)
