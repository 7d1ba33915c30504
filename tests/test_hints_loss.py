"""The rules over losses: series that must raise them, and series that must not."""

from __future__ import annotations

import math
import random

import pytest

from engine.hints import loss
from engine.hints.hint import Hint
from engine.hints.loss import Step, Tick

EVERY = 50


class Run:
    """A run as it is looked at while it goes: after every 25 steps, with what stood before."""

    def __init__(self, seed: int = 1) -> None:
        self.draw = random.Random(seed)
        self.steps: list[Step] = []
        self.ticks: list[Tick] = []
        self.stands: dict[str, Hint] = {}
        self.came: list[str] = []
        self.ended: list[str] = []

    def go(self, train: float, val: float, item: int = 1, noise: float = 0.12) -> None:
        """A step with this expected training loss; every EVERY steps a validation."""
        step = len(self.steps) + 1
        self.steps.append(Step(step, item, train * math.exp(self.draw.gauss(0, noise))))
        if step % EVERY == 0:
            own = [one.loss for one in self.steps[-EVERY:] if one.item == item]
            self.ticks.append(
                Tick(step, item, val * (1 + self.draw.gauss(0, 0.01)), sum(own) / len(own))
            )
        if step % 25 == 0:
            self.look()

    def look(self) -> None:
        steps, ticks = self.steps[-loss.PLATEAU_STEPS :], self.ticks[-200:]
        found = {
            "gap_grows": loss.gap_grows(ticks, self.stands.get("gap_grows")),
            "plateau": loss.plateau(steps, ticks, self.stands.get("plateau")),
            "spike": loss.spike(steps, self.stands.get("spike")),
            "early_stop": loss.early_stop(ticks),
        }
        for rule, hint in found.items():
            if hint is not None and rule not in self.stands:
                self.came.append(rule)
            if hint is None and rule in self.stands:
                self.ended.append(rule)
        self.stands = {rule: hint for rule, hint in found.items() if hint is not None}


def falling(step: int, floor: float = 0.15, pace: float = 300) -> float:
    return 2.3 * math.exp(-step / pace) + 0.3 * math.exp(-step / (5 * pace)) + floor


# -- runs in order -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_a_run_that_learns_raises_nothing(seed: int, noise: float) -> None:
    run = Run(seed)
    for step in range(1, 1501):
        run.go(falling(step), 1.05 * falling(step), noise=noise)
    assert run.came == []


def test_a_queue_of_files_of_different_difficulty_raises_nothing() -> None:
    run = Run()
    for step in range(1, 2001):
        hard = (0.0, 0.3, -0.05, 0.15)[step // 100 % 4]
        run.go(falling(step) + hard, 1.05 * falling(step), item=step // 100, noise=0.2)
    assert run.came == []


def test_few_points_give_no_hint() -> None:
    steps = [Step(n, 1, 1.0) for n in range(1, loss.PLATEAU_LEAST)]
    ticks = [Tick(n * 500, 1, 0.5 + n / 10, 0.5) for n in range(loss.PATIENCE_TICKS)]
    assert loss.plateau(steps) is None and loss.early_stop(ticks) is None
    assert loss.gap_grows([Tick(n, 1, 1.0 + n, 0.5) for n in range(loss.GAP_LEAST - 1)]) is None
    assert loss.spike([*steps[:20], Step(21, 1, 50.0)]) is None
    for rule in (loss.gap_grows, loss.plateau, loss.spike, loss.early_stop):
        assert rule([]) is None  # type: ignore[operator]


# -- the gap -----------------------------------------------------------------------------------


def test_the_gap_of_a_model_that_learns_by_heart_is_told_with_its_figures() -> None:
    run = Run()
    for step in range(1, 801):
        run.go(falling(step), 1.05 * falling(step))
    for step in range(801, 1601):
        over = (step - 800) / 800
        run.go(falling(step) * (1 - 0.6 * over), falling(800) * (1 + 0.3 * over))
    hint = run.stands["gap_grows"]
    assert run.came.count("gap_grows") == 1, "it does not flap"
    figures = hint.figures
    assert float(figures["gap_nats"]) > 0.1 and 600 <= int(figures["best_step"]) <= 1100
    assert "rises since step" in hint.text and "k" in hint.advice
    assert hint.since_step == figures["best_step"]


def test_a_gap_that_closes_again_ends_the_hint() -> None:
    run = Run()
    for step in range(1, 801):
        run.go(0.3 * (1 - 0.5 * step / 800), 0.3 * (1 + 0.5 * step / 800))
    assert "gap_grows" in run.stands
    for _ in range(1500):
        run.go(0.3, 0.31)
    assert run.ended.count("gap_grows") == 1 and "gap_grows" not in run.stands


def test_training_loss_that_falls_ahead_of_a_falling_validation_loss_is_no_gap() -> None:
    ticks = [Tick(n * 50, 1, 2.0 - 0.05 * n, 2.0 - 0.08 * n) for n in range(20)]
    assert loss.gap_grows(ticks) is None


def test_a_file_learned_to_nought_beside_sets_of_other_skills_is_no_gap() -> None:
    ticks = [Tick(n * 50, 1, 0.2, 0.03 * math.exp(-n / 3)) for n in range(12)]
    assert loss.gap_grows(ticks) is None
    half = [Tick(n * 50, 1, 0.2, 0.2 * math.exp(-n / 3)) for n in range(12)]
    hint = loss.gap_grows(half)
    assert hint is not None and "does not follow" in hint.text


def test_a_growth_within_its_uncertainty_is_no_gap() -> None:
    trains = (0.45, 0.05, 0.45, 0.1, 0.45, 0.05, 0.1, 0.05)
    ticks = [Tick(n * 50, 1, 0.5, train) for n, train in enumerate(trains)]
    assert loss.gap_grows(ticks) is None


def test_a_new_file_with_an_easier_loss_is_no_gap_but_a_rise_over_files_is() -> None:
    easy = [Tick(n * 50, n // 4, 0.5, 0.45 - 0.1 * (n // 4)) for n in range(16)]
    assert loss.gap_grows(easy) is None
    rises = [Tick(n * 50, n // 4, 0.5 + 0.02 * n, 0.45) for n in range(16)]
    assert loss.gap_grows(rises) is not None


# -- a plateau ---------------------------------------------------------------------------------


def test_a_loss_that_stands_is_told_with_its_uncertainty() -> None:
    run = Run()
    for _ in range(2000):
        run.go(1.4, 1.45, noise=0.08)
    hint = run.stands["plateau"]
    assert run.came.count("plateau") == 1
    assert abs(float(hint.figures["change_nats"])) < 0.03 * 1.4
    assert float(hint.figures["change_error_nats"]) > 0


def test_a_slow_fall_too_much_noise_and_a_learned_file_are_no_plateau() -> None:
    draw = random.Random(3)
    slow = [Step(n, 1, 1.0 - 0.1 * n / 2000 + draw.gauss(0, 0.05)) for n in range(2000)]
    wild = [Step(n, 1, draw.uniform(0.1, 3.0)) for n in range(800)]
    level = [Step(n, 1, 1.5 if n % 2 else 0.5) for n in range(600)]
    learned = [Step(n, 1, 0.005 + draw.gauss(0, 0.0001)) for n in range(2000)]
    assert loss.plateau(slow) is None
    assert loss.plateau(wild) is None
    assert loss.plateau(level) is None, "no slope, but nobody can be sure of it"
    assert loss.plateau(learned) is None


def test_a_validation_loss_that_still_falls_keeps_a_plateau_back() -> None:
    draw = random.Random(3)
    flat = [Step(n, 1, 1.0 + draw.gauss(0, 0.05)) for n in range(2000)]
    falls = [Tick(n, 1, 1.5 - n / 4000, 1.0) for n in range(0, 2000, 50)]
    assert loss.plateau(flat) is not None
    assert loss.plateau(flat, falls) is None


# -- a spike -----------------------------------------------------------------------------------


def noisy(count: int, level: float, item: int = 1, seed: int = 5) -> list[Step]:
    draw = random.Random(seed)
    return [Step(n, item, level * math.exp(draw.gauss(0, 0.15))) for n in range(1, count + 1)]


def test_a_large_spike_of_one_step_is_told_with_step_and_item() -> None:
    steps = noisy(300, 0.4)
    steps[280] = Step(281, 1, 6.0)
    hint = loss.spike(steps, names={1: "a.jsonl"})
    assert hint is not None
    assert hint.figures["step"] == 281 and "step 281" in hint.text and "item 1 a.jsonl" in hint.text


def test_a_level_that_jumps_and_stays_is_told_and_one_high_step_is_not() -> None:
    steps = noisy(300, 0.4)
    jumped = steps[:290] + [Step(one.step, 1, one.loss * 2.5) for one in steps[290:]]
    hint = loss.spike(jumped)
    assert hint is not None and 291 <= int(hint.figures["step"]) <= 293
    steps[290] = Step(291, 1, 0.85)
    assert loss.spike(steps) is None


def test_a_batch_as_high_as_one_before_is_no_spike() -> None:
    steps = noisy(300, 0.05)
    for at in (150, 280):
        steps[at] = Step(at + 1, 1, 1.2)
    assert loss.spike(steps) is None


def test_a_harder_file_is_no_spike() -> None:
    steps = noisy(300, 0.4)
    harder = [Step(300 + one.step, 2, one.loss * 5) for one in noisy(60, 0.4, seed=6)]
    assert loss.spike(steps + harder) is None


def test_a_spike_stands_until_the_loss_is_back_for_long_enough() -> None:
    steps = noisy(600, 0.4)
    steps[280] = Step(281, 1, 6.0)
    held = loss.spike(steps[:281])
    assert held is not None
    for end in range(282, 330):
        assert loss.spike(steps[:end], held) is held
    assert loss.spike(steps[:340], held) is None
    stays = steps[:281] + [Step(one.step, 1, one.loss * 9) for one in steps[281:]]
    assert loss.spike(stays[:500], held) is held, "it has not come back"
    other = [*steps[:300], Step(301, 2, 0.4)]
    assert loss.spike(other, held) is None, "another item"
    assert loss.spike(steps[:200], held) is None, "gone back before it"


# -- early stopping ----------------------------------------------------------------------------


def test_early_stopping_waits_for_its_patience_and_ends_with_a_better_one() -> None:
    ticks = [Tick(50 * n, 1, 1.0 - 0.05 * n, None) for n in range(10)]
    best = ticks[-1]
    for n in range(1, 10):
        ticks.append(Tick(best.step + 50 * n, 1, best.val - 0.009, None))
        assert loss.early_stop(ticks) is None, n
    ticks.append(Tick(best.step + 500, 1, best.val + 0.1, None))
    hint = loss.early_stop(ticks)
    assert hint is not None
    assert hint.figures["steps_waited"] == 500 and hint.figures["best_step"] == best.step
    ticks.append(Tick(best.step + 550, 1, best.val - 0.011, None))
    assert loss.early_stop(ticks) is None


def test_early_stopping_needs_more_than_one_validation_where_they_are_rare() -> None:
    ticks = [Tick(1000 * n, 1, 1.0, None) for n in range(3)]
    assert loss.early_stop(ticks) is None
