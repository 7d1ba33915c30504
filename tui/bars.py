"""The lines around the panes: header, tab strip, meter strip, hint line and footer."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.events import Click, Resize
from textual.message import Message

from tui.actions import PANES, Action, Keymap, key_label
from tui.drawn import Drawn
from tui.evaluation import doing, in_short
from tui.figures import count, counted, duration, known, loss, real, short
from tui.frame import Frame, Record
from tui.hints import Hushed, sign_of
from tui.meterrows import strip_line
from tui.panes.queue import share_done
from tui.safe import Line, Span, clip, line_text, pad, wrap

STATE_TONES = {
    "training": "good",
    "paused": "warn",
    "failed": "bad",
    "stopping": "warn",
    "stopped": "bad",
}

ANSWER_LINES = 3
"""The most lines that an answer to a key takes."""


class Header(Drawn):
    """One line: model, state, step, item, time left, loss, the first GPU. What does not fit goes,
    the least needed first."""

    def __init__(self, *, readonly: bool = False) -> None:
        super().__init__(id="header")
        self._readonly = readonly

    def lines(self, width: int, height: int) -> list[Line]:
        parts = header_parts(self.frame.status)
        if self._readonly:
            parts.insert(1, (0, (("READ-ONLY", "warn"),)))
        for rank in sorted({rank for rank, _ in parts}, reverse=True):
            if sum(cell_len(line_text(line)) + 2 for _, line in parts) - 2 <= width - 1:
                break
            parts = [(r, line) for r, line in parts if r < rank]
        spans: list[Span] = [(" ", "")]
        for index, (_, line) in enumerate(parts):
            spans += [("  ", "")] * bool(index) + list(line)
        return [tuple(spans)]


def header_parts(status: Record) -> list[tuple[int, Line]]:
    """(rank, spans): a part of a higher rank goes first when the line is too narrow."""
    parts: list[tuple[int, Line]] = [(1, (("trainctl", "bold"),))]
    if not status:
        return [*parts, (0, (("connecting…", "dim"),))]
    model = status.get("model")
    if isinstance(model, dict):
        parts.append((5, ((clip(model.get("name", ""), 24), "accent"),)))
    if several := processes(status):
        parts.append((6, ((several, "dim"),)))
    state = str(status.get("state", "?"))
    parts.append((0, ((state, STATE_TONES.get(state, "bold")),)))
    parts.append((0, ((f"step {count(status.get('global_step'))}", ""),)))
    item = status.get("item")
    if isinstance(item, dict) and "id" in item:
        steps = item.get("steps")
        progress = f"item {short(item.get('step'))}/{short(steps)}"
        share = share_done(item)
        parts.append((2, ((progress if share is not None else "item –", ""),)))
    if known(status.get("eta_seconds")):
        parts.append((3, ((f"ETA {duration(status.get('eta_seconds'))}", ""),)))
    parts.append((1, ((f"loss {loss(status.get('loss'))}", ""),)))
    if known(status.get("val_loss")):
        parts.append((4, ((f"val {loss(status.get('val_loss'))}", ""),)))
    gpus = status.get("gpus")
    if isinstance(gpus, list) and gpus and isinstance(gpus[0], dict):
        use = real(gpus[0].get("utilization"))
        shown = "?" if use is None else f"{use:.0f}%"
        parts.append((6, ((f"gpu {shown}", ""),)))
    elif isinstance(gpus, list) and not gpus:
        parts.append((7, (("CPU only", "dim"),)))
    hosts, tone = in_short(status)
    if hosts:
        parts.append((6, ((clip(hosts, 32), tone),)))
    requests = status.get("requests")
    if isinstance(requests, list) and requests:
        parts.append((2, ((f"[{', '.join(map(str, requests))} asked for]", "warn"),)))
    return parts


def processes(status: Record) -> str:
    """How many processes train together, and how; "" for one."""
    found = status.get("processes")
    size = found.get("size") if isinstance(found, dict) else None
    if not isinstance(size, int) or size < 2:
        return ""
    assert isinstance(found, dict)
    hosts = f" · {found['nodes']} hosts" if found.get("nodes", 1) > 1 else ""
    return f"{size} processes · {clip(found.get('kind', ''), 12)}{hosts}"


class Tabs(Drawn):
    """The strip of six panes, for the folded layout."""

    def __init__(self) -> None:
        super().__init__(id="tabs")
        self.pane = PANES[0]

    def choose(self, pane: str) -> None:
        self.pane = pane
        self.redraw()

    def lines(self, width: int, height: int) -> list[Line]:
        spans: list[Span] = []
        for number, name in enumerate(PANES, 1):
            chosen = name == self.pane
            left, right = ("[", "]") if chosen else (" ", " " if width >= 72 else "")
            spans.append((f"{left}{number} {name}{right}", "bold" if chosen else "dim"))
            spans.append((" ", "") if width >= 72 or chosen else ("", ""))
        return [tuple(spans)]

    def on_click(self, event: Click) -> None:
        place = _place(self.lines(self.size.width, 1)[0], event.x)
        if place is not None:
            self.post_message(Clicked(f"pane_{place // 2 + 1}"))


class MeterStrip(Drawn):
    """The machine in one line, for the folded layout."""

    def __init__(self) -> None:
        super().__init__(id="meter-strip")

    def lines(self, width: int, height: int) -> list[Line]:
        return [((" ", ""), *strip_line(self.frame.status, width - 2))]


class HintLine(Drawn):
    """What matters most now: the engine lost, an answer to a key, else the first hint that was
    not hushed, with the key that explains it."""

    def __init__(self, keymap: Keymap, hushed: Hushed, *, readonly: bool = False) -> None:
        super().__init__(id="hint")
        self._readonly = readonly
        self.message: Span = ("", "")
        self._keymap, self._hushed = keymap, hushed
        self._pane = PANES[0]

    def choose(self, pane: str) -> None:
        """The pane whose keys act."""
        self._pane = pane
        self.redraw()

    def say(self, text: str, tone: str = "") -> None:
        """Show an answer until the next one, or until it is cleared with "". It takes the lines
        that it needs, for it ends in what to do."""
        self.message = (text, tone)
        self._grow()
        self.redraw()

    def on_resize(self, event: Resize) -> None:
        self._grow()  # Textual calls the base's on_resize too

    def show(self, frame: Frame) -> None:
        self.frame = frame
        self._grow()
        self.redraw()

    def _grow(self) -> None:
        height = len(self._answer(self.app.size.width))
        if self.frame.lost and self.message[0]:
            height += 1  # the banner stays above what an action has to say
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height

    def _answer(self, width: int) -> list[str]:
        return wrap(self.message[0], width - 2, ANSWER_LINES)

    def _answered(self, width: int) -> list[Line]:
        text, tone = self.message
        return [((" " + line, tone),) for line in self._answer(width)] if text else []

    def lines(self, width: int, height: int) -> list[Line]:
        frame = self.frame
        if frame.lost:
            old = f"{max(0, int(frame.now - frame.at))} s old" if frame.at else "none yet"
            banner = f" engine lost: reconnecting, data {old} ({frame.lost})"
            return [((banner, "bad"),), *self._answered(width)]
        if self.message[0]:
            return self._answered(width)
        if frame.problem:
            return [((f" cannot read the store: {frame.problem}", "bad"),)]
        hints = self._hushed.shown(frame)
        if not hints:
            told = " · ".join(filter(None, (self._summary(frame), doing(frame.status))))
            return [((f" {told}", "dim"),)]
        more = f" (+{len(hints) - 1})" if len(hints) > 1 else ""
        why = f" [why: {self._keymap.keys_of('why', self._pane)[0]}] "
        sign, tone = sign_of(hints[0])
        text = pad(f"{sign} {hints[0].get('text', '')}", width - 1 - cell_len(more + why))
        return [((" ", ""), (text, tone), (more, tone), (why, "bold"))]

    def _summary(self, frame: Frame) -> str:
        """How things stand, with the key that changes it where this console may."""
        text, action, does = summary(frame)
        if not action or self._readonly:
            return text
        return f"{text}: {self._keymap.keys_of(action, self._pane)[0]} {does}"


def summary(frame: Frame) -> tuple[str, str, str]:
    """What was done, once nothing waits any more; else how the engine stands. With the action that
    one would want next and what it does, "" for none."""
    status = frame.status
    if frame.state == "paused":
        return "paused", "pause", "goes on"
    if frame.state != "idle":
        return str(status.get("phase") or ""), "", ""
    states = frame.queue.states
    done, failed = states["done"] + states["trained"], states["failed"]
    if not done and not failed:
        return "the queue is empty", "add", "adds a file"
    parts = [f"training finished: {counted(done, 'file')}", counted(frame.step, "step")]
    if failed:
        parts.append(f"{failed} failed")
    if known(status.get("loss")):
        parts.append(f"loss {loss(status.get('loss'))}")
    if known(status.get("val_loss")):
        parts.append(f"val {loss(status.get('val_loss'))}")
    samples = frame.samples
    if samples is not None:
        exact = sum(bool(answer.get("exact")) for answer in samples.answers)
        parts.append(f"exact {exact}/{len(samples.answers)}")
    return " · ".join(parts), "", ""


class Footer(Drawn):
    """The keys that act here, the most wanted first; `? help` always fits. Those that change
    something are left out where `readonly`."""

    def __init__(self, keymap: Keymap, *, readonly: bool = False) -> None:
        super().__init__(id="footer")
        self._readonly = readonly
        self._keymap = keymap
        self._pane = PANES[0]
        self._paused = False

    def choose(self, pane: str) -> None:
        self._pane = pane
        self.redraw()

    def show(self, frame: Frame) -> None:
        paused = frame.state == "paused"
        if paused != self._paused:
            self._paused = paused
            self.redraw()

    def _actions(self) -> list[Action]:
        found = self._keymap.footer(self._pane)
        return [action for action in found if not (self._readonly and action.changes)]

    def _label(self, action: Action) -> tuple[str, str]:
        label = "resume" if action.id == "pause" and self._paused else action.label
        return key_label(action), label

    def lines(self, width: int, height: int) -> list[Line]:
        actions = self._actions()
        tail = [self._label(action) for action in actions if action.id == "leave"]
        texts: list[tuple[str, str]] = []
        for action in actions:
            text = self._label(action)
            if text in tail:
                continue
            if _width([*texts, text, *tail]) > width - 1:
                break
            texts.append(text)
        spans: list[Span] = [(" ", "")]
        for key, label in [*texts, *tail]:
            spans += [(key, "bold"), (f" {label}  ", "dim")]
        return [tuple(spans)]

    def on_click(self, event: Click) -> None:
        line = self.lines(self.size.width, 1)[0]
        place = _place(line, event.x)
        if place:
            key = line[(place - 1) // 2 * 2 + 1][0]
            actions = self._actions()
            self.post_message(Clicked(next(a.id for a in actions if key_label(a) == key)))


class Clicked(Message):
    """The mouse asks for an action, by its id."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action


def _place(line: Line, x: int) -> int | None:
    """Which of a line's spans is at column `x`, None past the last."""
    end = 0
    for place, (text, _) in enumerate(line):
        end += cell_len(text)
        if x < end:
            return place
    return None


def _width(texts: Sequence[tuple[str, str]]) -> int:
    return sum(cell_len(key) + cell_len(label) + 3 for key, label in texts)
