"""What a console knows at one moment: the plain data that the poller hands to the panes.

A part that did not change is the same object as before, so a pane compares identities.
Nothing here has a thread, a socket or a widget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tui.figures import real

if TYPE_CHECKING:
    from tui.series import Series, Track

Record = Mapping[str, Any]

ACTIVE = ("training", "preparing")
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
    """Answers at one step, the `steps` of all ticks of the present line, by its id how each example
    went over them, and how many improved, regressed and stayed at this tick."""

    step: int
    steps: tuple[int, ...]
    answers: tuple[Record, ...]
    histories: Mapping[str, History]
    changes: Record = field(default_factory=dict)


class QueueRows(tuple[Record, ...]):
    """The queue in the order in which it is shown, and what is counted in it, once."""

    @cached_property
    def states(self) -> Counter[str]:
        """How many items are in each state."""
        return Counter(str(item.get("state")) for item in self)

    @cached_property
    def at(self) -> dict[object, int]:
        """Where the item of each key stands."""
        return {key_of(item): place for place, item in enumerate(self)}


def key_of(item: Record) -> object:
    """What tells an item from all others; a file in the inbox has no id yet."""
    return item["id"] if real(item.get("id")) is not None else item.get("source")


@dataclass(frozen=True)
class CurveAim:
    """What the curves look at. `detail` is a range (first step, last step, points) that the whole
    history is too coarse for, its last step None while it follows; `branches` asks for those left
    behind; `overlay` are the names of the versions laid over each other, "" for the present line;
    `cursor` is the step whose facts are read out."""

    metric: str = "loss"
    detail: tuple[int, int | None, int] | None = None
    branches: bool = True
    overlay: tuple[str, ...] = ()
    cursor: int | None = None


@dataclass(frozen=True)
class Frame:
    """`at` is when `status` was answered (seconds since the epoch), `now` when this was made;
    `asked` is when the question for it was sent (time.monotonic()): an answer to a command is newer
    than every frame that was asked for before it came. `lost` says why no engine answers, "" while
    one does. `detail` is the finer series of a range, `left` the branches left behind, `overlay`
    the lines of versions by name, `under` the facts of the step under the
    cursor (its `asked` says which).
    """

    status: Record = field(default_factory=dict)
    at: float = 0.0
    now: float = 0.0
    asked: float = 0.0
    lost: str = ""
    problem: str = ""
    queue: QueueRows = field(default_factory=QueueRows)
    versions: Sequence[Record] = ()
    checkpoints: Sequence[Record] = ()
    events: Sequence[Record] = ()
    samples: Samples | None = None
    samples_why: str = ""
    """Why there are none, and what to do; "" where that is not known yet."""
    series: Mapping[str, Series] = field(default_factory=dict)
    detail: Mapping[str, Series] = field(default_factory=dict)
    marks: Sequence[Record] = ()
    left: Sequence[Track] = ()
    overlay: Mapping[str, Series] = field(default_factory=dict)
    under: Record = field(default_factory=dict)
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


def rows(result: Any, key: str) -> list[Record]:
    """A list of records, bare or under `key`."""
    found = result.get(key, ()) if isinstance(result, Mapping) else result
    return [row for row in found or () if isinstance(row, Mapping)]


def mark(answer: Record) -> str:
    """One character for how right an answer is: o exact, x close, . wrong."""
    return mark_of(bool(answer.get("exact")), real(answer.get("similarity")))


def mark_of(exact: bool, similarity: float | None) -> str:
    """As `mark`, of the two figures."""
    if exact:
        return RIGHT
    return "x" if similarity is not None and similarity >= CLOSE else "."


def in_order(queue: Sequence[Record]) -> list[Record]:
    """Items as they will run: what is running, then by priority and position, then the inbox.

    What waits for a checkpoint to contain it comes after that, what has ended last, the newest
    first.
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
        if state == "trained":
            return (3, position)
        if state in ENDED:
            return (4, -(real(item.get("updated")) or real(item.get("id")) or 0.0))
        return (2, position)

    return sorted(queue, key=rank)
