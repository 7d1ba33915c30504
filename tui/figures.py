"""Figures as the screen writes them: one way to print a step, a loss, a size or a time.

The engine tells what it does not know as {"unknown": why}: here it becomes "?", and `why`
keeps the reason. Nothing here ever prints None, and nothing raises on a strange value.
"""

from __future__ import annotations

import math
import time
from typing import Any

UNKNOWN = "?"
NONE = "–"


def why(value: Any) -> str:
    """The reason why a value is unknown, "" if it is known."""
    if isinstance(value, dict) and "unknown" in value:
        return str(value["unknown"])
    return ""


def known(value: Any) -> bool:
    """Whether there is a value to print."""
    return value is not None and not why(value)


def real(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _missing(value: Any) -> str:
    if why(value):
        return UNKNOWN
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, float) and math.isinf(value):
        return "Inf"
    return NONE


def count(value: Any) -> str:
    """A whole number in groups of three: 18 402."""
    number = real(value)
    return _missing(value) if number is None else f"{int(number):,}".replace(",", " ")


def counted(value: Any, noun: str) -> str:
    """A number with its noun: 1 step, 18 402 steps."""
    return f"{count(value)} {noun}" + ("" if value == 1 else "s")


def short(value: Any) -> str:
    """A whole number in about four characters: 950, 1.2k, 18k, 3.4M."""
    number = real(value)
    if number is None:
        return _missing(value)
    if abs(number) < 1000:
        return f"{number:.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)):
        scaled = number / size
        if abs(scaled) < 999.5 or unit == "T":
            return f"{scaled:.0f}{unit}" if abs(scaled) >= 9.95 else f"{scaled:.1f}{unit}"
    return f"{number:.0e}"


def loss(value: Any) -> str:
    """Four significant figures or three decimals: 2.310, 0.137, 0.0042."""
    number = real(value)
    if number is None:
        return _missing(value)
    if number == 0:
        return "0"
    if abs(number) >= 1000 or abs(number) < 1e-4:
        return f"{number:.1e}"
    return f"{number:.3f}" if abs(number) >= 0.01 else f"{number:.4f}"


def rate(value: Any) -> str:
    """A learning rate: 2.0e-04."""
    number = real(value)
    return _missing(value) if number is None else f"{number:.1e}"


def percent(value: Any) -> str:
    """A share of one as per cent: 61%."""
    number = real(value)
    return _missing(value) if number is None else f"{number * 100:.0f}%"


def size(value: Any) -> str:
    """Bytes in decimal units: 61 GB, 1.2 MB."""
    number = real(value)
    if number is None:
        return _missing(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 999.5 or unit == "TB":
            few = unit != "B" and abs(number) < 9.95
            return f"{number:.1f} {unit}" if few else f"{number:.0f} {unit}"
        number /= 1000
    return UNKNOWN


def gigabytes(value: Any) -> str:
    """Bytes for a meter, without a unit: 19, 0.4 (GB)."""
    number = real(value)
    if number is None:
        return _missing(value)
    return f"{number / 1e9:.0f}" if number >= 9.95e9 else f"{number / 1e9:.1f}"


def duration(value: Any) -> str:
    """Seconds as 12s, 7m31s, 2h05m, 3d04h."""
    number = real(value)
    if number is None:
        return _missing(value)
    seconds = max(0, round(number))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86400}d{seconds % 86400 // 3600:02d}h"


def age(now: float, then: Any) -> str:
    """How long ago, in two or three characters: 8s, 2m, 5h, 3d."""
    number = real(then)
    if number is None:
        return _missing(then)
    seconds = max(0.0, now - number)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def clock_time(seconds: object, *, date: bool = False) -> str:
    """Local time of day, with the date where asked."""
    number = real(seconds)
    if number is None:
        return "--:--"
    return time.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M", time.localtime(number))


def day(seconds: object) -> str:
    """The local date of a time, "" where it is not known."""
    number = real(seconds)
    return "" if number is None else time.strftime("%Y-%m-%d", time.localtime(number))


def bar(share: float, width: int) -> str:
    """A bar that also a terminal without colour shows: ####...... ."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "#" * full + "." * (width - full)
