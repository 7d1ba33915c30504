"""What training takes of memory, part by part, and what it would take with other settings, on this
machine or on another card. It changes nothing: it ends in lines for config.toml."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from textual.binding import Binding

from tui.dialogs.whole import WholeView
from tui.figures import bar, percent, real
from tui.figures import size as rounded
from tui.safe import Line, line_text, pad, wrap

if TYPE_CHECKING:
    from engine.memory.cards import Device
    from engine.memory.estimate import Estimate
    from engine.memory.whatif import Row, WhatIf

PARTS = (
    *("weights", "gradients", "optimizer", "activations", "logits", "workspace", "context"),
    "pageable",
)
MOMENTS = {
    "backward": "at the start of the backward pass",
    "layers": "at the first layer's backward pass",
    "gradients": "at the end of the backward pass",
    "step": "at the optimizer's step",
}
NARROW = 70
"""Columns below which the settings and the parts stand closer."""
TITLE = "What if: the memory of training"
READING = "reading config.toml and the model's config…"
KEYS = "up/down choose  left/right change  0 reset  Esc close"
TAKE_KEYS = "left/right change  1-3 take  0 reset  Esc close"


class WhatIfView(WholeView):
    """Its thread hands over what is looked at (`begun`), how far a measurement is (`far`) and that
    one has ended (`measured`), each in the event loop; `wake` tells it that other settings are on
    the screen. `stop` is set when the view closes."""

    BINDINGS = [
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
        Binding("right,l,plus", "change(1)", show=False),
        Binding("left,h,minus", "change(-1)", show=False),
        Binding("0,backspace", "reset", show=False),
        *(Binding(str(n), f"take({n})", show=False) for n in (1, 2, 3)),
        Binding("escape,q,m", "leave", show=False),
        Binding("enter", "change(1)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(TITLE)
        self.found: WhatIf | None = None
        self.stop, self.wake = threading.Event(), threading.Event()
        self._at = 0
        self._far: tuple[int, int] = (0, 0)
        self._problem = ""
        self._first = 0
        """The line of the body on which the first setting stands."""

    @property
    def keys(self) -> str:  # type: ignore[override]
        return TAKE_KEYS if self._nearest else KEYS

    def begin(self) -> None:
        self.say(self._lines)

    def on_unmount(self) -> None:
        self.stop.set()
        self.wake.set()

    # -- what its thread tells

    def begun(self, found: WhatIf) -> None:
        self.found = found
        self.write("title", f"{TITLE} {found.base.model.name}")
        self._renew()

    def failed(self, reason: str) -> None:
        self._problem = reason
        self._renew()

    def far(self, done: int, of: int) -> None:
        self._far = done, of
        if self.found is not None and self.found.estimate() is None:
            self._renew()

    def measured(self) -> None:
        self._far = 0, 0
        self._renew()

    # -- keys

    def action_move(self, by: int) -> None:
        self._note = ""
        if self.found is not None:
            self._at = max(0, min(len(self.found.rows) - 1, self._at + by))
            self._renew(follow=True)
        else:
            self.action_scroll(by)

    def action_change(self, by: int) -> None:
        self._note = ""
        if self.found is None:
            return
        row = self.found.rows[self._at]
        try:
            self.found.change(row, by)
        except ValueError as error:
            self.note(f"{row.name}: {error}")
            return
        self._changed()

    def action_take(self, number: int) -> None:
        near = self._nearest
        if self.found is not None and number <= len(near):
            self.found.take(near[number - 1].settings)
            self._changed()

    def action_reset(self) -> None:
        if self.found is not None:
            self.found.reset()
            self._changed()

    def _changed(self) -> None:
        self._note = ""
        self.wake.set()
        self._renew(follow=True)

    # -- what is shown

    def _renew(self, *, follow: bool = False) -> None:
        """Draw anew; `follow`: with the chosen setting on the screen."""
        if not self.is_attached:
            return
        body = self._body
        body.say(self._lines, top=body.top)
        height = body.content_size.height
        if follow and height:
            line = self._first + self._at
            body.scroll(max(min(body.top, line), line + 1 - height) - body.top)
        self.call_after_refresh(self.foot)

    @property
    def _nearest(self) -> list[Any]:
        return [] if self.found is None else self.found.nearest()

    def _lines(self, width: int) -> list[Line]:
        if self._problem:
            return [((part, "bad"),) for part in wrap(self._problem, width)]
        found = self.found
        if found is None:
            return [((READING, "dim"),)]
        lines = [*self._verdict(found, width), ()]
        self._first = len(lines)
        lines += _table(found, self._at, width)
        for part in (_near(self._nearest, width), _well(found, width), _for_config(found, width)):
            if part:
                lines += [(), *part]
        return lines

    def _verdict(self, found: WhatIf, width: int) -> list[Line]:
        """Whether it fits, or why that is not known."""
        whole, device = found.estimate(), found.device
        if whole is None:
            problem = found.problems.get(found.needs)
            if problem:
                text = f"what it takes is not known: {problem}"
                return [((part, "bad"),) for part in wrap(text, width)]
            done, of = self._far
            share = done / of if of else 0.0
            text = f"measuring the model as {found.config.model.method} in {found.precision}"
            return [((f"[{bar(share, 10)}] {percent(share)} {text}", "dim"),)]
        text, tone = fits(whole, device)
        text = f"each of {found.together} processes {text}" if found.together > 1 else text
        return [*_said((text, tone), width), *_said((peak(whole, device), "dim"), width)]


def size(bytes: float) -> str:
    """Bytes, to a tenth of a GB: what decides may be as little."""
    number = real(bytes) or 0.0
    return f"{number / 1e9:.1f} GB" if 1e9 <= abs(number) < 1e12 else rounded(number)


def fits(whole: Estimate, device: Device) -> tuple[str, str]:
    """Whether it fits, and the tone of that."""
    left = device.usable - whole.total
    if left >= 0:
        return f"fits {device.name} with {size(left)} to spare", "good"
    return f"does not fit {device.name} by {size(-left)}", "bad"


def peak(whole: Estimate, device: Device) -> str:
    usable = f"{size(device.usable)} usable ({size(device.free)} free of {size(device.total)})"
    return f"{size(whole.total)} {MOMENTS[whole.moment]}, of {usable}"


def _said(text: tuple[str, str], width: int) -> list[Line]:
    return [((part, text[1]),) for part in wrap(text[0], width)]


def _table(found: WhatIf, at: int, width: int) -> Iterator[Line]:
    """The settings at the left, the chosen one marked; the parts at the right."""
    rows, whole = found.rows, found.estimate()
    parts = [] if whole is None else _parts(whole)
    most = max((abs(bytes) for _, bytes in parts), default=1) or 1
    name, value, gap = (13, 14, 1) if width < NARROW else (15, 20, 3)
    changed = found.changed()
    for n in range(max(len(rows), len(parts))):
        row = rows[n] if n < len(rows) else None
        part = parts[n] if n < len(parts) else None
        left = "" if row is None else _setting(found, row, name, value)
        marked = row is not None and _differs(row, found, changed)
        spans = [((">" if n == at else " ") + left if row else "", _tone(n == at, marked))]
        if part is not None:
            fill = 1 + name + value + gap - cell_len(line_text((spans[0],)))
            drawn = bar(abs(part[1]) / most, max(1, width - 1 - name - value - gap - 22))
            spans += [(" " * max(1, fill), ""), (pad(part[0], 12), "dim")]
            spans += [(pad(_signed(*part), 9, right=True), ""), (" " + drawn.rstrip("."), "band")]
        yield tuple(spans)


def _setting(found: WhatIf, row: Row, name: int, value: int) -> str:
    text = row.value
    if row.name == "precision" and text == "auto":
        text = f"auto ({found.precision})"
    arrows = ("<" if row.at else " ", ">" if row.at + 1 < len(row.choices) else " ")
    return f"{pad(row.name, name)}{arrows[0]}{pad(text, value - 2)}{arrows[1]}"


def _differs(row: Row, found: WhatIf, changed: Mapping[str, Any]) -> bool:
    """Whether the row is not as config.toml has it."""
    if not row.choices[row.at].settings:
        return row.at > 0
    return any(key in changed for key in row.choices[row.at].settings)


def _tone(chosen: bool, marked: bool) -> str:
    return "chosen" if chosen else "accent" if marked else ""


def _parts(whole: Estimate) -> list[tuple[str, int]]:
    told = whole.to_json()
    return [(part, int(told[part])) for part in PARTS if told[part] or part != "pageable"]


def _signed(part: str, bytes: int) -> str:
    return f"-{size(bytes)}" if part == "pageable" else size(bytes)


def _near(near: list[Any], width: int) -> list[Line]:
    """What would fit, by the keys that take it."""
    lines: list[Line] = []
    for number, one in enumerate(near, 1):
        text = f"{one.words()} ({size(one.estimate.total)})"
        for n, part in enumerate(wrap(text, width - 7)):
            head = f"{number} fits " if not n else " " * 7
            lines.append(((head, "accent"), (part, "")))
    return lines


def _well(found: WhatIf, width: int) -> list[Line]:
    """How well the estimate did so far on this machine's device."""
    well = found.well
    if not well:
        return [((part, "dim"),) for part in wrap("nothing was measured here so far", width)]
    from engine.memory.records import told

    last, sep = well["last"], ":" if well["items"] == 1 else "; last"
    text = f"so far here, {told(well)}{sep} {size(last['predicted'])} and {size(last['measured'])}"
    return [((part, "dim"),) for part in wrap(text, width)]


def _for_config(found: WhatIf, width: int) -> list[Line]:
    """The lines to copy."""
    told = found.lines()
    if not told:
        return [(("this is what config.toml says", "dim"),)]
    lines: list[Line] = [(("for config.toml (nothing is changed from here):", "bold"),)]
    lines += [((line, ""),) for line in told]
    locked = found.locked()
    if locked:
        keys = ", ".join(locked)
        text = f"locked since training started: {keys} (another home, or config unlock)"
        lines += [((part, "warn"),) for part in wrap(text, width)]
    return lines
