"""Pane 4: one's own examples and what the model answers to them at each stage of training."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from tui.figures import count, percent, why
from tui.frame import Record, Samples, mark
from tui.panes.base import ScrollPane, words
from tui.safe import Line, Span, wrap

LABEL = 9
VERDICTS = {"o": ("exact", "good"), "x": ("close", "warn"), ".": ("wrong", "bad")}


def compare(expected: str, answer: str) -> list[Span]:
    """The answer against what was expected, word by word: [-missing-] and {+too much+}."""

    def parts(text: str) -> list[str]:
        return [part for part in text.replace(" ", "\0 ").split("\0") if part]

    old, new = parts(expected), parts(answer)
    spans: list[Span] = []
    for what, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = "".join(old[a:b]), "".join(new[c:d])
        if what == "equal":
            spans.append((gone, ""))
            continue
        if gone:
            spans.append((f"[-{gone}-]", "bad"))
        if come:
            spans.append((f"{{+{come}+}}", "good"))
    return spans


def wrap_spans(spans: list[Span], width: int) -> list[Line]:
    """Spans broken into lines of `width` columns."""
    lines: list[list[Span]] = [[]]
    used = 0
    for text, tone in spans:
        for index, piece in enumerate(wrap(text, max(1, width))):
            if index or used + len(piece) > width:
                lines.append([])
                used = 0
            lines[-1].append((piece, tone))
            used += len(piece)
    return [tuple(line) for line in lines]


class SamplesPane(ScrollPane):
    name_of = "samples"
    number = 4

    def __init__(self, choose: Callable[[int | None, str], None]) -> None:
        super().__init__()
        self.index = 0
        self.diff = False
        self._choose = choose
        self._asked_step: int | None = None
        self._cache: tuple[object, list[Line]] = (None, [])

    @property
    def samples(self) -> Samples | None:
        return self.frame.samples

    def title(self) -> str:
        samples = self.samples
        if samples is None:
            return ""
        exact = sum(bool(answer.get("exact")) for answer in samples.answers)
        share = percent(exact / len(samples.answers))
        place = f"{self._at(samples) + 1}/{len(samples.answers)}"
        return f"step {count(samples.step)} · {place} · exact {share}"

    def _at(self, samples: Samples) -> int:
        return self.index % len(samples.answers)

    def nothing_yet(self) -> str:
        return "no samples yet" if self.samples is None else ""

    def body(self, width: int) -> list[Line]:
        samples = self.samples
        if samples is None:
            reason = why(self.frame.status.get("samples_step")) or "no samples yet"
            return words([reason, "Answers to the held-out examples appear here as it learns."])
        key = (samples, self.index, self.diff, width)
        if self._cache[0] != key:
            self._cache = (key, self._answer(samples, samples.answers[self._at(samples)], width))
        return self._cache[1]

    def _answer(self, samples: Samples, answer: Record, width: int) -> list[Line]:
        lines: list[Line] = []
        room = width - LABEL

        def add(label: str, spans: list[Span]) -> None:
            for index, line in enumerate(wrap_spans(spans, room)):
                lines.append(((f"{label if not index else '':{LABEL}}", "dim"), *line))

        verdict, tone = VERDICTS[mark(answer)]
        prompt, expected = str(answer.get("prompt", "")), str(answer.get("expected", ""))
        given = str(answer.get("answer", ""))
        history = samples.history if samples.of == str(answer.get("example")) else ""
        add("history", [(history[-(room - 10) :] + "  ", "accent"), (verdict, tone)])
        if self.diff:
            add("diff", compare(expected, given))
        else:
            add("expected", [(expected, "")])
            add("answer", [(given or "(nothing)", tone)])
        add("prompt", [(prompt, "dim")])
        lines.append((("", ""),))
        lines.append((("history: o exact   x close   . wrong, oldest first", "dim"),))
        return lines

    # -- actions

    def _turn(self, by: int) -> None:
        samples = self.samples
        if samples is not None:
            self.index = (self._at(samples) + by) % len(samples.answers)
            self.offset_line = 0
            self._ask()
            self.set_title()
            self.redraw()

    def do_next_example(self) -> None:
        self._turn(1)

    def do_previous_example(self) -> None:
        self._turn(-1)

    def _step(self, by: int) -> None:
        samples = self.samples
        if samples is None:
            return
        now = samples.step if self._asked_step is None else self._asked_step
        at = sum(step <= now for step in samples.steps) - 1 + by
        self._asked_step = None if at >= len(samples.steps) - 1 else samples.steps[max(0, at)]
        self._ask()

    def _ask(self) -> None:
        """Have the poller read what is looked at."""
        samples = self.samples
        if samples is not None:
            example = str(samples.answers[self._at(samples)].get("example"))
            self._choose(self._asked_step, example)

    def do_earlier(self) -> None:
        self._step(-1)

    def do_later(self) -> None:
        self._step(1)

    def do_diff(self) -> None:
        self.diff = not self.diff
        self.redraw()
