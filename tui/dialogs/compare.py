"""Two versions side by side, or a version and the present state: where they part, losses, what
the evaluation sets say, the examples that were gained and lost, rows, settings, files; how far the
weights moved when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from textual.binding import Binding

from tui.dialogs.changed import ChangedView, Fetch
from tui.dialogs.judged import judged_lines, shares
from tui.dialogs.reading import ReadingView
from tui.figures import count, counted, loss, percent, real, size, why
from tui.frame import Record
from tui.safe import Line, clip, pad, wrap

Distance = Callable[[str, str, Callable[[Any], None], Callable[[str], None]], None]
"""(first, second, then, failed): asks how far the weights of two versions lie apart."""

Judge = Callable[[str, str | None, Callable[[Any], None], Callable[[str], None]], None]
"""(first, second or None for the present state, then, failed): asks what the evaluation sets say;
ends in the event loop."""

LABEL = 12
EXAMPLES, SETTINGS, FILES, TENSORS = 50, 60, 30, 12
"""Most of each that are listed: the rest is counted."""
HEAD = "head"
BASE = "base"
"""The model that the home started from."""
READING = "reading the answers…"


class CompareView(ReadingView):
    """`found` is the engine's answer to `compare`. The answers to the evaluation sets, of which
    there may be thousands, are asked for once it is on the screen."""

    BINDINGS = [
        Binding("w", "weights", show=False),
        Binding("i", "items", show=False),
        Binding("b", "base", show=False),
    ]
    keys = "i items that changed  b against the base  w weights  Esc close"

    def __init__(self, found: Record, distance: Distance, judge: Judge, fetch: Fetch) -> None:
        self._found = found
        self._distance = distance
        self._judge = judge
        self._fetch = fetch
        self._weights: Any = None
        self._of = names_of(found)
        """Who the answers are of: the two, or the base model and the later of them."""
        self._judged: Record | None = None
        self._unjudged = READING
        """Why there is nothing of the evaluation sets."""
        self._asked = False
        a, b = names(found)
        super().__init__(f"Compare {a} with {b}", self._drawn)

    def begin(self) -> None:
        super().begin()
        self._ask_answers()

    def _ask_answers(self) -> None:
        of = self._of
        self._judged, self._unjudged = None, READING

        def then(judged: Any) -> None:
            if of == self._of:  # nobody has asked for another two since
                self._judged = judged if isinstance(judged, Mapping) else {}
                self._renew()

        def failed(reason: str) -> None:
            if of == self._of:
                self._unjudged = reason
                self._renew()

        self._judge(of[0], None if of[1] == HEAD else of[1], then, failed)

    def _drawn(self, width: int) -> list[Line]:
        judged = self._judged if self._judged is not None else self._unjudged
        return list(compare_lines(self._found, width, self._weights, judged, self._called))

    @property
    def _called(self) -> tuple[str, str]:
        """How those are called on the screen whose answers are compared."""
        return self._of[0], "now" if self._of[1] == HEAD else self._of[1]

    def action_base(self) -> None:
        """The answers against those of the base model instead, and back."""
        a, b = names_of(self._found)
        self._of = (a, b) if self._of[0] == BASE else (BASE, a if b == HEAD else b)
        self._ask_answers()
        self._body.renew()
        self.note(f"the answers: {self._called[1]} against {self._called[0]}")

    def _renew(self) -> None:
        """Draw anew, without a move of what is being read."""
        if self.is_attached:
            self._body.renew()
            self.call_after_refresh(self.foot)

    def action_items(self) -> None:
        if self._judged is None:
            self.note(self._unjudged)
        else:
            self.app.push_screen(ChangedView(self._judged, self._called, self._fetch))

    def action_weights(self) -> None:
        a, b = self._found.get("a") or {}, self._found.get("b") or {}
        if HEAD in (a.get("name"), b.get("name")):
            self.note("the weights of versions are compared: s makes the present state one")
        elif self._asked:
            self.note("the weights are being read…")
        else:
            self._asked = True
            self.note("reading the weights of both…")
            self._distance(str(a.get("name")), str(b.get("name")), self._told, self._failed)

    def _told(self, weights: Any) -> None:
        self._asked = False
        if not self.is_attached:
            return
        self._weights = weights
        self._renew()
        self.note(weights_text(weights))

    def _failed(self, reason: str) -> None:
        self._asked = False
        if self.is_attached:
            self.note(reason)


def names_of(found: Record) -> tuple[str, str]:
    """What the engine calls the two."""
    a, b = (str((found.get(side) or {}).get("name")) for side in "ab")
    return a, b


def names(found: Record) -> tuple[str, str]:
    """How the two are called on the screen."""
    a, b = names_of(found)
    return a, "now" if b == HEAD else b


def compare_lines(
    found: Record,
    width: int,
    weights: Any = None,
    judged: Record | str = "",
    called: tuple[str, str] | None = None,
) -> Iterator[Line]:
    """All that is known of both, the two in columns. `judged` is the answer to `compare_answers`
    about those `called` so (by default the two), or why there is none."""
    called = called or names(found)
    a, b = found.get("a") or {}, found.get("b") or {}
    column = max(10, min(24, (width - LABEL) // 2 - 1))

    def pair(name: str, one: str, other: str, tone: str = "") -> Line:
        return (
            (pad(name, LABEL), "dim"),
            (pad(one, column) + " ", tone),
            (pad(other, column), tone),
        )

    yield pair("", *names(found), "bold")
    for key, show in (("step", count), ("branch", count)):
        yield pair(key, show(a.get(key)), show(b.get(key)))
    since = found.get("steps") or {}
    yield pair("since fork", *(counted(since.get(side), "step") for side in "ab"))
    for key, name in (("loss", "loss"), ("val_loss", "val loss")):
        yield pair(name, loss(a.get(key)), loss(b.get(key)) + _change(a.get(key), b.get(key)))
    if isinstance(judged, Mapping) and called == names(found):
        for name, one, other, tone in shares(judged):
            yield pair(name, one, other, tone)
    samples = found.get("samples")
    known = isinstance(samples, Mapping) and not why(samples)
    if isinstance(samples, Mapping) and known:
        yield pair("exact", _exact(samples.get("a")), _exact(samples.get("b")))
    yield pair("size", size(a.get("size_bytes")), size(b.get("size_bytes")))
    fork = found.get("fork") or {}
    text = f"step {count(fork.get('step'))}, branch {fork.get('branch')}, {fork.get('checkpoint')}"
    yield ((pad("fork at", LABEL), "dim"), (clip(text, width - LABEL), ""))
    yield from _weights(found, weights, width)
    yield ()
    if isinstance(judged, Mapping):
        if called != names(found):
            yield ((f"the answers of {called[1]} against those of {called[0]}", "bold"),)
        yield from judged_lines(judged, called, width)
        yield ()
    elif judged:
        for part in wrap(f"evaluation sets: {judged}", width):
            yield ((part, "dim"),)
        yield ()
    yield from _samples(samples, names(found), width)
    yield from _items(found, pair)
    yield from _settings(found, pair)
    yield from _files(found, pair)


def _change(a: Any, b: Any) -> str:
    before, after = real(a), real(b)
    return "" if before is None or after is None else f" ({after - before:+.3f})"


def _exact(tick: Any) -> str:
    if not isinstance(tick, Mapping):
        return "?"
    total = real(tick.get("total")) or 0
    share = (real(tick.get("exact")) or 0) / total if total else 0.0
    return f"{tick.get('exact')}/{tick.get('total')} {percent(share)} @{count(tick.get('step'))}"


def weights_text(weights: Any) -> str:
    """How far the weights moved in one line."""
    if reason := why(weights):
        return f"? {reason}"
    if not isinstance(weights, Mapping):
        return "not compared yet: w does"
    if weights.get("same"):
        return "the same, bit for bit"
    tensors = weights.get("tensors") or ()
    largest = max((real(t.get("relative")) or 0.0 for t in tensors), default=0.0)
    differ = "differs" if len(tensors) == 1 else "differ"
    return f"{counted(len(tensors), 'tensor')} {differ}, by {largest:.2%} at most (norm)"


def _weights(found: Record, weights: Any, width: int) -> Iterator[Line]:
    same = found.get("same_weights")
    if reason := why(same):
        text = f"? {reason}"
    elif same:
        text = "the same, bit for bit"
    elif HEAD in names_of(found):
        text = "differ; w compares those of versions: s makes the present state one"
    else:
        text = weights_text(weights)
    for number, part in enumerate(wrap(text, max(8, width - LABEL))):
        yield ((pad("" if number else "weights", LABEL), "dim"), (part, ""))
    tensors = weights.get("tensors") if isinstance(weights, Mapping) else None
    for tensor in list(tensors or ())[:TENSORS]:
        moved = real(tensor.get("relative"))
        shown = f"{moved:8.3%}" if moved is not None else "differs"
        yield ((" " * LABEL, ""), (clip(f"{shown} {tensor.get('name')}", width - LABEL), "dim"))


def _samples(samples: Any, called: tuple[str, str], width: int) -> Iterator[Line]:
    if not isinstance(samples, Mapping) or why(samples):
        for part in wrap(f"samples: ? {why(samples)}", width):
            yield ((part, "warn"),)
        yield ()
        return
    gained, lost = samples.get("gained") or (), samples.get("lost") or ()
    text = (
        f"samples: right in both {samples.get('both')}, gained {len(gained)}, lost {len(lost)},"
        f" right in none {samples.get('none')}"
    )
    for part in wrap(text, width):
        yield ((part, "bold"),)
    for word, found, sign, tone in (
        (f"lost: right in {called[0]} alone", lost, "-", "bad"),
        (f"gained: right in {called[1]} alone", gained, "+", "good"),
    ):
        if found:
            yield ((word, tone),)
        for example in list(found)[:EXAMPLES]:
            name = f"{sign} {example.get('example')} ({example.get('set')}) "
            room = max(0, width - len(name))
            yield ((name, tone), (clip(example.get("prompt", ""), room), "dim"))
        if len(found) > EXAMPLES:
            yield ((f"  and {len(found) - EXAMPLES} more", "dim"),)
    yield ()


def _items(found: Record, pair: Callable[..., Line]) -> Iterator[Line]:
    items = [item for item in found.get("items") or () if isinstance(item, Mapping)]
    if not items:
        return
    yield (("rows trained since the fork", "bold"),)
    for item in items:
        at = real(item.get("fork")) or 0
        rows = ((real(item.get(side)) or 0) - at for side in "ab")
        yield ((f"{item.get('name')}", ""),)
        yield pair("", *(counted(row, "row") for row in rows))
    yield ()


def _settings(found: Record, pair: Callable[..., Line]) -> Iterator[Line]:
    settings = [one for one in found.get("settings") or () if isinstance(one, Mapping)]
    if not settings:
        yield (("settings: the same", "dim"),)
        return
    yield (("settings that differ", "bold"),)
    for one in settings[:SETTINGS]:
        yield ((f"{one.get('key')}", ""),)
        yield pair("", *(_value(one.get(side)) for side in "ab"))
    if len(settings) > SETTINGS:
        yield ((f"and {len(settings) - SETTINGS} more: trainctl diff", "dim"),)


def _value(value: Any) -> str:
    reason = why(value)
    return f"? ({reason})" if reason else str(value)


def _files(found: Record, pair: Callable[..., Line]) -> Iterator[Line]:
    files = found.get("files")
    if not isinstance(files, list):
        yield ((f"files: ? {why(files)}", "dim"),)
        return
    differ = [one for one in files if one.get("state") != "equal"]
    same = len(files) - len(differ)
    yield ((f"files: {same} the same, {len(differ)} differ", "bold"),)
    for one in differ[:FILES]:
        yield ((f"{one.get('name')}", ""),)
        yield pair("", *("none" if why(one.get(s)) else size(one.get(s)) for s in "ab"))
