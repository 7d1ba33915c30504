"""A row on a terminal or in a pipe: what trains bright, the rest dim; or brackets round it."""

from __future__ import annotations

import os
import sys
from typing import Any

from queue_store.safe import safe, safe_line
from trainctl.output import count, counted
from tui.rowtext import ASCII_MARKS, MARKS, printed


def ascii_only() -> bool:
    """Whether stdout cannot carry more than ASCII."""
    try:
        "⟦⏎█▏␛".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def colour() -> bool:
    """Whether stdout is a terminal that may show colour (no-color.org)."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") not in ("", "dumb")
    )


def legend() -> str:
    """What marks the trained text in `print_row`."""
    left, right = ASCII_MARKS if ascii_only() else MARKS
    return "bright trains, dim does not" if colour() else f"{left}…{right} trains"


def print_row(row: dict[str, Any]) -> None:
    """A row of `validate --tokens` or `show --row` for a person."""
    if "error" in row:
        print(f"line {row['line']}: wrong: {safe_line(row['error'])}\n")
        return
    trained = sum(row["trained"])
    share = f"{count(trained)} train" if trained != 1 else "1 trains"
    left_out = f"; left out: {safe_line(row['left_out'])}" if row["left_out"] else ""
    head = f"line {row['line']}: {counted(len(row['ids']), 'token')}, {share}{left_out}"
    text = printed(row["segments"], colour=colour(), ascii=ascii_only())
    # `printed` has cleaned every piece; a second look at the whole would take the colours away.
    print(f"{safe(head)}\n{text}\n")
