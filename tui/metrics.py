"""The metrics of the curves: their names, and how a value of each is written, with its unit."""

from __future__ import annotations

import math

from tui.figures import loss, real, short, size

METRICS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "seconds", "memory")
TITLES = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens/s",
    "seconds": "seconds a step",
    "memory": "memory",
}

EXACT = ("learning_rate", "memory")
"""Metrics without noise: drawn as they are until one asks for a moving average."""


def figure(metric: str, value: float) -> str:
    """A value as a read-out writes it: 0.137, 2.0e-04, 8.2k tok/s, 50 ms, 1.2 GB."""
    if real(value) is None:
        return loss(value)
    if metric == "tokens_per_second":
        return f"{short(value)} tok/s"
    if metric == "seconds":
        return _seconds(value)
    if metric == "memory":
        return size(value)
    return f"{value:.1e}" if metric == "learning_rate" else loss(value)


def axis(metric: str, value: float) -> str:
    """A value as the axis writes it, in six characters, its unit with it where there is one."""
    if value == 0:
        return "0"
    if metric == "tokens_per_second":
        return f"{short(value)}/s"
    if metric == "seconds":
        return _seconds(value)
    if metric == "memory":
        return size(value)
    if metric == "learning_rate":
        return f"{value:.1e}".replace("e-0", "e-")
    if abs(value) >= 10_000:
        return short(value)
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


def _seconds(value: float) -> str:
    """In six characters: 5.1 ms, 51 ms, 0.48 s, 2.10 s, 41.2 s, 120 s."""
    if abs(value) < 0.0995:
        return f"{value * 1000:.{0 if abs(value) >= 0.00995 else 1}f} ms"
    digits = max(0, 2 - math.floor(math.log10(max(1.0, abs(value)))))
    return f"{value:.{digits}f} s"
