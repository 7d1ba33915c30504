"""What preparing found in a file: counts, token lengths, masks, packing. Plain JSON values.

These numbers are what a person decides by (max_length, over_length), so they cover every row
of the file and not a sample (D04).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.prepare.packing import at_least
from queue_store.errors import DataError
from queue_store.rows import BadRow

BINS = 24
SHOWN = 100
"""How many refused rows the report names; the counts cover all."""


@dataclass
class Findings:
    """What the pass over a file has gathered; lines count from 1."""

    lines: int = 0
    lengths: array[int] = field(default_factory=lambda: array("i"))
    rejected: list[BadRow] = field(default_factory=list)
    rejected_count: int = 0
    over_length: list[int] = field(default_factory=list)
    held_out: list[int] = field(default_factory=list)
    longest: tuple[int, int] = (0, 0)  # tokens, line
    trained_tokens: int = 0
    chats: int = 0
    completions: int = 0

    def reject(self, bad: BadRow) -> None:
        self.rejected_count += 1
        if len(self.rejected) < SHOWN:
            self.rejected.append(bad)


def too_bad(count: int, lines: int, limit: float) -> str:
    """Why data.bad_rows = "drop" does not take a file with `count` bad rows of `lines`: more than
    the share `limit` of it is not what was meant. "" where it does."""
    if count <= round(limit * lines, 6):
        return ""
    return (
        f"{count} of {lines} rows are bad ({count / lines:.1%}, and data.bad_rows_limit is"
        f" {limit:.1%})"
    )


def refuse_if_too_bad(findings: Findings, limit: float, name: str) -> None:
    """Raises DataError for a file that is `too_bad`; it counts the rows and names the first."""
    count = findings.rejected_count
    reason = too_bad(count, findings.lines, limit)
    if not reason:
        return
    first, share = findings.rejected[0], math.ceil(count / findings.lines * 1000) / 1000
    raise DataError(
        f"{reason}; line {first.line}: {first.reason}",
        where=name,
        mend=f"mend the rows, or set data.bad_rows_limit = {share}",
    )


def token_statistics(lengths: Sequence[int]) -> dict[str, Any]:
    """Of row lengths in tokens: total, max, mean, p50, p95, p99, and a histogram as
    {"edges": int[BINS + 1], "counts": int[BINS]}; zeros and empty lists without rows.
    """
    if not len(lengths):
        empty: dict[str, Any] = dict.fromkeys(("total", "max", "mean", "p50", "p95", "p99"), 0)
        return {**empty, "histogram": {"edges": [], "counts": []}}
    values = np.asarray(lengths, dtype=np.int64)
    top = int(values.max())
    # Whole numbers of tokens to a bin, so that an edge means what it says.
    width = -(-(top + 1) // BINS)
    edges = np.arange(BINS + 1, dtype=np.int64) * width
    counts, _ = np.histogram(values, bins=edges)
    p50, p95, p99 = np.percentile(values, [50, 95, 99], method="inverted_cdf").tolist()
    return {
        "total": int(values.sum()),
        "max": top,
        "mean": round(float(values.mean()), 1),
        "p50": int(p50),
        "p95": int(p95),
        "p99": int(p99),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def build(
    findings: Findings,
    *,
    max_length: int,
    kept: np.ndarray,
    packs: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    ways: Mapping[str, int],
    checks: Sequence[Mapping[str, Any]] = (),
    end_tokens: Sequence[str] = (),
    thinking: Mapping[str, Any] | None = None,
    rendering: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The report. `kept` int64[R]: tokens of each row that trains or validates; `packs` and
    `validation`: (offsets, rows); `checks` of the masks, the tokens that answers end with, what
    became of thinking, and what made text of the rows.
    """
    offsets, rows = packs
    tokens = int(kept[rows].sum()) if len(rows) else 0
    count = len(offsets) - 1
    longest = int(kept.max()) if len(kept) else 0
    total = int(kept.sum())
    return {
        "lines": findings.lines,
        "accepted": findings.lines - findings.rejected_count,
        "rejected": [{"line": bad.line, "reason": bad.reason} for bad in findings.rejected],
        "rejected_count": findings.rejected_count,
        "rows": len(rows),
        "chat_rows": findings.chats,
        "text_rows": findings.completions,
        "held_out": findings.held_out,
        "held_out_share": round(len(findings.held_out) / max(1, findings.lines), 4),
        "over_length": findings.over_length,
        "over_limit": {
            "count": len(findings.over_length),
            "share": round(len(findings.over_length) / max(1, len(findings.lengths)), 4),
            "max_length": max_length,
            "longest": findings.longest[0],
            "longest_line": findings.longest[1],
        },
        "tokens": token_statistics(findings.lengths),
        "masks": {
            "ways": dict(ways),
            "trained_tokens": findings.trained_tokens,
            "trained_share": round(findings.trained_tokens / max(1, total), 4),
            "thinking": dict(thinking or {}),
            "end_tokens": list(end_tokens),
            "checks": [dict(check) for check in checks],
        },
        "rendering": dict(rendering or {}),
        "packing": {
            "packs": count,
            "at_least": at_least(kept[rows], max_length),
            "tokens": tokens,
            "longest_pack": _longest_pack(kept[rows], offsets),
            "fill": round(tokens / max(1, count * max_length), 4),
            "longest_row": longest,
        },
        "validation": {
            "rows": len(validation[1]),
            "packs": len(validation[0]) - 1,
        },
    }


def _longest_pack(lengths: np.ndarray, offsets: np.ndarray) -> int:
    """Tokens of the longest pack; `lengths` int64[R] in the order of the packs."""
    return int(np.add.reduceat(lengths, offsets[:-1]).max()) if len(lengths) else 0
