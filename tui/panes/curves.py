"""Pane 2: the curves of training, with their history over restarts.

The pane decides which steps are in view; drawing is tui.curve's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tui.figures import bar, count, loss, real, short, why
from tui.frame import Frame
from tui.panes.base import Pane, words
from tui.safe import Line, Span

if TYPE_CHECKING:
    from tui.curve import Plot
    from tui.series import Series

METRICS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "seconds", "memory")
TITLES = {
    "loss": "loss",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_second": "tokens per second",
    "seconds": "seconds a step",
    "memory": "memory in bytes",
}
WINDOWS = (0, 1000, 300, 100)
SMALLEST = 10


def figure(metric: str, value: float) -> str:
    """A value as its metric is written."""
    if metric in ("tokens_per_second", "memory"):
        return short(value)
    return f"{value:.1e}" if metric == "learning_rate" and math.isfinite(value) else loss(value)


class CurvesPane(Pane):
    name_of = "curves"
    number = 2

    def __init__(
        self,
        aim: Callable[[str, tuple[int, int | None, int] | None], None],
        *,
        ascii: bool = False,
    ) -> None:
        super().__init__()
        self.metric = "loss"
        self.log_scale = False
        self.band = True
        self.ema = True
        self.window = 0
        self.following = True
        self.right: float | None = None
        self.cursor: int | None = None
        self._aim = aim
        self._ascii = ascii
        self._plot: Plot | None = None
        self._wants: tuple[int, int | None, int] | None = None

    # -- what is in view

    def title(self) -> str:
        window = f"last {count(self.window)}" if self.window else "all steps"
        parts = [TITLES[self.metric], "follow" if self.following else "held", window]
        return " · ".join([*parts, "log" if self.log_scale else "lin"])

    def main(self) -> Series | None:
        """The series to draw: the finer one of the range in view, where it was asked for."""
        detail = self.frame.detail.get(self.metric) if self._wants else None
        return detail if detail is not None and len(detail) else self.frame.series.get(self.metric)

    def view(self) -> tuple[float, float]:
        """First and last step in view. While it follows, the end moves in jumps of an eighth of
        the range: between them only the newest columns change on the screen."""
        whole = self.frame.series.get(self.metric)
        first = float(whole.steps[0]) if whole is not None and len(whole) else 0.0
        last = float(whole.last) if whole is not None and len(whole) else 1.0
        if not self.following and self.right is not None:
            right = self.right
            length = float(self.window) if self.window else right - first + 1
            return right - length + 1, right
        length = float(self.window) if self.window else max(SMALLEST, last - first + 1)
        jump = max(1.0, 2.0 ** math.floor(math.log2(max(1.0, length / 8))))
        right = first + math.ceil((last - first + 1) / jump) * jump - 1
        right = max(right, first + SMALLEST - 1)
        # Before the first step there is nothing: a short history is not drawn into a corner.
        return (max(first, right - length + 1) if self.window else first), right

    def _check_detail(self, x0: float, x1: float, width: int) -> None:
        """Ask for the range itself where the whole history is too coarse to show it."""
        whole = self.frame.series.get(self.metric)
        dots = max(2, (width - 8) * 2)
        wants: tuple[int, int | None, int] | None = None
        if whole is not None and whole.spacing > 1 and (x1 - x0 + 1) / dots < whole.spacing:
            start = max(0, int(x0 - (x1 - x0)))
            wants = (start, None if self.following else int(x1), min(10_000, dots * 4))
        if wants != self._wants:
            self._wants = wants
            self._aim(self.metric, wants)

    # -- drawing

    def lines(self, width: int, height: int) -> list[Line]:
        whole = self.frame.series.get(self.metric)
        if whole is None or not len(whole):
            self._plot = None
            return self._nothing(width)
        from tui.curve import Look, plot

        x0, x1 = self.view()
        self._check_detail(x0, x1, width)
        series = self.main()
        assert series is not None
        validation = self.frame.series.get("val_loss") if self.metric == "loss" else None
        versions = [
            (int(step), str(version.get("name")))
            for version in self.frame.versions
            if (step := real(version.get("step"))) is not None
            and version.get("branch") == self.frame.status.get("branch")
        ]
        look = Look(x0, x1, self.band, self.ema, self.log_scale, self._ascii, self.cursor)
        self._plot = plot(series, validation, versions, look, width, height - 1)
        return [self._legend(validation), *self._plot.lines]

    def nothing_yet(self) -> str:
        return "" if any(len(s) for s in self.frame.series.values()) else "no steps yet"

    def _nothing(self, width: int) -> list[Line]:
        """What to say before there is a step."""
        status = self.frame.status
        phase, progress = str(status.get("phase") or ""), real(status.get("progress"))
        if not status:
            return words(["asking the engine…"])
        lines = words(["no steps yet", phase or f"the engine is {self.frame.state}"])
        if progress is not None:
            lines.append((((bar(progress, max(10, min(40, width - 8)))), "accent"),))
            lines.append(((f"{progress * 100:.0f}%", "dim"),))
        reason = why(status.get("loss"))
        if reason and not phase:
            lines.append(((reason, "dim"),))
        return lines

    def _legend(self, validation: Series | None) -> Line:
        plot = self._plot
        assert plot is not None
        if self.cursor is not None:
            return self._read_out(plot, validation)
        name = "train" if self.metric == "loss" else TITLES[self.metric]
        kind = " (EMA)" if self.ema else ""
        spans: list[Span] = [
            ("- ", "line"),
            (f"{name} {figure(self.metric, plot.newest)}{kind}", ""),
        ]
        if self.band:
            spans.append(("   : min to max", "band"))
        if validation is not None and len(validation):
            value = float(validation.mean[-1])
            spans += [("   * ", "mark"), (f"val {loss(value)}", "")]
            gap = value - plot.newest
            if math.isfinite(gap):
                spans.append((f"   gap {gap:+.3f}", "warn" if gap > 0.05 else "dim"))
        series = self.main()
        if series is not None and len(series) and not math.isfinite(float(series.mean[-1])):
            spans.append(("   ! not a number", "bad"))
        return tuple(spans)

    def _read_out(self, plot: Plot, validation: Series | None) -> Line:
        """The values under the cursor."""
        at = max(0, min(self.cursor or 0, len(plot.line_at) - 1))
        step = plot.step_at(at)
        low, high = plot.range_at[at]
        value = plot.line_at[at]
        if not math.isfinite(value) and not plot.bad_at[at]:
            return (("| ", "accent"), (f"step {count(step)}   no value here", ""))
        text = f"step {count(step)}   {figure(self.metric, value)}"
        if math.isfinite(low):
            text += f"   from {figure(self.metric, low)} to {figure(self.metric, high)}"
        if validation is not None:
            before = int((validation.steps <= step).sum())
            if before:
                text += f"   val {loss(float(validation.mean[before - 1]))}"
        return (("| ", "accent"), (text, ""))

    # -- actions

    def _changed(self) -> None:
        self.set_title()
        self.redraw()

    def do_metric(self) -> None:
        self.metric = METRICS[(METRICS.index(self.metric) + 1) % len(METRICS)]
        self._wants = None
        self._aim(self.metric, None)
        self._changed()

    def do_log(self) -> None:
        self.log_scale = not self.log_scale
        self._changed()

    def do_band(self) -> None:
        self.band = not self.band
        self._changed()

    def do_ema(self) -> None:
        self.ema = not self.ema
        self._changed()

    def do_window(self) -> None:
        smaller = [window for window in WINDOWS if 0 < window < (self.window or math.inf)]
        self.window = smaller[0] if smaller else 0
        self._changed()

    def do_follow(self) -> None:
        right = self.view()[1]
        self.following = not self.following
        self.right = None if self.following else right
        self._changed()

    def do_cursor(self) -> None:
        columns = max(4, self.content_size.width - 8)
        self.cursor = None if self.cursor is not None else columns - 1
        self._changed()

    def _hold(self, x0: float, x1: float) -> None:
        """Show these steps and stay there."""
        self.following = False
        self.window, self.right = max(SMALLEST, round(x1 - x0 + 1)), x1
        self._changed()

    def _pan(self, by: int) -> None:
        x0, x1 = self.view()
        if self.cursor is not None:
            columns = max(4, self.content_size.width - 8)
            moved = self.cursor + by
            self.cursor = max(0, min(columns - 1, moved))
            if moved == self.cursor:
                self._changed()
                return
        whole = self.frame.series.get(self.metric)
        if whole is None or not len(whole):
            return
        shift = by * max(1.0, (x1 - x0 + 1) / 4)
        first, last = float(whole.steps[0]), float(whole.last)
        right = min(max(x1 + shift, first + (x1 - x0) / 4), max(x1 if by < 0 else 0, last))
        self._hold(right - (x1 - x0), right)

    def do_pan_left(self) -> None:
        self._pan(-1)

    def do_pan_right(self) -> None:
        self._pan(1)

    def do_zoom_out(self) -> None:
        self._zoom(2.0)

    def do_zoom_in(self) -> None:
        self._zoom(0.5)

    def _zoom(self, factor: float) -> None:
        x0, x1 = self.view()
        whole = self.frame.series.get(self.metric)
        if whole is None or not len(whole):
            return
        length = max(SMALLEST, round((x1 - x0 + 1) * factor))
        if length >= whole.last - float(whole.steps[0]) + 1:
            self.window, self.following, self.right = 0, True, None
        else:
            self.window = length
        self._changed()

    def show(self, frame: Frame) -> None:
        if frame.series is not self.frame.series or frame.detail is not self.frame.detail:
            super().show(frame)
            return
        same_versions = frame.versions is self.frame.versions
        self.frame = frame
        # A picture is drawn when its data changed, not 4 times a second.
        if not same_versions or self._plot is None:
            self.redraw()
