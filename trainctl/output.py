"""Text for people: aligned tables and readable numbers. Scripts get JSON instead.

Every cell passes `safe_line`: names, reasons and error texts are other people's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from queue_store.safe import cell_width, safe_line

UNKNOWN = "-"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "") -> str:
    """Rows under their column titles; a title that begins with ">" is aligned to the right.

    `empty` is what to say where there are no rows.
    """
    cells = [[text(value) for value in row] for row in rows]
    if not cells:
        return empty
    titles = [title.lstrip(">") for title in columns]
    right = [title.startswith(">") for title in columns]
    widths = [
        max(cell_width(line[place]) for line in (titles, *cells)) for place in range(len(titles))
    ]
    lines = []
    for line in (titles, *cells):
        padded = []
        for cell, width, to_right in zip(line, widths, right, strict=True):
            space = " " * (width - cell_width(cell))
            padded.append(space + cell if to_right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def pairs(rows: Iterable[tuple[str, Any]]) -> str:
    """`key  value` lines, the values aligned; a value of "" leaves its line out."""
    shown = [(key, text(value)) for key, value in rows]
    shown = [(key, value) for key, value in shown if value]
    width = max((cell_width(key) for key, _ in shown), default=0)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in shown)


def text(value: Any) -> str:
    """A value as a cell: unknowns with their reason, floats short, no control characters."""
    if value is None:
        return UNKNOWN
    if isinstance(value, dict) and set(value) == {"unknown"}:
        return f"unknown: {safe_line(str(value['unknown']))}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return safe_line(str(value))


def known(value: Any) -> bool:
    """False for None and for {"unknown": why}."""
    return value is not None and not (isinstance(value, dict) and "unknown" in value)


def count(value: Any) -> str:
    """18402 as "18 402"; unknowns as `text` says them."""
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else text(value)


def counted(value: Any, one: str, many: str = "") -> str:
    """ "1 line", "3 lines"; unknowns as `text` says them."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def progress(done: Any, whole: Any) -> str:
    """ "12 of 80 (15 %)", or "12" where the whole is not known yet."""
    if not known(whole):
        return count(done)
    share = percent(done, whole)
    return f"{count(done)} of {count(whole)}" + (f" ({share})" if share else "")


def size(value: Any) -> str:
    """Bytes as people say them, decimal: 1234567890 is "1.2 GB"."""
    if not isinstance(value, (int, float)):
        return text(value)
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(amount) < 999.5 or unit == "TB":
            return (
                f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
            )
        amount /= 1000
    raise AssertionError("the last unit takes every amount")


def duration(seconds: Any) -> str:
    """Seconds as "45 s", "3 m", "2 h 05 m" or "3 d 4 h"."""
    if not isinstance(seconds, (int, float)):
        return text(seconds)
    if 0 < seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ago(moment: Any, now: float | None = None) -> str:
    """A time in seconds since the epoch as "3 m ago"."""
    if not isinstance(moment, (int, float)):
        return text(moment)
    past = (time.time() if now is None else now) - moment
    return "now" if past < 1 else f"{duration(round(past))} ago"


def clock(moment: Any) -> str:
    """A time in seconds since the epoch as local date and time."""
    if not isinstance(moment, (int, float)):
        return text(moment)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def percent(part: Any, whole: Any) -> str:
    """`part` of `whole` in percent, "" where either is unknown or the whole is 0."""
    if not isinstance(part, (int, float)) or not isinstance(whole, (int, float)) or not whole:
        return ""
    return f"{100 * part / whole:.0f} %"
