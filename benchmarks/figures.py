"""The rows of the table: a value with its unit, target and spread, in one shape for all benches.

A row is {label, value, unit, target, met, spread}; one that could not be measured here has
`skipped`, which says why, in the place of a value.
"""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Sequence
from typing import Any

INSTALL = "pip install -e '.[bench]'"

Row = dict[str, Any]


def spread(values: Sequence[float]) -> str:
    """Lowest and highest of what was measured, and how often that was."""
    low, high = (f"{_short(v):g}" for v in (min(values), max(values)))
    return f"{low} to {high}, n={len(values)}"


def figure(label: str, values: Sequence[float], unit: str) -> Row:
    """The median of `values`, with nothing asked of it."""
    value = _short(statistics.median(values))
    return _row(label, value, unit, "", True, spread(values) if len(values) > 1 else "")


def at_most(label: str, values: Sequence[float], unit: str, target: float) -> Row:
    """The median of `values` is to be at most `target`."""
    return {**figure(label, values, unit), **_wanted("<=", target, statistics.median(values))}


def at_least(label: str, values: Sequence[float], unit: str, target: float) -> Row:
    """The median of `values` is to be at least `target`."""
    return {**figure(label, values, unit), **_wanted(">=", target, statistics.median(values))}


def median_and_p95(label: str, values: Sequence[float], unit: str, target: float) -> list[Row]:
    """Two rows: the median, and what 95 of 100 stay under; both are to be at most `target`."""
    p95 = statistics.quantiles(values, n=20)[-1]
    return [
        at_most(f"{label}, median", values, unit, target),
        {**at_most(f"{label}, 95th percentile", [p95], unit, target), "spread": spread(values)},
    ]


def skipped(label: str, why: str) -> Row:
    """A row that could not be measured on this machine."""
    return {**_row(label, None, "", "", True, ""), "skipped": why}


def missing(package: str) -> str:
    """Why what needs `package` cannot be measured, "" where it is installed."""
    if importlib.util.find_spec(package) is not None:
        return ""
    return f"{package} is not installed: {INSTALL}"


def _row(label: str, value: float | None, unit: str, target: str, met: bool, spread: str) -> Row:
    return {
        "label": label,
        "value": value,
        "unit": unit,
        "target": target,
        "met": met,
        "spread": spread,
    }


def _wanted(sign: str, target: float, value: float) -> Row:
    met = value <= target if sign == "<=" else value >= target
    return {"target": f"{sign} {target:g}", "met": met}


def _short(value: float) -> float:
    """Four significant digits, and no fraction of what is larger."""
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")
