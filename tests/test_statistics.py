"""The statistics against scipy (where it is installed), published values, and simulated truth."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.rates import wilson
from evaluation.statistics import (
    ALPHA,
    LISTED,
    benjamini_hochberg,
    detectable,
    mcnemar,
    needed,
    paired,
)

# Pairs of Darwin's maize; Fisher (The Design of Experiments, 1935, section 21) counts 1726 of
# 32768 changes of sign with a sum as large as theirs.
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]

# The example of Benjamini & Hochberg (1995): at 0.05 four of fifteen are discoveries.
THROMBOLYSIS = [
    *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262),
    *(0.5719, 0.6528, 0.7590, 1.0000),
]


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # What the house plan names, and Newcombe, Statistics in Medicine 17 (1998), table I.
        *((4, 5, 0.3755, 0.9638), (80, 100, 0.7112, 0.8666)),
        *((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)),
        *((0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)),
    ],
)
def test_wilsons_interval_is_the_published_one(
    hits: int, total: int, low: float, high: float
) -> None:
    assert wilson(hits, total) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    mirrored = wilson(total - hits, total)
    assert mirrored == (pytest.approx(1 - high, abs=1e-4), pytest.approx(1 - low, abs=1e-4))


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        # By hand (sums of binomial coefficients), the last two by scipy 1.17.1.
        *((0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (9, 1, 22 / 1024)),
        *((5, 5, 1.0), (6, 5, 1.0), (15, 5, 2 * 21700 / 2**20)),
        *((60, 40, 0.056887933640980784), (4000, 5000, 5.581401567014391e-26)),
    ],
)
def test_mcnemar_is_exact_and_has_no_side(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(p, rel=1e-10)


def test_mcnemar_is_scipys_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for gained, lost in product(range(30), range(30)):
        if gained + lost:
            want = stats.binomtest(gained, gained + lost, 0.5).pvalue
            assert mcnemar(gained, lost) == pytest.approx(want, rel=1e-9), (gained, lost)


def test_a_graded_comparison_of_few_items_is_fishers_randomisation_test() -> None:
    found = paired([value / 100 for value in MAIZE])
    assert len(MAIZE) == LISTED and found.p == 1726 / 32768
    assert found.mean == pytest.approx(3.14 / 15) and found.n == 15
    assert found.low < found.mean < found.high


def test_a_graded_comparison_is_scipys_permutation_test_and_bootstrap() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    import numpy as np

    draw = np.random.default_rng(3)
    for n, exact in ((9, True), (14, True), (200, False)):
        values = np.round(draw.normal(0.05, 0.3, size=n), 2)
        want = stats.permutation_test(
            (values,),
            np.mean,
            permutation_type="samples",
            n_resamples=np.inf if exact else 9999,
            rng=1,
        ).pvalue
        found = paired(values.tolist())
        assert found.p == pytest.approx(want, abs=1e-12 if exact else 0.02)
        interval = stats.bootstrap((values,), np.mean, method="percentile", rng=1)
        if n == 200:
            assert found.low == pytest.approx(interval.confidence_interval.low, abs=0.004)
            assert found.high == pytest.approx(interval.confidence_interval.high, abs=0.004)


def test_drawn_permutations_agree_with_those_listed() -> None:
    """40 halves gained and 20 lost: the sum is that of 60 coins, which McNemar's test knows."""
    values = [0.5] * 40 + [-0.5] * 20 + [0.0] * 500
    few = [value + 0.0001 * n for n, value in enumerate(values[:60])]  # no two alike: drawn apart
    assert paired(values).p == pytest.approx(mcnemar(40, 20), abs=0.004)
    assert mcnemar(41, 19) - 0.004 < paired(few).p < mcnemar(40, 20) + 0.004  # no ties there


def test_the_same_scores_give_the_same_numbers_whoever_asks() -> None:
    draw = random.Random(7)
    values = [draw.choice([-0.25, 0.0, 0.25, 0.3]) + draw.random() / 50 for _ in range(300)]
    assert paired(values) == paired(values) == paired(list(values))
    assert paired(values, seed=1) != paired(values)
    other = paired([-value for value in values])
    assert (
        other.p == pytest.approx(paired(values).p, abs=0.01) and other.mean == -paired(values).mean
    )


def test_a_drawn_p_is_never_nothing() -> None:
    """The observed signs are one of the draws: what did not occur is not impossible."""
    assert paired([0.5] * 60).p == 1 / 10_000
    assert paired([0.5 + n / 1000 for n in range(60)]).p == 1 / 10_000


def test_nothing_and_no_difference_are_no_difference() -> None:
    assert paired([]).p == paired([0.0] * 50).p == paired([0.3]).p == 1.0
    assert (paired([0.0] * 50).low, paired([0.0] * 50).high) == (0, 0)
    tie = paired([0.1, 0.2, -0.3] * 6)  # 0.1 + 0.2 is not 0.3 in a double
    assert tie.p == 1.0


def test_false_discoveries_are_controlled_as_published() -> None:
    adjusted = benjamini_hochberg(THROMBOLYSIS)
    assert sum(p <= ALPHA for p in adjusted) == 4
    assert adjusted[3] == pytest.approx(0.035625) and adjusted[4] == pytest.approx(0.0603)
    shuffled = [THROMBOLYSIS[place] for place in (7, 3, 0, 14, 5)]
    assert benjamini_hochberg(shuffled)[2] == pytest.approx(0.0005)
    assert benjamini_hochberg([]) == [] and benjamini_hochberg([0.2]) == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_p_values_keep_their_order_and_never_fall(ps: list[float]) -> None:
    adjusted = benjamini_hochberg(ps)
    assert all(a >= p - 1e-12 for a, p in zip(adjusted, ps, strict=True)) and max(adjusted) <= 1
    in_order = [a for _, a in sorted(zip(ps, adjusted, strict=True))]
    assert in_order == sorted(in_order)


def test_false_discovery_control_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    draw = random.Random(1)
    for n in (1, 2, 7, 60):
        ps = [draw.random() ** 3 for _ in range(n)]
        assert benjamini_hochberg(ps) == pytest.approx(list(stats.false_discovery_control(ps)))


def test_the_needed_number_of_items_is_connors() -> None:
    # By hand: ((1.959964 sqrt(.2) + .841621 sqrt(.2 - .0025)) / .05)^2 = 625.9; and half as many
    # items change sides, half as many are needed.
    assert needed(0.05, 0.2) == 626
    assert needed(0.05, 0.1) == 312
    assert needed(0.2, 0.1) == needed(0.2, 0.2), "no fewer change sides than the difference"
    with pytest.raises(ValueError, match="difference"):
        needed(0.0, 0.1)


def test_the_needed_number_gives_the_power_that_it_promises() -> None:
    """Simulated: 312 items of which 10 % change sides, 5 points up: four times in five p <= 0.05
    (a little less, as the exact test is on the safe side)."""
    draw = random.Random(11)
    n = needed(0.05, 0.1)
    seen = 0
    for _ in range(2000):
        sides = draw.choices((1, -1, 0), (0.075, 0.025, 0.9), k=n)
        seen += mcnemar(sides.count(1), sides.count(-1)) <= ALPHA
    assert 0.74 < seen / 2000 < 0.83


@pytest.mark.parametrize(("n", "discordant"), [(20, 0.2), (100, 0.05), (100, 0.3), (5000, 0.2)])
def test_the_detectable_difference_is_the_inverse_of_the_needed_number(
    n: int, discordant: float
) -> None:
    found = detectable(n, discordant)
    assert found is not None and 0 < found < 1
    assert needed(found, discordant) <= n < needed(found - 1e-6, discordant)


def test_too_few_items_show_no_difference_at_all() -> None:
    assert detectable(0, 0.2) is None and detectable(3, 0.2) is None
