"""Verdicts on curves whose shape is known, noise included."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from evaluation.learning import FEWEST, Held, Point, Span, effects, learning, noise


def curve(shape: Callable[[float], float], n: int = 40, spread: float = 0.0, seed: int = 1):
    """n points, 50 steps apart, of a shape over [0, 1] with normal noise."""
    draw = random.Random(seed)
    return [Point(50 * k, shape(k / (n - 1)) + draw.gauss(0, spread)) for k in range(1, n)]


def falling(x: float) -> float:
    return 0.5 + 2 * math.exp(-3 * x)


def settled(x: float) -> float:
    return 1 + 2 * math.exp(-15 * x)


def risen(x: float) -> float:
    return 1 + 2 * math.exp(-8 * x) + 0.8 * max(0.0, x - 0.4)


@pytest.mark.parametrize("spread", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("shape", "verdict"), [(falling, "learning"), (settled, "plateau"), (risen, "overfitting")]
)
def test_curves_of_a_known_shape_get_their_verdict(
    shape: Callable[[float], float], verdict: str, spread: float, seed: int
) -> None:
    found = learning(curve(falling, 400, 0.05), curve(shape, 40, spread, seed))
    assert found["verdict"] == verdict, found["text"]
    assert found["text"].startswith(("still learning", "plateau", "overfitting"))


def test_noise_seldom_makes_a_verdict_and_seldom_hides_one() -> None:
    train = curve(falling, 400, 0.05)
    for shape, verdict in ((falling, "learning"), (settled, "plateau"), (risen, "overfitting")):
        noisy = (curve(shape, 40, 0.03, seed) for seed in range(100))
        assert sum(learning(train, val)["verdict"] == verdict for val in noisy) >= 97, verdict


def test_the_best_step_is_the_lowest_validation_loss() -> None:
    val = curve(risen)
    found = learning(curve(falling), val)
    assert found["best"]["step"] == min(val, key=lambda p: p.loss).step < 1200
    assert f"lowest at step {found['best']['step']}" in found["text"]
    assert found["gap"]["share"] > 0.3 and found["gap"]["train"] < 0.7


def test_a_loss_that_rises_in_training_too_is_no_overfitting() -> None:
    found = learning(curve(risen), curve(risen))
    assert found["verdict"] == "unknown" and "so has the training loss" in found["text"]


def test_a_single_spike_at_the_end_is_no_verdict() -> None:
    val = curve(settled)
    spiked = [*val[:-1], Point(val[-1].step, val[-1].loss * 1.05)]
    assert learning(curve(falling), spiked)["verdict"] == "plateau"


def test_low_accuracy_close_to_the_training_loss_is_underfitting() -> None:
    held = [Held(1000, 10, 100), Held(2000, 12, 100)]
    found = learning(curve(settled), curve(settled), held)
    assert found["verdict"] == "underfitting" and "12 of 100" in found["text"]
    assert learning(curve(settled), curve(settled), [Held(2000, 80, 100)])["verdict"] == "plateau"
    assert learning(curve(settled), curve(settled), [Held(2000, 1, 4)])["verdict"] == "plateau", (
        "1 of 4 may be any accuracy"
    )
    assert learning(curve(falling), curve(settled), held)["verdict"] == "plateau", "there is a gap"


def test_few_points_are_unknown_and_no_training_loss_is_no_reason_to_be_silent() -> None:
    few = learning(curve(falling), curve(settled)[: FEWEST - 1])
    assert few["verdict"] == "unknown" and few["text"] == "4 validations so far, 5 are needed"
    assert learning([], [])["best"] == {"unknown": "0 validations so far, 5 are needed"}
    found = learning([], curve(risen))
    assert found["verdict"] == "overfitting" and "unknown" in found["gap"]
    assert found["accuracy"] == {"unknown": "no held-out answers on this line"}


def test_accuracy_says_from_which_step_on_it_is_as_good_as_the_best() -> None:
    held = [Held(100, 20, 100), Held(200, 70, 100), Held(300, 75, 100), Held(400, 72, 100)]
    found = learning(curve(settled), curve(settled), held)["accuracy"]
    assert (found["step"], found["right"], found["n"]) == (400, 72, 100)
    assert found["best_step"] == 300 and found["as_good_from"] == 200
    assert found["low"] == pytest.approx(0.6252, abs=1e-3)


def test_noise_is_that_of_the_points_and_not_of_the_fall() -> None:
    draw = random.Random(2)
    losses = [5 - 0.02 * n + draw.gauss(0, 0.1) for n in range(400)]
    assert noise(losses) == pytest.approx(0.1, rel=0.15)
    losses[200] = 50.0
    assert noise(losses) == pytest.approx(0.1, rel=0.15)
    assert noise([5 - 0.02 * n for n in range(50)]) == pytest.approx(0, abs=1e-12)
    assert noise([]) == noise([1.0, 2.0]) == 0.0


def test_each_file_has_its_change_of_the_validation_loss() -> None:
    val = [Point(step, loss) for step, loss in ((0, 2.0), (50, 1.5), (100, 1.4), (150, 1.6))]
    spans = [
        Span(1, "a.jsonl", 1, 50),
        Span(2, "b.jsonl", 51, 90),
        Span(3, "c.jsonl", 101, 120),
        Span(4, "d.jsonl", 121, 150),
        Span(5, "e.jsonl", 151, 160),
    ]
    found = {row["name"]: row for row in effects(val, spans)}
    assert found["a.jsonl"]["change"] == pytest.approx(-0.5)
    assert found["a.jsonl"]["before"] == {"step": 0, "loss": 2.0}
    assert found["b.jsonl"]["change"] == pytest.approx(-0.1)
    assert found["c.jsonl"]["change"] == {"unknown": "d.jsonl trained between the two validations"}
    assert found["d.jsonl"]["change"] == {"unknown": "c.jsonl trained between the two validations"}
    assert found["e.jsonl"]["change"] == {"unknown": "no validation after it"}
    assert effects([], [Span(1, "a", 1, 2)])[0]["change"] == {"unknown": "no validation before it"}


def test_a_change_within_the_noise_is_not_clear() -> None:
    val = [Point(50 * n, 1.0 + 0.05 * (n % 2)) for n in range(20)] + [Point(1000, 0.3)]
    spans = [Span(1, "a", 301, 350), Span(2, "b", 951, 1000)]
    noisy, clear = effects(val, spans)
    assert not noisy["clear"] and clear["clear"] and clear["change"] == pytest.approx(-0.75)
