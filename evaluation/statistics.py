"""The statistics of paired evaluations: two models, the same items, right or wrong, or graded.

Exact where it can be (McNemar by the binomial distribution, permutations listed in full for few
items), else seeded, so that the same results give the same numbers. scipy is no dependency: what
is needed of it is a page, its import takes seconds, and the tests hold these functions against
it. numpy is imported when a graded score is compared, never with the module.

Sources: Q. McNemar, Psychometrika 12 (1947), exact form; R. A. Fisher's randomisation test; B.
Efron's percentile bootstrap; Y. Benjamini & Y. Hochberg, JRSS B 57 (1995); R. J. Connor,
Biometrics 43 (1987), for the sample size of a paired comparison. Wilson's interval: rates.wilson.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ALPHA = 0.05
"""A difference with a p of this or less is called one; of false discoveries the share allowed."""

POWER = 0.8
"""The chance of seeing a true difference, for which sample sizes are given."""

PERMUTATIONS = 9999
RESAMPLES = 4000
DRAWS = 20_000_000
"""Single draws at most, so that ten thousand items take no longer than a person waits: of more
items with a difference than DRAWS / PERMUTATIONS there are fewer permutations, at least 999."""

LISTED = 15
"""Items with a difference of which all 2**n changes of sign are listed instead of drawn."""

_CHUNK = 1 << 21
"""Numbers drawn at once: 16 MB."""

_DIGITS = 9
"""Decimals of a graded difference that count. Sums within as many of each other are a tie,
whatever order a library adds in."""


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p that items turn right as often as wrong: of `gained + lost` items that
    changed sides, a fair coin decided each. Equal to scipy.stats.binomtest(gained, n, 0.5)."""
    n, few = gained + lost, min(gained, lost)
    if 2 * few >= n - (n % 2 == 0):
        return 1.0
    term = total = 1
    for k in range(few):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / (1 << n))


@dataclass(frozen=True)
class Graded:
    """A paired comparison of graded scores: the mean of the differences (second less first), its
    95 % interval by bootstrap, and the two-sided p of the sign-flip permutation test."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired(differences: Sequence[float], *, seed: int = 0) -> Graded:
    """Compare graded scores by their differences, an item each (second model less first).

    p as of scipy.stats.permutation_test(permutation_type="samples", two-sided): listed in full
    for up to LISTED items that differ, else from draws, with the observed one counted.
    """
    import numpy as np

    values = np.round(np.asarray(differences, dtype=np.float64), _DIGITS)
    n = len(values)
    if not n:
        return Graded(0.0, 0.0, 0.0, 1.0, 0)
    mean = float(values.mean())
    low, high = _bootstrap(values, seed)
    return Graded(mean, low, high, _sign_flips(values[values != 0], seed), n)


def _sign_flips(values: np.ndarray, seed: int) -> float:
    import numpy as np

    n = len(values)
    if not n:
        return 1.0
    observed = abs(values.sum()) - n * 10.0**-_DIGITS
    if n <= LISTED:
        signs = 1 - 2.0 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ values) >= observed))
    random = np.random.Generator(np.random.PCG64(seed))
    distinct, counts = np.unique(np.abs(values), return_counts=True)
    if len(distinct) * 8 < n:
        # Of equal sizes only how many are flipped matters: a binomial draw.
        drawn = random.binomial(counts, 0.5, size=(PERMUTATIONS, len(counts)))
        sums = (counts - 2.0 * drawn) @ distinct
        return (1 + int(np.count_nonzero(np.abs(sums) >= observed))) / (PERMUTATIONS + 1)
    draws = min(PERMUTATIONS, max(999, DRAWS // n))
    total, extreme, left = values.sum(), 1, draws
    while left:
        rows = min(left, max(1, _CHUNK // n))
        bits = np.frombuffer(random.bytes(rows * ((n + 7) // 8)), dtype=np.uint8)
        flipped = np.unpackbits(bits.reshape(rows, -1), axis=1, count=n).astype(np.float64)
        sums = total - 2 * (flipped @ values)
        extreme += int(np.count_nonzero(np.abs(sums) >= observed))
        left -= rows
    return extreme / (draws + 1)


def _bootstrap(values: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of the mean. Equal differences are drawn together (a
    multinomial draw of how many of each), which is the same and quicker."""
    import numpy as np

    n = len(values)
    random = np.random.Generator(np.random.PCG64(seed))
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * 8 < n:
        drawn = random.multinomial(n, counts / n, size=RESAMPLES).astype(np.float64)
        sums = [drawn @ distinct]
    else:
        sums, left = [], min(RESAMPLES, max(999, DRAWS // 2 // n))
        while left:
            rows = min(left, max(1, _CHUNK // n))
            sums.append(values[random.integers(0, n, size=(rows, n), dtype=np.int32)].sum(axis=1))
            left -= rows
    low, high = np.quantile(np.concatenate(sums), (0.025, 0.975))
    return float(low) / n, float(high) / n


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """The p values adjusted for their number, in their order: those of ALPHA or less hold a share
    of at most ALPHA false discoveries. Equal to scipy.stats.false_discovery_control(ps)."""
    order = sorted(range(len(ps)), key=lambda place: ps[place], reverse=True)
    adjusted, lowest = [1.0] * len(ps), 1.0
    for behind, place in enumerate(order):
        lowest = min(lowest, ps[place] * len(ps) / (len(ps) - behind))
        adjusted[place] = lowest
    return adjusted


@cache
def _z(alpha: float, power: float) -> tuple[float, float]:
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2), normal.inv_cdf(power)


def needed(
    difference: float, discordant: float, *, alpha: float = ALPHA, power: float = POWER
) -> int:
    """How many paired items it takes to see a true `difference` of two accuracies (0 to 1), where
    a share `discordant` of the items changes sides. Connor's formula for McNemar's test."""
    if not 0 < difference <= 1:
        raise ValueError(f"a difference of {difference:g} is none to be seen")
    share = min(1.0, max(discordant, difference))  # no fewer can change than the difference itself
    z_alpha, z_power = _z(alpha, power)
    root = z_alpha * sqrt(share) + z_power * sqrt(max(0.0, share - difference * difference))
    return ceil((root / difference) ** 2)


def detectable(
    n: int, discordant: float, *, alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """The smallest difference of two accuracies that `n` paired items show with that power where
    a share `discordant` changes sides; None where not even a difference of 1 would show."""
    if n < 1 or needed(1.0, discordant, alpha=alpha, power=power) > n:
        return None
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if needed(middle, discordant, alpha=alpha, power=power) > n:
            low = middle
        else:
            high = middle
    return high
