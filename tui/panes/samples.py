"""Pane 4: one's own examples and what the model answers to them at each stage of training."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from textual.events import Click

from tui import history
from tui.figures import count, counted, known, loss, percent, real, why
from tui.frame import RIGHT, Frame, Record, Samples, mark
from tui.panes.base import ListPane, words
from tui.safe import Line, Span, fit, line_text, safe_line, squeeze, wrap

LABEL = 9
VERDICTS = {"o": ("exact", "good"), "x": ("close", "warn"), ".": ("wrong", "bad")}
BESIDE = 74
"""Columns from which the list has room at the side."""
ABOVE = 13
"""Lines from which it has room at the top."""
ID = 13
"""Columns of an example's id in the list."""
STRIP = 8
"""Marks of the history in the list."""
WHOLE = 2000
"""The most lines of a text: an answer is shown whole."""


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


def wrap_spans(spans: Sequence[Span], width: int) -> list[Line]:
    """Spans broken into lines of `width` columns."""
    lines: list[list[Span]] = [[]]
    used = 0
    for text, tone in spans:
        for index, piece in enumerate(wrap(text, max(1, width), WHOLE)):
            if index or used + cell_len(piece) > width:
                lines.append([])
                used = 0
            lines[-1].append((piece, tone))
            used += cell_len(piece)
    return [tuple(line) for line in lines]


def labelled(label: str, spans: Sequence[Span], width: int) -> list[Line]:
    """Spans in `width` columns, the label before the first line."""
    return [
        ((f"{'' if number else label:{LABEL}}", "dim"), *line)
        for number, line in enumerate(wrap_spans(spans, width - LABEL))
    ]


def figures(answer: Record) -> list[Span]:
    """What was measured of an answer beside right or wrong, under its own name."""
    expected = answer.get("expected_loss")
    unit = " nats a token" if real(expected) is not None else ""
    parts = [
        f"similarity {loss(answer.get('similarity'))}",
        f"expected loss {loss(expected)}{unit}",
    ]
    if known(answer.get("tokens")):
        parts.append(counted(answer.get("tokens"), "token"))
    if known(answer.get("host")):
        parts.append(f"on {safe_line(str(answer['host']))}")
    return [(" · ", ""), *((f"{part} · ", "") for part in parts[:-1]), (parts[-1], "")]


def of_set(answer: Record) -> str:
    """Of which held-out set an example is; "" for a row of the item."""
    named = answer.get("set", "?")
    return f"of the set {named}" if known(named) else ""


def short_id(answer: Record) -> str:
    """An example's id without its set and the set's digest."""
    return str(answer.get("example", "")).split("/", 2)[-1]


class SamplesPane(ListPane):
    """`aim` has the poller read the answers of another step, None for the newest."""

    name_of = "samples"
    number = 4

    def __init__(self, aim: Callable[[int | None], None]) -> None:
        super().__init__()
        self.diff = False
        self.listed = True
        self.only = history.KINDS[0]
        self.offset_line = 0
        self._aim = aim
        self._asked_step: int | None = None
        self._answers: dict[object, Record] = {}
        self._kinds: dict[object, tuple[str, ...]] = {}
        self._counts: Counter[str] = Counter()
        self._list = (0, 0, "")
        """Columns and lines that the list took when it was drawn, and where: "", side, top."""
        self._cache: tuple[object, list[Line]] = (None, [])

    # -- what is shown

    @property
    def samples(self) -> Samples | None:
        return self.frame.samples

    def show(self, frame: Frame) -> None:
        if frame.samples is not self.frame.samples:
            self._take(frame.samples)
        super().show(frame)

    def _take(self, samples: Samples | None) -> None:
        answers = samples.answers if samples else ()
        self._answers = {str(answer.get("example")): answer for answer in answers}
        self._kinds = {key: history.kinds_of(self.past(key, samples)) for key in self._answers}
        self._counts = Counter(kind for kinds in self._kinds.values() for kind in kinds)

    def past(self, key: object, samples: Samples | None = None) -> history.History:
        """An example's marks up to the step that is looked at."""
        samples = samples or self.samples
        if samples is None:
            return ()
        return history.until(samples.histories.get(str(key), ()), samples.step)

    def keys(self) -> Sequence[object]:
        return [key for key, kinds in self._kinds.items() if self.only in kinds]

    def shown(self) -> list[object]:
        wanted = self.filter.lower()
        return [key for key in self.keys() if wanted in self._text(key)]

    def _text(self, key: object) -> str:
        """What the filter looks at."""
        answer = self._answers[key]
        parts = (answer.get(name, "") for name in ("example", "prompt", "expected", "answer"))
        return "\n".join(map(str, parts)).lower()

    def selected(self) -> Record | None:
        """The answer under the cursor."""
        keys = self.shown()
        return self._answers[keys[self.position(keys)]] if keys else None

    def title(self) -> str:
        samples = self.samples
        if samples is None:
            return ""
        keys = self.shown()
        place = f"{self.position(keys) + 1 if keys else 0}/{len(keys)}"
        held_out = [answer for answer in samples.answers if of_set(answer)] or samples.answers
        share = percent(sum(mark(answer) == RIGHT for answer in held_out) / len(held_out))
        kinds = " ".join(self._counted(kind) for kind in history.KINDS[1:])
        found = f"/{self.filter}" if self.filter else ""
        parts = [
            f"step {count(samples.step)}",
            place,
            found,
            f"exact {share}",
            kinds,
            history.moved(samples.changes),
        ]
        return " · ".join(filter(None, parts))

    def _counted(self, kind: str) -> str:
        """A kind's first word and how many there are; in brackets the kind that is shown."""
        text = f"{kind.split()[0]} {self._counts[kind]}"
        return f"[{text}]" if kind == self.only else text

    # -- drawing

    def nothing_yet(self) -> str:
        return "no samples yet" if self.samples is None else ""

    def why_not(self, action: str) -> str:
        if action in ("next_example", "previous_example") and len(self.shown()) < 2:
            return self.nothing_yet() or "no other example is shown (Esc shows all)"
        if action == "newest" and self._asked_step is None:
            return self.nothing_yet() or "these are the newest answers"
        if action == "list" and len(self._answers) > 1:
            width, height = self.content_size
            if width < BESIDE and height < ABOVE:
                return "no room for it here; n and N go through the examples"
        return super().why_not(action)

    def lines(self, width: int, height: int) -> list[Line]:
        if self.samples is None:
            self._list = (0, 0, "")
            if not self.frame.status:
                return words(["reading…"])
            reason = self.frame.samples_why or why(self.frame.status.get("samples_step"))
            told = wrap(reason or "no samples yet", width)
            return words([*told, "Answers to the held-out examples appear here as it learns."])
        keys = self.shown()
        if not keys:
            self._list = (0, 0, "")
            return words([self._nothing()])
        answer = self._answers[keys[self.position(keys)]]
        columns, rows, where = self._list = self._room(width, height, len(keys))
        if not where:
            return self._part(answer, width, height, tall=height >= ABOVE)
        listed = super().lines(columns, rows)
        if where == "top":
            rule: Line = (("-" * width, "dim"),)
            rest = self._part(answer, width, height - rows - 1, tall=True)
            return [*listed, *[()] * (rows - len(listed)), rule, *rest]
        whole = self._part(answer, width - columns - 3, height, tall=height >= ABOVE)
        both = []
        for y in range(height):
            left = fit(listed[y] if y < len(listed) else (), columns)
            space = " " * (columns - cell_len(line_text(left)))
            both.append((*left, (space, ""), (" | ", "dim"), *(whole[y : y + 1] or [()])[0]))
        return both

    def _room(self, width: int, height: int, examples: int) -> tuple[int, int, str]:
        """Columns and lines of the list, and where it stands."""
        if not self.listed or len(self._answers) < 2:
            return 0, 0, ""
        if width >= BESIDE:
            return min(46, width * 2 // 5), height, "side"
        if height >= ABOVE:
            return width, min(examples, height // 3), "top"
        return 0, 0, ""

    def _nothing(self) -> str:
        which = "" if self.only == "all" else f" that is {self.only}"
        if self.filter:
            return f"no example{which} contains {self.filter!r} (Esc shows all)"
        return f"no example{which}: o shows others"

    def row(self, key: object, width: int) -> Line:
        answer = self._answers[key]
        sign = mark(answer)
        past = "".join(one for _, one in self.past(key))[-STRIP:]
        prompt = safe_line(str(answer.get("prompt", "")).lstrip().split("\n", 1)[0])
        return (
            (sign, VERDICTS[sign][1]),
            (f" {past:{STRIP}} ", "accent"),
            (squeeze(short_id(answer), ID, ID - 1) + " ", ""),
            (prompt, "dim"),
        )

    def _part(self, answer: Record, width: int, height: int, *, tall: bool) -> list[Line]:
        """The lines of an answer that its place has room for."""
        body = self.body(answer, width, tall=tall)
        self.offset_line = max(0, min(self.offset_line, len(body) - height))
        return body[self.offset_line : self.offset_line + height]

    def body(self, answer: Record, width: int, *, tall: bool) -> list[Line]:
        """An answer whole; `tall`: with the axis of its history."""
        key = (self.samples, answer.get("example"), self.diff, width, tall)
        if self._cache[0] != key:
            self._cache = (key, self._body(answer, width, tall))
        return self._cache[1]

    def _body(self, answer: Record, width: int, tall: bool) -> list[Line]:
        samples = self.samples
        assert samples is not None
        verdict, tone = VERDICTS[mark(answer)]
        whole = samples.histories.get(str(answer.get("example")), ())
        expected, given = str(answer.get("expected", "")), str(answer.get("answer", ""))
        room = max(1, width - LABEL)
        lines = labelled("history", [(history.strip(whole, room), "accent")], width)
        if tall:
            lines += labelled("", [(history.axis(whole, room, samples.step), "dim")], width)
        lines += labelled("", [(history.told(self.past(answer.get("example"))), "")], width)
        newest = samples.step == samples.steps[-1]
        at = "now" if newest else "then"
        lines += labelled(at, [(verdict, tone), *figures(answer)], width)
        if self.diff:
            lines += labelled("diff", compare(expected, given), width)
        else:
            lines += labelled("expected", [(expected, "")], width)
            lines += labelled("answer", [(given or "(nothing)", tone)], width)
        lines += labelled("prompt", [(str(answer.get("prompt", "")), "dim")], width)
        named = f"{short_id(answer)} {of_set(answer) or 'of the item, which trains on it'}"
        lines += labelled("example", [(named, "dim")], width)
        legend = "history: o exact   x close   . wrong   / both, oldest first"
        return [*lines, (), *(((part, "dim"),) for part in wrap(legend, width))]

    # -- moving

    def _choose(self, index: int) -> None:
        self.offset_line = 0
        super()._choose(index)
        self.set_title()

    def _turn(self, by: int) -> None:
        keys = self.shown()
        if keys:
            self._choose((self.position(keys) + by) % len(keys))

    def do_next_example(self) -> None:
        self._turn(1)

    def do_previous_example(self) -> None:
        self._turn(-1)

    def _scroll(self, to: int) -> None:
        self.offset_line = max(0, to)
        self.redraw()

    def do_down(self) -> None:
        if self._list[2]:
            super().do_down()
        else:
            self._scroll(self.offset_line + 1)

    def do_up(self) -> None:
        if self._list[2]:
            super().do_up()
        else:
            self._scroll(self.offset_line - 1)

    def do_page_down(self) -> None:
        self._scroll(self.offset_line + max(1, self.content_size.height - 1))

    def do_page_up(self) -> None:
        self._scroll(self.offset_line - max(1, self.content_size.height - 1))

    def do_top(self) -> None:
        if self._list[2]:
            super().do_top()
        else:
            self._scroll(0)

    def do_bottom(self) -> None:
        if self._list[2]:
            super().do_bottom()
        else:
            self._scroll(1 << 30)

    def on_click(self, event: Click) -> None:
        inside = event.get_content_offset(self)
        columns, rows, where = self._list
        if inside is not None and where and inside.x < columns and inside.y < rows:
            self._choose(self._top + inside.y)

    # -- actions

    def _step(self, by: int) -> None:
        samples = self.samples
        if samples is None:
            return
        now = samples.step if self._asked_step is None else self._asked_step
        at = sum(step <= now for step in samples.steps) - 1 + by
        self._asked_step = None if at >= len(samples.steps) - 1 else samples.steps[max(0, at)]
        self._aim(self._asked_step)

    def do_earlier(self) -> None:
        self._step(-1)

    def do_later(self) -> None:
        self._step(1)

    def do_newest(self) -> None:
        self._asked_step = None
        self._aim(None)

    def do_diff(self) -> None:
        self.diff = not self.diff
        self.redraw()

    def do_list(self) -> None:
        self.listed = not self.listed
        self.redraw()

    def do_only(self) -> None:
        """Go on to the next kind of which there is any example."""
        at = history.KINDS.index(self.only)
        order = (*history.KINDS[at + 1 :], *history.KINDS[: at + 1])
        self.only = next((kind for kind in order if self._counts[kind]), "all")
        self.offset_line = 0
        self.set_title()
        self.redraw()
