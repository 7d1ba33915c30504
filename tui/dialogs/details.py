"""What there is to read about one item and one event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.dialogs.base import Fact
from tui.figures import count, counted, duration, known, real, short, size, why
from tui.frame import Record
from tui.panes.events import clock_time

REJECTED_SHOWN = 5


def _value(value: Any) -> str:
    reason = why(value)
    return f"? ({reason})" if reason else count(value)


def item_facts(item: Record) -> list[Fact]:
    """State and reason, counts, attempts, and the first rows that were refused."""
    facts: list[Fact] = [("state", f"{item.get('state')}, {item.get('priority')} priority")]
    for key in ("error", "reason"):
        if item.get(key):
            facts.append(("why", str(item.get(key))))
            break
    facts += [
        ("trained", f"step {count(item.get('step'))} of {_value(item.get('steps'))}"),
        ("rows", _rows(item)),
        ("lines", f"{_value(item.get('lines'))}, {_value(item.get('accepted'))} accepted"),
    ]
    if known(item.get("size")):
        facts.append(("size", size(item.get("size"))))
    if item.get("source"):
        facts.append(("from", str(item.get("source"))))
    facts.extend(_report(item.get("report")))
    for attempt in item.get("attempts") or ():
        facts.append((f"try {attempt.get('n')}", _attempt(attempt)))
        if attempt.get("advice"):
            facts.append(("", f"what to do: {attempt.get('advice')}"))
    rejected = item.get("rejected") or ()
    for row in list(rejected)[:REJECTED_SHOWN]:
        facts.append((f"line {row.get('line')}", str(row.get("reason"))))
    if len(rejected) > REJECTED_SHOWN:
        facts.append(("", f"and {len(rejected) - REJECTED_SHOWN} more refused lines"))
    return facts


def _rows(item: Record) -> str:
    rows, epochs = item.get("rows"), item.get("epochs")
    if not known(rows):
        return _value(rows)
    return (
        f"{count(rows)} an epoch, {counted(epochs, 'epoch') if known(epochs) else _value(epochs)}"
    )


def _attempt(attempt: Mapping[str, Any]) -> str:
    started, ended = real(attempt.get("started")), real(attempt.get("ended"))
    text = clock_time(started, date=True)
    if started is not None and ended is not None:
        text += f", {duration(ended - started)}"
    cause, error = str(attempt.get("cause") or ""), str(attempt.get("error") or "")
    return ", ".join(part for part in (text, cause, error) if part)


def _report(report: Any) -> list[Fact]:
    """The lengths of the rows in tokens, where the item was prepared."""
    tokens = report.get("tokens") if isinstance(report, Mapping) else None
    if not isinstance(tokens, Mapping):
        return []
    parts = [
        f"{key} {short(tokens[key])}" for key in ("mean", "p95", "p99", "max") if key in tokens
    ]
    facts: list[Fact] = [("tokens", ", ".join(parts))]
    if real(report.get("over_limit")):
        facts.append(("too long", f"{count(report.get('over_limit'))} rows, left out"))
    return facts


def event_facts(event: Record) -> list[Fact]:
    """The whole text, when, and what it was about."""
    facts: list[Fact] = [
        ("time", clock_time(event.get("time"), date=True)),
        ("kind", str(event.get("kind", ""))),
    ]
    facts += [
        (key, str(event.get(key))) for key in ("item", "branch", "step") if known(event.get(key))
    ]
    return [*facts, str(event.get("text", ""))]
