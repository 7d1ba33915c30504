"""Running the checkers of a level over rows, one row at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

from engine.checks import answers, characters, conversation, forms
from engine.checks.findings import LEVELS, SHOWN, Checker, CheckReport, Finding, Problem
from engine.checks.held_out import NearHeldOut
from engine.checks.whole_file import DuplicatePrompt, DuplicateRow, LengthRatio
from queue_store.heldout import NOTHING, HeldOut
from queue_store.rows import Row


def checkers(level: str, held_out: HeldOut = NOTHING) -> list[Checker]:
    """Fresh checkers of a level and those below it. Raises ValueError for an unknown level."""
    if level not in LEVELS:
        raise ValueError(f"level {level!r} is unknown; known: {', '.join(LEVELS)}")
    everything: tuple[Checker, ...] = (
        answers.empty_answer,
        NearHeldOut(held_out.near, held_out.digests),
        answers.degenerate_answer,
        answers.repetition,
        characters.mojibake,
        characters.control_characters,
        conversation.turn_order,
        conversation.answer_leak,
        forms.json_answer,
        forms.emoji_protocol,
        DuplicateRow(),
        DuplicatePrompt(),
        LengthRatio(),
    )
    return [one for one in everything if LEVELS.index(one.level) <= LEVELS.index(level)]


def versions(level: str) -> dict[str, str]:
    """The names and versions of a level's checkers: what they find is decided by these."""
    return {checker.name: checker.version for checker in checkers(level)}


class Checks:
    """The checkers of a level at work on the rows of one file."""

    def __init__(self, level: str, held_out: HeldOut = NOTHING) -> None:
        self.level = level
        self._checkers = checkers(level, held_out)
        self._counts = dict.fromkeys((checker.name for checker in self._checkers), 0)
        self._found: dict[str, list[Finding]] = {name: [] for name in self._counts}
        self._rows = 0

    def look(self, row: Row) -> str | None:
        """Note what is found in a row; the reason why it must not train, None where it may."""
        self._rows += 1
        reason = None
        for checker in self._checkers:
            problem = checker.look(row)
            if problem is not None:
                self._note(checker, row.line, problem)
                if problem.severity == "error" and reason is None:
                    reason = f"{checker.name}: {problem.text}"
        return reason

    def report(self) -> CheckReport:
        """What was found, once all rows were looked at."""
        for checker in self._checkers:
            for line, problem in checker.finish():
                self._note(checker, line, problem)
        # A checker that finds something in every row must not hide what the others found.
        turns = zip_longest(*self._found.values())
        fair = [found for turn in turns for found in turn if found is not None][:SHOWN]
        return CheckReport(
            level=self.level,
            rows=self._rows,
            findings=tuple(sorted(fair, key=lambda found: (found.line, found.checker))),
            counts=dict(self._counts),
            versions={checker.name: checker.version for checker in self._checkers},
        )

    def _note(self, checker: Checker, line: int, problem: Problem) -> None:
        self._counts[checker.name] += 1
        kept = self._found[checker.name]
        if len(kept) < SHOWN:
            kept.append(
                Finding(
                    checker.name,
                    checker.version,
                    checker.level,
                    problem.severity,
                    line,
                    problem.text,
                )
            )


def run_checks(rows: Iterable[Row], level: str, held_out: HeldOut = NOTHING) -> CheckReport:
    """What the checkers of `level` and those below it find in `rows`. With `held_out` (see
    queue_store.heldout.held_out), rows that nearly are in an evaluation set too. Raises
    ValueError for an unknown level."""
    checks = Checks(level, held_out)
    for row in rows:
        checks.look(row)
    return checks.report()
