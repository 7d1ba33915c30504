"""validate: check a file as intake would, train nothing, change nothing, need no home."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from queue_store.rows import QuickCheck, quick_check
from trainctl.context import Context
from trainctl.output import count, pairs, table

SHOWN = 100
NOT_READ = {"unknown": "the quick level does not tokenize"}


def validate(context: Context, arguments: argparse.Namespace) -> int:
    """The row check of a file; exit 1 if a row is wrong. Raises DataError if it cannot be read."""
    check = quick_check(Path(arguments.file).expanduser(), limit=SHOWN)
    data = report(check)
    context.show(data, lambda: _plain(arguments.file, check, data))
    return 1 if check.rejected_count else 0


def report(check: QuickCheck) -> dict[str, Any]:
    """The JSON of `validate`; what only a tokenizer knows is unknown at this level."""
    suggestions = []
    if check.rejected_count and check.accepted:
        suggestions.append(
            'mend the rejected lines, or set data.bad_rows = "drop" to train without them'
        )
    return {
        "file_digest": check.digest,
        "size_bytes": check.size,
        "spec": check.spec,
        "level": "quick",
        "lines": check.lines,
        "accepted": check.accepted,
        "rejected": [{"line": bad.line, "reason": bad.reason} for bad in check.rejected],
        "rejected_count": check.rejected_count,
        "tokens": NOT_READ,
        "over_limit": NOT_READ,
        "masks": NOT_READ,
        "suggestions": suggestions,
    }


def _plain(file: str, check: QuickCheck, data: dict[str, Any]) -> str:
    parts = [
        pairs(
            [
                ("file", file),
                ("spec", check.spec),
                ("rows", count(check.lines)),
                ("accepted", count(check.accepted)),
                ("rejected", count(check.rejected_count)),
            ]
        ),
        table((">line", "rejected because"), [(bad.line, bad.reason) for bad in check.rejected]),
    ]
    if check.rejected_count > len(check.rejected):
        parts.append(f"… and {count(check.rejected_count - len(check.rejected))} more")
    parts += data["suggestions"]
    return "\n".join(part for part in parts if part)
