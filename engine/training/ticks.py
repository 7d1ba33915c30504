"""The time budget of monitoring: when a validation or a sample tick may run.

Validation and samples together stay under `budget`, as a share of the training time of this
process. A tick that is due while there is no budget left is put off to the first step where
there is; it is never skipped in silence, for its kind stays due. A person's prompt does not wait
for the budget; what it took is made up for by the ticks after it.
"""

from __future__ import annotations

VALIDATION = "validation"
SAMPLES = "samples"


class Monitor:
    """Lives as long as the engine's thread, over items."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.training_seconds = 0.0
        self.spent = 0.0
        self._cost: dict[str, float] = {}
        self._due: set[str] = set()

    @property
    def share(self) -> float:
        """Seconds of ticks a second of training, so far."""
        return self.spent / self.training_seconds if self.training_seconds else 0.0

    def stepped(self, seconds: float, step: int, eval_steps: int, sample_steps: int) -> None:
        """A step was trained; marks what falls due at the global step `step` (0 = never)."""
        self.training_seconds += seconds
        for kind, every in ((VALIDATION, eval_steps), (SAMPLES, sample_steps)):
            if not every:
                self._due.discard(kind)
            elif step % every == 0:
                self._due.add(kind)

    def may_run(self, kind: str) -> bool:
        """Whether the kind is due and the budget has room for what it cost the last time."""
        room = self.budget * self.training_seconds - self.spent
        return kind in self._due and self.budget > 0 and room >= self._cost.get(kind, 0.0)

    @property
    def debt(self) -> float:
        """Seconds that were spent over the budget (below 0: still left)."""
        return self.spent - self.budget * self.training_seconds

    def asked(self, seconds: float) -> None:
        """A person's prompt held training up for so long: ticks wait until that is made up for."""
        self.spent += seconds

    def ran(self, kind: str, seconds: float, finished: bool) -> None:
        """The tick took `seconds`; broken off (not `finished`), it stays due."""
        self.spent += seconds
        if finished:
            self._cost[kind] = seconds
            self._due.discard(kind)
