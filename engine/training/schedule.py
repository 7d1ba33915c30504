"""The learning rate as one pure function of the global step.

Nothing here counts by itself over files or restarts: the position is set from the global step,
so that a schedule cannot be lost, reset or advanced twice.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from queue_store.config import Training

FLOOR = 0.1
"""The share of the base rate at which the falling schedules end: the queue has no end, and a rate
of zero would train on for ever without learning."""

WSD_DECAY = 0.1
"""The share of the horizon over which WSD falls, after warm-up and a long stable phase
(Hu et al. 2024, MiniCPM)."""


def rate_factor(step: int, *, warmup_steps: int, schedule: str, schedule_steps: int) -> float:
    """The factor on every base rate for the step that follows `step` global steps done.

    The warm-up rises linearly, from 1/warmup_steps at the first step to 1 at its last; then
    "constant" stays at 1, "linear" and "cosine" fall to FLOOR at `schedule_steps`, "wsd" stays at
    1 and falls linearly to FLOOR over the last WSD_DECAY of the horizon. Behind the horizon the
    factor stays where it ended.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    start = warmup_steps
    if schedule == "wsd":
        start = max(warmup_steps, schedule_steps - math.ceil(WSD_DECAY * schedule_steps))
    progress = min(1.0, max(0.0, (step - start) / max(1, schedule_steps - start)))
    if schedule == "cosine":
        return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule in ("linear", "wsd"):
        return 1 - (1 - FLOOR) * progress
    raise ValueError(f"unknown schedule {schedule!r}")


class GlobalSchedule:
    """Sets the rate of every param group of `optimizer` from the global step.

    Has the words of torch's schedulers that Trainer uses (`step`, `get_last_lr`). Each group keeps
    its own base rate, under `base_lr` in the group. `global_step` is the number of steps done.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, training: Training, global_step: int = 0
    ) -> None:
        self.optimizer = optimizer
        self.training = training
        self.global_step = global_step
        self.set(global_step)

    def factor(self, global_step: int) -> float:
        return rate_factor(
            global_step,
            warmup_steps=self.training.warmup_steps,
            schedule=self.training.schedule,
            schedule_steps=self.training.schedule_steps,
        )

    @property
    def rate(self) -> float:
        """`training.learning_rate` times the factor: the rate of the next step."""
        return self.training.learning_rate * self.factor(self.global_step)

    def set(self, global_step: int) -> None:
        """Put the rates of the step that follows `global_step` steps into the groups."""
        self.global_step = global_step
        factor = self.factor(global_step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def step(self) -> None:
        self.set(self.global_step + 1)

    def get_last_lr(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        return {"global_step": self.global_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.set(int(state["global_step"]))
