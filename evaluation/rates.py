"""Rates with their uncertainty: Wilson's interval, and Fisher's exact test of two of them.

A share without its n says nothing: 1 of 3 and 100 of 300 are the same share. Plain arithmetic.
Sources: E. B. Wilson, JASA 22 (1927); R. A. Fisher, Statistical Methods, 5th ed., 21.02.
"""

from __future__ import annotations

from math import exp, lgamma, sqrt
from typing import Any

Z = 1.959964
"""Standard deviations of a 95 % interval."""

CLEAR = 0.01
"""A difference with a smaller p is called one. Rows of a file are alike, so not 0.05."""


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % interval of the share `hits` of `total`; (0, 1) for nothing at all."""
    if not total:
        return 0.0, 1.0
    share, square = hits / total, Z * Z / total
    middle = (share + square / 2) / (1 + square)
    reach = Z / (1 + square) * sqrt(share * (1 - share) / total + square / total / 4)
    # At the ends the formula gives them but for a rounding error.
    low = 0.0 if hits == 0 else max(0.0, middle - reach)
    return low, 1.0 if hits == total else min(1.0, middle + reach)


def difference(hits: int, total: int, other_hits: int, other_total: int) -> float:
    """Fisher's exact p, two-sided (twice the smaller tail), that two shares are of one rate."""
    if not total or not other_total:
        return 1.0
    all_hits, everything = hits + other_hits, total + other_total
    if hits * everything < all_hits * total:  # the tail that is away from the middle
        hits, total = other_hits, other_total
    log = (
        _choose(all_hits, hits)
        + _choose(everything - all_hits, total - hits)
        - _choose(everything, total)
    )
    term = tail = exp(log)
    for k in range(hits, min(all_hits, total)):
        misses = everything - all_hits - total + k + 1
        term *= (all_hits - k) * (total - k) / ((k + 1) * misses)
        tail += term
        if term < 1e-17 * tail:
            break
    return min(1.0, 2 * tail)


def _choose(n: int, k: int) -> float:
    """The logarithm of n over k."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def rate(hits: int, total: int) -> dict[str, Any]:
    """{hits, total, share, low, high}: a share with its interval; the share of nothing is
    {"unknown": why}."""
    if not total:
        return {"hits": hits, "total": 0, "share": {"unknown": "no rows"}}
    low, high = wilson(hits, total)
    return {"hits": hits, "total": total, "share": hits / total, "low": low, "high": high}
