"""When a validation or a sample tick is due, and when there is time for it.

Validations and samples come on a grid of the branch's steps (eval_steps, sample_steps: what is
compared over weeks). Samples come at a schedule of the item's own steps as well (samples.schedule),
dense early and sparse later: answers change most where new rows begin to train, and in a queue of
weeks that is at each item's beginning, not only at the branch's.

Validation and samples together stay under `budget`, as a share of the training time of this
process. A tick that is due while there is no budget left is put off to the first step where
there is; it is never skipped in silence, for its kind stays due, and its result says since when.
A person's prompt does not wait for the budget; what it took is made up for by the ticks after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from engine.training.controls import Place

VALIDATION = "validation"
SAMPLES = "samples"
LONG_SECONDS = 2.0
"""Seconds from which on a tick is told while it runs; a shorter one would only flicker."""


def samples_due(
    step: int, item_step: int, item_steps: int, every: int, schedule: Collection[int]
) -> bool:
    """Whether samples fall due at global step `step`, which is step `item_step` of an item of
    `item_steps`. `every` 0 and an empty `schedule` switch each its part off; with a schedule, an
    item is asked once more when its last step is done, however few it has."""
    on_grid = bool(every) and item_step > 0 and step % every == 0
    return on_grid or item_step in schedule or (bool(schedule) and item_step == item_steps)


@dataclass(frozen=True)
class PutOff:
    """A tick that waits: since when it is due, and how many seconds of training the budget needs
    before it has room for it (0: it comes after the next step)."""

    due: Place
    seconds: float


class Monitor:
    """Lives as long as the engine's thread, over items."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.training_seconds = 0.0
        self.spent = 0.0
        self.prompted = 0.0
        """Of it, seconds that a person's prompts took."""
        self._cost: dict[str, float] = {}
        self._due: dict[str, Place] = {}

    def dump(self) -> dict[str, Any]:
        """All that it knows, as JSON: where another process trains, it keeps the time there."""
        due = {kind: [at.branch, at.global_step] for kind, at in self._due.items()}
        return {
            "budget": self.budget,
            "training_seconds": self.training_seconds,
            "spent": self.spent,
            "prompted": self.prompted,
            "cost": dict(self._cost),
            "due": due,
        }

    def take(self, said: Mapping[str, Any]) -> None:
        """Know what the one of `dump` knew."""
        self.budget = float(said["budget"])
        self.training_seconds = float(said["training_seconds"])
        self.spent = float(said["spent"])
        self.prompted = float(said["prompted"])
        self._cost = {kind: float(seconds) for kind, seconds in said["cost"].items()}
        self._due = {kind: Place(*at) for kind, at in said["due"].items()}

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Monitor:
        """One that knows what the one of `dump` knew."""
        made = cls(float(said["budget"]))
        made.take(said)
        return made

    @property
    def share(self) -> float:
        """Seconds of ticks a second of training, so far."""
        return self.spent / self.training_seconds if self.training_seconds else 0.0

    def stepped(self, seconds: float) -> None:
        """A step was trained."""
        self.training_seconds += seconds

    def fall_due(self, kind: str, at: Place) -> None:
        """A tick of this kind is due; one that is put off stays due since it was first."""
        self._due.setdefault(kind, at)

    def forget(self, kind: str) -> None:
        """Ticks of this kind are switched off."""
        self._due.pop(kind, None)

    def takes_long(self, kind: str) -> bool:
        """Whether a tick of this kind takes so long that one wants to read what it is: by what it
        cost the last time, and the first one of all."""
        return self._cost.get(kind, LONG_SECONDS) >= LONG_SECONDS

    def may_run(self, kind: str) -> bool:
        """Whether the kind is due and the budget has room for what it cost the last time."""
        return kind in self._due and self.budget > 0 and self._lacks(kind) <= 0

    def put_off(self, kind: str) -> PutOff | None:
        """The tick of this kind that is due and did not run yet, None without one. Where there is
        no budget at all, ticks are switched off."""
        if kind not in self._due or not self.budget:
            return None
        return PutOff(self._due[kind], max(0.0, self._lacks(kind)) / self.budget)

    def _lacks(self, kind: str) -> float:
        """Seconds by which the budget is too small for what the kind cost the last time."""
        return self.debt + self._cost.get(kind, 0.0)

    @property
    def debt(self) -> float:
        """Seconds that were spent over the budget (below 0: still left)."""
        return self.spent - self.budget * self.training_seconds

    @property
    def prompts_debt(self) -> float:
        """Seconds that prompts alone took over the budget (below 0: still left). A tick that took
        long is nobody's fault who asks."""
        return self.prompted - self.budget * self.training_seconds

    def asked(self, seconds: float) -> None:
        """A person's prompt held training up for so long: ticks wait until that is made up for."""
        self.spent += seconds
        self.prompted += seconds

    def ran(self, kind: str, seconds: float, finished: bool) -> None:
        """The tick took `seconds`; broken off (not `finished`), it stays due."""
        self.spent += seconds
        if finished:
            self._cost[kind] = seconds
            self._due.pop(kind, None)
