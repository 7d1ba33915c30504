"""All that was answered to one example, step by step: only where the answer changed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.binding import Binding

from tui import history
from tui.dialogs.whole import WholeView
from tui.figures import count, loss, real
from tui.frame import Record, mark
from tui.panes.samples import VERDICTS, compare, labelled, short_id, wrap_spans
from tui.safe import Line

KEYS = "d diff  up/down scroll  g G ends  Esc close"


class DevelopmentView(WholeView):
    """`answers` are those to one example at all ticks, oldest first, at least one."""

    BINDINGS = [
        Binding("D", "leave", show=False),
        Binding("d", "diff", show=False),
    ]
    keys = KEYS

    def __init__(self, answers: Sequence[Record]) -> None:
        super().__init__(f"Example {short_id(answers[-1])} over time")
        self._answers = answers
        self._diff = False

    def begin(self) -> None:
        self._show()
        self.action_scroll(1_000_000)  # what it answers now stands at the end

    def _show(self) -> None:
        self.say(lambda width: development(self._answers, width, diff=self._diff))

    def action_diff(self) -> None:
        self._diff = not self._diff
        top = self._body.top
        self._show()
        self._body.scroll(top)


def development(answers: Sequence[Record], width: int, *, diff: bool) -> list[Line]:
    """The example, its history in words, and each answer under the ticks at which it was given."""
    newest = answers[-1]
    past = tuple((int(real(one.get("step")) or 0), mark(one)) for one in answers)
    lines: list[Line] = [
        *labelled("prompt", [(str(newest.get("prompt", "")), "dim")], width),
        *labelled("expected", [(str(newest.get("expected", "")), "")], width),
        *labelled("history", [(history.told(past), "")], width),
    ]
    for same in runs(answers):
        verdict, tone = VERDICTS[mark(same[-1])]
        text, expected = str(same[-1].get("answer", "")), str(same[-1].get("expected", ""))
        lines += [(), *wrap_spans([(f"{_steps(same)} ", "bold"), (verdict, tone)], width)]
        lines += wrap_spans([(_measured(same), "dim")], width)
        said = compare(expected, text) if diff else [(text or "(nothing)", "")]
        lines += [(("  ", ""), *line) for line in wrap_spans(said, width - 2)]
    return lines


def runs(answers: Sequence[Record]) -> list[list[Record]]:
    """The answers in groups of ticks after each other with the same text."""
    found: list[list[Record]] = []
    for answer in answers:
        if found and found[-1][-1].get("answer") == answer.get("answer"):
            found[-1].append(answer)
        else:
            found.append([answer])
    return found


def _steps(same: Sequence[Record]) -> str:
    first, last = count(same[0].get("step")), count(same[-1].get("step"))
    return f"step {first}" if len(same) == 1 else f"steps {first} to {last}, {len(same)} ticks,"


def _measured(same: Sequence[Record]) -> str:
    """Similarity of the answer, and how the loss of the expected one moved meanwhile."""
    losses = [value for one in same if (value := real(one.get("expected_loss"))) is not None]
    expected = "?" if not losses else loss(losses[0])
    if len(losses) > 1:
        expected += f" to {loss(losses[-1])}"
    unit = " nats a token" if losses else ""
    return f"similarity {loss(same[-1].get('similarity'))} · expected loss {expected}{unit}"
