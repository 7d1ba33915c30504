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
RIGHT = "o"
"""The mark of an exact answer."""
CLOSE = 0.8
"""Similarity to the expected answer from which a wrong one counts as close."""


History = tuple[tuple[int, str], ...]
"""(step, mark) of each tick at which an example was answered, oldest first."""


@dataclass(frozen=True)
class Samples:
    """Answers at one step, the `steps` of all ticks of the present line, and by its id how each
    example went over them."""

    step: int
    steps: tuple[int, ...]
    answers: tuple[Record, ...]
    histories: Mapping[str, History]


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
    samples_why: str = ""
    """Why there are none, and what to do; "" where that is not known yet."""
    series: Mapping[str, Series] = field(default_factory=dict)
    detail: Mapping[str, Series] = field(default_factory=dict)

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
    return mark_of(bool(answer.get("exact")), real(answer.get("similarity")))


def mark_of(exact: bool, similarity: float | None) -> str:
    """As `mark`, of the two figures."""
    if exact:
        return RIGHT
    return "x" if similarity is not None and similarity >= CLOSE else "."


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
