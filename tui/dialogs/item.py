"""One item whole: its facts and token lengths, and its rows one by one as they train.

The rows are asked of the engine, in a thread; what is not there yet, is wrong or cannot be read
stands in words. The facts follow the item while it trains; what is read stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from textual import on
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Input

from tui.dialogs.base import Fact, field
from tui.dialogs.details import FAILED, item_facts
from tui.dialogs.whole import WholeView
from tui.figures import count, counted, known, real, why
from tui.frame import Record
from tui.histogram import bars
from tui.rowtext import ASCII_MARKS, MARKS, MASKED, TRAINED, lines
from tui.safe import Line, line_text, plain, wrap

Answer = Callable[[Record | None, str], None]
"""Gets a row, or None and why there is none; in the event loop."""
Ask = Callable[[int, str, Answer], None]
"""(line, "exact" | "next" | "previous", answer)"""

Again = Callable[[Callable[[Record], None]], None]
"""Reads the item again and hands it over, in the event loop."""

FOLLOW_SECONDS = 1.0
FACTS, ROWS = "facts", "rows"
TIGHT = 28
KEYS = {
    FACTS: "r rows  up/down scroll  Esc close",
    ROWS: "n next  p previous  : line  r facts  Esc close",
}


class ItemView(WholeView):
    """`ask` reads a row of the item; None where it has none that could be read yet."""

    BINDINGS = [
        Binding("r,tab,shift+tab", "turn", show=False),
        Binding("n,right,l", "step(1)", show=False),
        Binding("p,left,h,N", "step(-1)", show=False),
        Binding("colon", "go", show=False),
    ]

    def __init__(
        self,
        title: str,
        item: Record,
        ask: Ask | None,
        view: str = FACTS,
        again: Again | None = None,
    ) -> None:
        super().__init__(title)
        self._again = again
        self._item = item
        self._ask = ask
        self._view = view
        self._row: Record | None = None
        self._wanted: tuple[int, str] | None = None
        self._asked: tuple[int, str] | None = None

    @property
    def keys(self) -> str:  # type: ignore[override]
        return KEYS[self._view]

    def fields(self) -> Iterable[Widget]:
        yield field("line", "line of the file")

    def begin(self) -> None:
        self.query_one("#line").display = False
        self._show()
        if self._again is not None:
            self.set_interval(FOLLOW_SECONDS, self._follow)

    def _follow(self) -> None:
        if self._again is not None:
            self._again(self._followed)

    def _followed(self, item: Record) -> None:
        if item != self._item and self.is_attached:
            self._item = item
            if self._view == FACTS:
                self._body.renew()

    def _show(self) -> None:
        if self._view == FACTS:
            self._body.say(lambda width: facts_lines(self._item, width, ascii=self.ascii))
        elif self._row is not None:
            self._show_row(self._row)
        else:
            self._say("reading…")
            self._read(1, "next")
        self.call_after_refresh(self.foot)

    def _say(self, text: str, tone: str = "dim") -> None:
        self._body.say(lambda width: [((line, tone),) for line in wrap(text, width)])

    # -- rows

    def _read(self, line: int, near: str) -> None:
        """Ask for a row; while another is under way, the newest wish alone waits."""
        if self._ask is None:
            self._say("The rows can be read once the file is in the queue.")
            return
        if self._asked is not None:
            self._wanted = (line, near)
            return
        self._asked = (line, near)
        self._ask(line, near, self._answered)

    def _answered(self, row: Record | None, problem: str) -> None:
        if not self.is_attached:
            return
        self._asked, wanted, self._wanted = None, self._wanted, None
        self._note = ""
        if row is not None:
            self._row = row
            if self._view == ROWS:
                self._show_row(row)
        elif self._row is not None:
            self._note = problem  # the row that is there stays
        elif self._view == ROWS:
            self._say(problem, "bad")
        if wanted is not None:
            self._read(*wanted)
        self.call_after_refresh(self.foot)

    def _show_row(self, row: Record) -> None:
        self._body.say(lambda width: row_lines(row, width, ascii=self.ascii))

    def _line(self) -> int:
        """The line of the row on the screen, 0 for none yet."""
        return int(real((self._row or {}).get("line")) or 0)

    # -- keys

    def action_leave(self) -> None:
        if self.query_one("#line").display:
            self._close_field()
        else:
            self.dismiss(None)

    def action_turn(self) -> None:
        self._view = ROWS if self._view == FACTS else FACTS
        self._note = ""
        self._show()

    def action_step(self, by: int) -> None:
        if self._view == FACTS:
            self.action_turn()
            return
        at = self._wanted or self._asked
        line = (at[0] if at else self._line()) + by
        if line < 1:
            self._note = "this is the first row"
            self.foot()
            return
        self._read(line, "next" if by > 0 else "previous")

    def action_go(self) -> None:
        """Type the number of a line."""
        if self._view == FACTS:
            self.action_turn()
        box = self.query_one("#line", Input)
        box.value = ""
        box.display = True
        box.focus()

    def _close_field(self) -> None:
        self.query_one("#line").display = False
        self._body.focus()

    @on(Input.Submitted, "#line")
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        word = event.value.strip()
        self._close_field()
        if word.isascii() and word.isdigit() and 0 < int(word) < 10**15:
            self._read(int(word), "exact")
        elif word:
            self._note = f"{word[:20]!r} is no line number"
            self.foot()


def row_lines(row: Record, width: int, *, ascii: bool = False) -> list[Line]:
    """A row of the engine's answer `row`: where it stands and when it trains, a legend, and its
    text with what trains marked."""
    line = f"line {count(row.get('line'))}"
    found: list[tuple[str, str]] = []
    if "error" in row:
        found.append((f"{line} is wrong, it does not train: {row['error']}", "bad"))
        return [((part, tone),) for text, tone in found for part in wrap(text, width)]
    counts = f"{counted(row.get('tokens'), 'token')}, {count(row.get('trained_tokens'))} train"
    found.append((f"{line} · {counts}", "bold"))
    if row.get("left_out"):
        found.append((f"left out, it does not train: {row['left_out']}", "warn"))
    found += [(text, "dim") for text in _times(row)]
    head: list[Line] = [((part, tone),) for text, tone in found for part in wrap(text, width)]
    left, right = ASCII_MARKS if ascii else MARKS
    legend: Line = ((f"{left}trains{right}", TRAINED), ("  ", ""), ("does not", MASKED))
    return [*head, legend, (), *lines(row.get("segments") or (), width, ascii=ascii)]


def _times(row: Record) -> list[str]:
    """In which pack the row is, and the epochs in which its turn is still to come."""
    place = row.get("prepared")
    if not isinstance(place, dict) or why(place):
        with_ = "those that the item began with" if row.get("settings") == "frozen" else "now's"
        return [f"{why(place) or 'not prepared yet'}; shown with settings: {with_}"]
    others = int(real(place.get("rows_in_pack")) or 1) - 1
    pack = f"pack {int(place.get('pack', 0)) + 1} of {count(place.get('packs'))}"
    pack += f" with {counted(others, 'other row')}" if others else ", alone"
    if place.get("part") == "validation":
        return [f"validates, does not train: {pack}"]
    times = [time for time in place.get("times") or () if isinstance(time, dict)]
    coming = next((time for time in times if not time.get("trained")), None)
    if coming is None:
        return [f"{pack}; trained in {counted(len(times), 'epoch')}"]
    epoch = f", epoch {coming.get('epoch')}" if len(times) > 1 else ""
    return [f"{pack}; trains in step {count(coming.get('step'))} of the item{epoch}"]


def facts_lines(item: Record, width: int, *, ascii: bool = False) -> list[Line]:
    """The facts of an item under each other, then its rows' lengths as bars."""
    found = facts_under(item_facts(item), width, ascii=ascii)
    report = item.get("report")
    tokens = report.get("tokens") if isinstance(report, dict) else None
    if not isinstance(tokens, dict):
        if known(item.get("id")):
            reason = why(report) or "not prepared yet"
            found += [(), ((f"lengths in tokens: {reason}", "dim"),)]
        return found
    limit = int(real((report or {}).get("over_limit", {}).get("max_length")) or 0)
    drawn = bars(tokens.get("histogram"), width, limit=limit, ascii=ascii)
    title: Line = (("rows by their length in tokens", "bold"),)
    return [*found, (), title, *(((bar, ""),) for bar in drawn)]


def facts_under(facts: Sequence[Fact], width: int, *, ascii: bool) -> list[Line]:
    """Facts under each other in `width` columns, the labels in a column of their own."""
    left = max((len(fact[0]) for fact in facts if isinstance(fact, tuple)), default=0) + 2
    found: list[Line] = []

    def drawn(text: str) -> str:
        return line_text(plain(((text, ""),))) if ascii else text

    for fact in facts:
        label, text = fact if isinstance(fact, tuple) else ("", fact)
        tone = "bad" if label in ("why", FAILED) else ""
        for number, part in enumerate(wrap(text, width - left)):
            found.append(((f"{'' if number else label:{left}}", "dim"), (drawn(part), tone)))
    return found


def reader(fetch: Callable[..., None], item: int) -> Ask:
    """An `Ask` over Asking.fetch for the item."""

    def ask(line: int, near: str, answer: Answer) -> None:
        fetch(
            "row",
            lambda row: answer(row, ""),
            lambda why: answer(None, why),
            item=item,
            line=line,
            near=near,
            whole=False,
        )

    return ask
