"""A deep validation as it runs, and its report: scrolled, closed and come back to, broken off."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from textual.binding import Binding

from tui.dialogs.base import Fact
from tui.dialogs.details import FAILED, mask_checks
from tui.dialogs.item import facts_under
from tui.dialogs.whole import WholeView
from tui.figures import bar, count, counted, duration, known, percent, real, short, size, why
from tui.frame import Record
from tui.histogram import bars
from tui.safe import Line, wrap

LOOK_SECONDS = 0.5
LINES_SHOWN = 20


@dataclass
class Validation:
    """One validation, written by its thread and read by the screen. `report` or `problem` is
    there once it has ended."""

    name: str
    stop: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0
    report: Record | None = None
    problem: str = ""

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    @property
    def running(self) -> bool:
        return self.report is None and not self.problem

    def outcome(self) -> str:
        """What came of it, in a line."""
        if self.report is None:
            return self.problem
        problems = self.report.get("problems") or ()
        found = sum(_counts(self.report).values())
        told = counted(len(problems), "problem") if problems else "no problem"
        return f"{self.name}: {told}" + (f", {counted(found, 'finding')}" if found else "")


class ValidationView(WholeView):
    """Follows a validation; closing it leaves it running."""

    BINDINGS = [
        Binding("v", "leave", show=False),
        Binding("c", "cancel", show=False),
    ]

    def __init__(self, validation: Validation) -> None:
        super().__init__(f"Validate {validation.name}, deep")
        self.validation = validation
        self._shown = ""

    @property
    def keys(self) -> str:  # type: ignore[override]
        running = self.validation.running
        return "c break off  Esc close, it goes on" if running else "up/down scroll  Esc close"

    def begin(self) -> None:
        self.look()
        self.set_interval(LOOK_SECONDS, self.look)

    def look(self) -> None:
        """Show how far it is, or once what came of it."""
        found = self.validation
        if found.running:
            text = _under_way(found)
            self._body.say(lambda width: [((line, ""),) for line in wrap(text, width)])
        elif self._shown != "end":
            self._shown = "end"
            report, ascii = found.report, self.ascii
            if report is None:
                self._body.say(lambda width: [((t, "bad"),) for t in wrap(found.problem, width)])
            else:
                self._body.say(lambda width: report_lines(report, width, ascii=ascii))
        self.call_after_refresh(self.foot)

    def action_cancel(self) -> None:
        if self.validation.running:
            self.validation.stop.set()
            self.dismiss(None)


def _under_way(found: Validation) -> str:
    taken = duration(time.monotonic() - found.started)
    if not found.total:
        return f"loading the tokenizer and reading the rows, {taken}"
    share = found.done / found.total
    read = f"{size(found.done)} of {size(found.total)}"
    return f"[{bar(share, 30)}] {percent(share)} of the rows made tokens of: {read}, {taken}"


def _counts(report: Record) -> dict[str, int]:
    checks = report.get("checks")
    found = checks.get("counts") if isinstance(checks, Mapping) else None
    return {name: int(n) for name, n in found.items() if n} if isinstance(found, Mapping) else {}


def report_lines(report: Record, width: int, *, ascii: bool = False) -> list[Line]:
    """What is wrong first, then the counts, the lengths as bars, and each finding by its line."""
    found = facts_under(report_facts(report), width, ascii=ascii)
    tokens = report.get("tokens")
    if isinstance(tokens, Mapping) and known(tokens):
        limit = int(real((report.get("over_limit") or {}).get("max_length")) or 0)
        drawn = bars(tokens.get("histogram"), width, limit=limit, ascii=ascii)
        if drawn:
            title: Line = (("rows by their length in tokens", "bold"),)
            found += [(), title, *(((line, ""),) for line in drawn)]
    told = facts_under(line_facts(report), width, ascii=ascii)
    return [*found, *([(), (("by line", "bold"),), *told] if told else [])]


def report_facts(report: Record) -> list[Fact]:
    """Problems, suggestions and counts of a report."""
    facts: list[Fact] = [(FAILED, str(text)) for text in report.get("problems") or ()]
    if not facts:
        facts.append(("fine", "nothing keeps it from training"))
    facts += [("suggestion", str(text)) for text in report.get("suggestions") or ()]
    if report.get("level_reason"):
        facts.append(("level", f"{report.get('level')}: {report.get('level_reason')}"))
    lines = f"{count(report.get('lines'))}, {count(report.get('accepted'))} accepted"
    facts.append(("lines", f"{lines}, {count(report.get('rejected_count'))} refused"))
    tokens = report.get("tokens")
    if not isinstance(tokens, Mapping) or why(tokens):
        return facts
    parts = [f"{key} {short(tokens.get(key))}" for key in ("mean", "p50", "p95", "p99", "max")]
    facts.append(("tokens", ", ".join(parts)))
    held, over = report.get("held_out") or {}, report.get("over_limit") or {}
    facts.append(("trains", counted(report.get("rows"), "row")))
    apart = report.get("validation") or {}
    if real(apart.get("rows")):
        facts.append(("validates", counted(apart.get("rows"), "row")))
    facts += [
        ("held out", f"{counted(held.get('count'), 'row')} in an evaluation set"),
        ("too long", f"{counted(over.get('count'), 'row')} over {count(over.get('max_length'))}"),
    ]
    packing, masks = report.get("packing"), report.get("masks")
    if isinstance(packing, Mapping):
        fill = percent(packing.get("fill"))
        facts.append(("packs", f"{count(packing.get('packs'))}, {fill} filled"))
    if isinstance(masks, Mapping):
        facts.append(("masks", f"{percent(masks.get('trained_share'))} of the tokens train"))
        facts += mask_checks(masks.get("checks"))
    found = [f"{name} {count(number)}" for name, number in _counts(report).items()]
    facts.append(("contents", ", ".join(found) or "nothing found"))
    return facts


def line_facts(report: Record) -> list[Fact]:
    """The lines that are refused, and the findings of the checkers."""
    facts: list[Fact] = [
        (f"line {row.get('line')}", str(row.get("reason")))
        for row in list(report.get("rejected") or ())[:LINES_SHOWN]
    ]
    rest = int(real(report.get("rejected_count")) or 0) - len(facts)
    if rest > 0:
        facts.append(("", f"and {counted(rest, 'more refused line')}"))
    checks: Any = report.get("checks")
    findings = checks.get("findings") if isinstance(checks, Mapping) else ()
    facts += [
        (f"line {one.get('line')}", f"{one.get('checker')}: {one.get('text')}")
        for one in findings or ()
    ]
    return facts
