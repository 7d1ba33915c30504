"""The report of a check of rows alone, as the quick level prints it; imports no tokenizer."""

from __future__ import annotations

from typing import Any

from engine.messages import unknown
from queue_store.rows import QuickCheck


def quick(check: QuickCheck) -> dict[str, Any]:
    """The report of a row check; what only a tokenizer knows is unknown at this level."""
    not_read = unknown("the quick level does not tokenize")
    rejected = [{"line": bad.line, "reason": bad.reason} for bad in check.rejected]
    count = check.rejected_count
    return {
        "file_digest": check.digest,
        "size_bytes": check.size,
        "spec": check.spec,
        "level": "quick",
        "lines": check.lines,
        "accepted": check.accepted,
        "rejected": rejected,
        "rejected_count": count,
        "tokens": not_read,
        "over_limit": not_read,
        "masks": not_read,
        "checks": unknown("the quick level does not look at contents"),
        "problems": [wrong(count, rejected)] if count else [],
        "suggestions": [mend(count, rejected)] if count and check.accepted else [],
        "proposals": [],
    }


def wrong(count: int, rejected: list[dict[str, Any]]) -> str:
    """How many rows are wrong, and the first of them."""
    first = f"line {rejected[0]['line']}: {rejected[0]['reason']}"
    return f"1 row is wrong: {first}" if count == 1 else f"{count} rows are wrong, first {first}"


def mend(count: int, rejected: list[dict[str, Any]]) -> str:
    """What to do about rows that are wrong."""
    first = f"line {rejected[0]['line']}"
    lines = first if count == 1 else f"{count} rejected lines (first: {first})"
    return f'mend {lines}, or set data.bad_rows = "drop" to train without'
