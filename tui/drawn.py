"""Widgets that draw their own lines and send to the terminal only what changed in them.

`lines` says what stands on the screen now; `redraw` compares it with what stood there and
marks the changed cells alone. A console on a slow link lives on this: nothing here may call
`refresh()` without a region while data runs.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.style import Style
from textual.events import Resize
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.contrast import muted, plain_text, readable
from tui.frame import Frame
from tui.safe import Line, fit, line_text, plain, strip

TONES = (
    *("dim", "bold", "accent", "good", "warn", "bad", "line", "band", "mark", "chosen"),
    *("trained", "masked"),
)
MUTED_TONES = ("dim", "masked")
"""Drawn from the theme's plain text: its own muted colour is relative to a background that a
component style does not have."""


def _cells(line: Line) -> tuple[str, list[str]]:
    """Every character of a line, and the tone of every character."""
    tones: list[str] = []
    for text, tone in line:
        tones.extend([tone] * len(text))
    return line_text(line), tones


def changed_span(old: Line, new: Line, width: int) -> tuple[int, int]:
    """First column and number of columns in which two lines differ.

    The whole width where a character is not one column wide.
    """
    old_text, old_tones = _cells(old)
    new_text, new_tones = _cells(new)
    if cell_len(old_text) != len(old_text) or cell_len(new_text) != len(new_text):
        return 0, width
    old_text, new_text = old_text.ljust(width)[:width], new_text.ljust(width)[:width]
    old_tones = (old_tones + [""] * width)[:width]
    new_tones = (new_tones + [""] * width)[:width]
    differ = [x for x in range(width) if old_text[x] != new_text[x] or old_tones[x] != new_tones[x]]
    return (differ[0], differ[-1] - differ[0] + 1) if differ else (0, 0)


class Drawn(Widget):
    """A widget of lines; subclasses say which in `lines`. `dimmed` draws all in one dim tone."""

    COMPONENT_CLASSES = {f"tone--{tone}" for tone in TONES}
    ALLOW_SELECT = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._drawn: list[Line] = []
        self._drawn_width = -1
        self.dimmed = False
        self.frame = Frame()

    def show(self, frame: Frame) -> None:
        """Show a new frame."""
        self.frame = frame
        self.redraw()

    def lines(self, width: int, height: int) -> list[Line]:
        """What to show in `width` columns and `height` rows, from the top."""
        return []

    def redraw(self) -> None:
        """Bring the screen up to date, cell by cell."""
        width, height = self.content_size
        if not width or not height or not self.display:
            return
        if width != self._drawn_width:
            self._drawn, self._drawn_width = [], width
        new = [fit(line, width) for line in self.lines(width, height)[:height]]
        new += [()] * (height - len(new))
        old = self._drawn if len(self._drawn) == height else [None] * height
        regions = []
        for y, (before, after) in enumerate(zip(old, new, strict=True)):
            if before == after:
                continue
            x, length = (0, width) if before is None else changed_span(before, after, width)
            if length:
                regions.append(Region(x, y, length, 1))
        self._drawn = new
        if regions:
            self.refresh(*regions)

    def redraw_all(self) -> None:
        """Draw every cell again (another tone for all, another theme)."""
        self._drawn = []
        self.redraw()
        self.refresh()

    def set_dimmed(self, dimmed: bool) -> None:
        if dimmed != self.dimmed:
            self.dimmed = dimmed
            self.redraw_all()

    def tone(self, name: str) -> Style:
        """The terminal style of a tone, readable on the theme's background."""
        base = plain_text(self.rich_style)
        if self.dimmed or name in MUTED_TONES:
            return muted(base)
        if not name:
            return Style.null()
        found = self.get_component_rich_style(f"tone--{name}", partial=True)
        return readable(found, base)

    def on_resize(self, event: Resize) -> None:
        self.redraw()

    def render_line(self, y: int) -> Strip:
        if not self._drawn:
            self.redraw()
        line = self._drawn[y] if y < len(self._drawn) else ()
        if self.screen.has_class("-ascii"):
            line = plain(line)
        return strip(line, self.content_size.width, self.tone, plain_text(self.rich_style))
