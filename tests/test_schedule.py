"""The learning rate is one pure function of the global step."""

from __future__ import annotations

import itertools

import pytest
import torch

from engine.training.schedule import FLOOR, GlobalSchedule, rate_factor
from tests.training_kit import training


def factors(schedule: str, warmup: int, horizon: int, steps: int) -> list[float]:
    return [
        rate_factor(s, warmup_steps=warmup, schedule=schedule, schedule_steps=horizon)
        for s in range(steps)
    ]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_warmup_rises_linearly_to_the_full_rate_and_never_starts_at_zero(schedule: str) -> None:
    values = factors(schedule, 10, 100, 11)
    assert values[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert values[10] == 1.0


def test_constant_stays_and_the_others_fall_to_the_floor_and_stay_there() -> None:
    assert set(factors("constant", 10, 0, 1000)[9:]) == {1.0}
    for schedule in ("linear", "cosine", "wsd"):
        values = factors(schedule, 10, 100, 300)
        assert all(a >= b for a, b in itertools.pairwise(values[9:])), schedule
        assert values[100:] == pytest.approx([FLOOR] * 200), schedule
        assert min(values[10:100]) > FLOOR, schedule


def test_wsd_is_stable_until_its_last_tenth() -> None:
    values = factors("wsd", 10, 100, 100)
    assert set(values[9:91]) == {1.0} and values[91] < 1.0


def test_no_warmup_starts_at_the_full_rate() -> None:
    assert factors("constant", 0, 0, 3) == [1.0, 1.0, 1.0]


def test_the_position_is_set_and_every_group_keeps_its_own_base_rate() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [
        {"params": [p], "lr": rate, "base_lr": rate}
        for p, rate in zip(parameters, (1e-3, 4e-2), strict=True)
    ]
    optimizer = torch.optim.AdamW(groups)
    settings = training(warmup_steps=10, schedule="cosine", schedule_steps=50, learning_rate=1e-3)
    walked = GlobalSchedule(optimizer, settings)
    seen = []
    for _ in range(60):
        seen.append(walked.get_last_lr())
        walked.step()
    for step in (0, 3, 9, 10, 30, 49, 59):
        jumped = GlobalSchedule(optimizer, settings, step)
        assert jumped.get_last_lr() == seen[step]
        assert jumped.rate == pytest.approx(jumped.get_last_lr()[0])
        assert seen[step][1] == pytest.approx(40 * seen[step][0])
    again = GlobalSchedule(optimizer, settings)
    again.load_state_dict(walked.state_dict())
    assert again.global_step == 60
