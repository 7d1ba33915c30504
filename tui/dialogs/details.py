"""What there is to read about one item and one event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tui.dialogs.base import Fact
from tui.figures import clock_time, count, counted, duration, known, percent, real, short, size, why
from tui.frame import Record
from tui.rowtext import thinking

REJECTED_SHOWN = 5
FAILED = "FAILED"
FINDINGS_SHOWN = 5


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
    if item.get("error") and item.get("reason"):
        facts.append(("class", str(item.get("reason"))))
    facts += [
        ("trained", f"step {count(item.get('step'))} of {_value(item.get('steps'))}"),
        ("rows", _rows(item)),
        ("lines", f"{_value(item.get('lines'))}, {_value(item.get('accepted'))} accepted"),
    ]
    if known(item.get("size")):
        facts.append(("size", size(item.get("size"))))
    if item.get("source"):
        facts.append(("from", str(item.get("source"))))
    attempts = list(item.get("attempts") or ())
    for number, attempt in enumerate(attempts, 1):
        facts.append((f"try {attempt.get('n')}", _attempt(attempt)))
        advice = attempt.get("advice")
        # Where it failed the same way again, once is enough.
        if advice and all(later.get("advice") != advice for later in attempts[number:]):
            facts.append(("", f"what to do: {advice}"))
    rejected = item.get("rejected") or ()
    for row in list(rejected)[:REJECTED_SHOWN]:
        facts.append((f"line {row.get('line')}", str(row.get("reason"))))
    if len(rejected) > REJECTED_SHOWN:
        facts.append(("", f"and {len(rejected) - REJECTED_SHOWN} more refused lines"))
    facts.extend(_report(item.get("report")))
    facts.extend(lineage_facts(item.get("lineage")))
    return facts


def lineage_facts(lineage: Any) -> list[Fact]:
    """What made the file, by its sidecar, and what was found where the two differ."""
    if not isinstance(lineage, Mapping):
        return []
    said = lineage.get("generator")
    if not isinstance(said, Mapping) or why(said):
        facts: list[Fact] = [("lineage", why(said) or "not known")]
    else:
        rows = said.get("example_count")
        parts = (
            f"{said.get('generator_id')} {said.get('generator_version')}",
            str(said.get("generated_at") or ""),
            counted(rows, "row") if known(rows) else "",
        )
        facts = [("lineage", ", ".join(part for part in parts if part))]
        params = said.get("params")
        if isinstance(params, Mapping) and params:
            facts.append(("made with", ", ".join(f"{key} {params[key]}" for key in params)))
    facts += [("note", str(note)) for note in lineage.get("notes") or ()]
    clean = 0
    for one in lineage.get("validators") or ():
        if not one.get("errors") and not one.get("warnings"):
            clean += 1
            continue
        found = [counted(one.get(key), key.rstrip("s")) for key in ("errors", "warnings")]
        who = " ".join(str(one.get(key)) for key in ("name", "version") if one.get(key))
        facts.append(("checked", f"{who}: {', '.join(found)}"))
    if clean:
        facts.append(("checked", f"{counted(clean, 'checker')} found nothing"))
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
    """What preparing the item found: lengths, rows left out, packs, rows that
    validate, masks and their checks."""
    tokens = report.get("tokens") if isinstance(report, Mapping) else None
    if not isinstance(tokens, Mapping):
        return []
    parts = [
        f"{key} {short(tokens[key])}"
        for key in ("mean", "p50", "p95", "p99", "max")
        if key in tokens
    ]
    facts: list[Fact] = [("tokens", ", ".join(parts))]
    over, held = report.get("over_limit"), report.get("held_out")
    dropped = []
    if isinstance(over, Mapping) and real(over.get("count")):
        limit = count(over.get("max_length"))
        dropped.append(f"{counted(over.get('count'), 'row')} over {limit} tokens")
    if held:
        dropped.append(f"{counted(len(held), 'row')} in an evaluation set")
    if real(report.get("rejected_count")):
        dropped.append(f"{counted(report.get('rejected_count'), 'row')} refused")
    facts.append(("left out", ", ".join(dropped) or "nothing"))
    packing, masks = report.get("packing"), report.get("masks")
    if isinstance(packing, Mapping):
        fill = percent(packing.get("fill"))
        facts.append(("packs", f"{count(packing.get('packs'))}, {fill} filled"))
    validation = report.get("validation")
    if isinstance(validation, Mapping):
        facts.append(("validates", count(validation.get("rows"))))
    if isinstance(masks, Mapping):
        facts.append(("trains", f"{percent(masks.get('trained_share'))} of the tokens"))
        told = thinking(masks.get("thinking"))
        facts.extend([("thinking", told)] if told else [])
        facts.extend(mask_checks(masks.get("checks")))
    facts.extend(_contents(report.get("checks")))
    return facts


def _contents(checks: Any) -> list[Fact]:
    """What the checkers of contents found, and the first of it by its line."""
    counts = checks.get("counts") if isinstance(checks, Mapping) else None
    if not isinstance(checks, Mapping) or not isinstance(counts, Mapping):
        return []
    told = [f"{name} {count(number)}" for name, number in counts.items() if number]
    facts: list[Fact] = [("contents", f"{checks.get('level')}: {', '.join(told) or 'nothing'}")]
    for found in list(checks.get("findings") or ())[:FINDINGS_SHOWN]:
        facts.append((f"line {found.get('line')}", f"{found.get('checker')}: {found.get('text')}"))
    return facts


def mask_checks(checks: Any) -> list[Fact]:
    """The checks of the masks: how many passed, and each that failed in its own words."""
    found = [check for check in checks or () if isinstance(check, Mapping)]
    failed = [check for check in found if not check.get("passed")]
    facts: list[Fact] = []
    if found:
        facts.append(("masks", f"{len(found) - len(failed)} of {len(found)} checks passed"))
    for check in failed:
        where = f", line {check['line']}" if check.get("line") is not None else ""
        facts.append((FAILED, f"{check.get('name')}{where}: {check.get('text')}"))
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
