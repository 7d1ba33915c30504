"""All that was answered to one example, step by step: only where the answer changed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from tui import history
from tui.dialogs.item import TIGHT, Body
from tui.figures import count, loss, real
from tui.frame import Record, mark
from tui.panes.samples import VERDICTS, compare, labelled, short_id, wrap_spans
from tui.safe import Line, content

KEYS = "d diff  up/down scroll  g G ends  Esc close"


class DevelopmentView(ModalScreen[None]):
    """`answers` are those to one example at all ticks, oldest first, at least one."""

    BINDINGS = [
        Binding("escape,q,enter,D", "leave", show=False),
        Binding("d", "diff", show=False),
        Binding("down,j", "scroll(1)", show=False),
        Binding("up,k", "scroll(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("home,g", "scroll(-1000000)", show=False),
        Binding("end,G", "scroll(1000000)", show=False),
    ]
    AUTO_FOCUS = "#item-body"

    def __init__(self, answers: Sequence[Record]) -> None:
        super().__init__()
        self._answers = answers
        self._diff = False
        self._body = Body()

    def compose(self) -> ComposeResult:
        self.set_class(self._ascii(), "-ascii")
        title = f"Example {short_id(self._answers[-1])} over time"
        with Vertical(id="dialog"):
            yield Static(content(title), id="title")
            yield self._body
            yield Static(id="foot")

    def on_mount(self) -> None:
        self._fit()
        self._show()
        self.action_scroll(1_000_000)  # what it answers now stands at the end

    def on_resize(self) -> None:
        self._fit()
        self.call_after_refresh(self._foot)

    def _fit(self) -> None:
        self.set_class(self.app.size.height < TIGHT, "-tight")

    def _ascii(self) -> bool:
        return self.app.screen_stack[0].has_class("-ascii")

    def _show(self) -> None:
        self._body.say(lambda width: development(self._answers, width, diff=self._diff))
        self.call_after_refresh(self._foot)

    def _foot(self) -> None:
        text = "   ".join(part for part in (KEYS, self._body.place) if part)
        self.query_one("#foot", Static).update(content(text, "dim"))

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_diff(self) -> None:
        self._diff = not self._diff
        top = self._body.top
        self._show()
        self._body.scroll(top)

    def action_scroll(self, by: int) -> None:
        self._body.scroll(by)
        self.call_after_refresh(self._foot)

    def action_page(self, by: int) -> None:
        self.action_scroll(by * max(1, self._body.content_size.height - 1))


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
