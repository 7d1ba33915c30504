"""Pane 2: the curves of training, with their history over restarts.

The pane decides what is drawn, and of which steps; drawing is tui.curve's, the line above it
tui.legend's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from textual.events import Click, MouseEvent, MouseScrollDown, MouseScrollUp

from tui import legend
from tui.figures import count, real
from tui.frame import CurveAim, Frame
from tui.marks import SETS, Mark, marks
from tui.metrics import EXACT, METRICS, TITLES
from tui.panes.base import Pane, words
from tui.safe import Line
from tui.viewport import Viewport

if TYPE_CHECKING:
    from tui.curve import Other, Plot
    from tui.series import Series, Track

PARTS = ("series", "detail", "marks", "left", "overlay", "under")
"""What of a frame the pane shows."""
VERSION_POINTS = 2000
"""Points in which the line of a version is read."""


class CurvesPane(Pane):
    name_of = "curves"
    number = 2

    def __init__(self, aim: Callable[[CurveAim], None], *, ascii: bool = False) -> None:
        super().__init__()
        self.metric = "loss"
        self.log_scale = False
        self.band = True
        self.averaged = {metric: metric not in EXACT for metric in METRICS}
        self.branches = True
        self.marked = 0
        self.viewport = Viewport()
        self.cursor: int | None = None
        self.overlay: tuple[str, str] | None = None
        self._aim = aim
        self._asked = CurveAim()
        self._ascii = ascii
        self._plot: Plot | None = None
        self._plotted: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
        self._ends = (0.0, 1.0)
        self._held: dict[str, Series] = {}

    # -- what is in view

    @property
    def ema(self) -> bool:
        """Whether the line is a moving average."""
        return self.averaged[self.metric]

    def title(self) -> str:
        parts = [TITLES[self.metric]]
        if self.overlay is not None:
            parts.append(" over ".join(name or "the present" for name in self.overlay))
        x0, x1 = self.view()
        if not self.viewport.following:
            parts.append(f"held · steps {count(x0)} to {count(x1)}")
        else:
            window = self.viewport.window
            parts += ["follow", f"last {count(window)}" if window else "all steps"]
        parts.append("log" if self.log_scale else "lin")
        if self.marked:
            parts.append(f"marks: {SETS[self.marked][0]}")
        parts += [] if self.branches else ["branches off"]
        return " · ".join(parts)

    def base(self, name: str) -> Series | None:
        """The whole history of a metric; while the view is held, as it was then: what one looks
        at does not move when newer steps make the history coarser."""
        if self.viewport.following:
            return self.frame.series.get(name)
        if name not in self._held and name in self.frame.series:
            self._held[name] = self.frame.series[name]
        return self._held.get(name)

    def ends(self) -> tuple[float, float]:
        """First and last step of what is drawn."""
        whole = self.base(self.metric)
        if whole is not None and len(whole):
            self._ends = float(whole.steps[0]), float(whole.last)
        first, last = self._ends  # while another metric is read, those of the one before
        if self.overlay is not None:
            steps = [self._version_step(name) for name in self.overlay if name]
            here = [last] if "" in self.overlay else []
            last = max([first + 1, *here, *steps])
        return first, last

    def _version_step(self, name: str) -> float:
        found = (real(v.get("step")) for v in self.frame.versions if v.get("name") == name)
        return next((step for step in found if step is not None), 0.0)

    def view(self) -> tuple[float, float]:
        """First and last step in view."""
        return self.viewport.range(*self.ends())

    def line_of(self, name: str) -> Series | None:
        """The series of a version, "" for the present line: the finer one of the range in view
        where it was asked for."""
        if name:
            return self.frame.overlay.get(name)
        detail = self.frame.detail.get(self.metric) if self._asked.detail else None
        return detail if detail is not None and len(detail) else self.base(self.metric)

    def main(self) -> Series | None:
        """The series of the line."""
        return self.line_of(self.overlay[0] if self.overlay is not None else "")

    def _ask(self, width: int = 0) -> None:
        """Ask for what is in view, finer than the whole history where that is too coarse. Without
        a width the range stays as it was asked for."""
        detail = self._asked.detail if self._asked.metric == self.metric else None
        if width:
            detail = self._detail(width)
        aim = CurveAim(self.metric, detail, self.branches, self.overlay or (), self.cursor)
        if aim != self._asked:
            self._asked = aim
            self._aim(aim)

    def _detail(self, width: int) -> tuple[int, int | None, int] | None:
        whole = self.base(self.metric)
        if whole is None or not len(whole):
            return None
        x0, x1 = self.view()
        coarse = whole.spacing
        if self.overlay is not None:
            coarse = max(coarse, self.ends()[1] / VERSION_POINTS)
        dots = max(2, (width - 8) * 2)
        if coarse <= 1 or (x1 - x0 + 1) / dots >= coarse:
            return None
        start = max(0, int(x0 - (x1 - x0)))
        return start, None if self.viewport.following else int(x1), min(10_000, dots * 4)

    # -- drawing

    def lines(self, width: int, height: int) -> list[Line]:
        whole = self.base(self.metric)
        if whole is None or not len(whole):
            self._plot = None
            return legend.nothing(self.frame, self.metric, width)
        self._keep_cursor_in_view()
        self._ask(width)
        series = self.main()
        if series is None or not len(series):
            self._plot = None
            name = self.overlay[0] if self.overlay is not None else ""
            if name not in self.frame.overlay:
                return words([f"reading {name}…"])
            return words([f"{name} has no {TITLES[self.metric]} here (Esc: off)"])
        self._draw(series, width, height - 1)
        assert self._plot is not None
        return [self._above(series, width), *self._plot.lines]

    def _keep_cursor_in_view(self) -> None:
        if self.cursor is not None:
            x0, x1 = self.view()
            self.cursor = int(min(max(self.cursor, x0), x1))

    def _draw(self, series: Series, width: int, height: int) -> None:
        """Plot, unless the picture would be the one that is there."""
        from tui.curve import Look, plot

        x0, x1 = self.view()
        validation = self._validation()
        parts = (series, validation, self.frame.marks, self._second(), *self._tracks())
        shape = (self.band, self.ema, self.log_scale, self._ascii, self.cursor, self.metric)
        look = Look(x0, x1, *shape)
        form = (look, width, height, self.marked, len(parts))
        old_parts, old_form = self._plotted
        same = form == old_form and all(a is b for a, b in zip(parts, old_parts, strict=True))
        if self._plot is None or not same:
            above = self._marks() if self.marked != len(SETS) - 1 and self.frame.marks else None
            others = self._others()
            self._plot = plot(series, validation, above, look, width, height, others)
            self._plotted = (parts, form)

    def _validation(self) -> Series | None:
        """The one validation figure, on the line of the present."""
        drawn = self.metric == "loss" and self.overlay is None
        return self.base("val_loss") if drawn else None

    def _marks(self) -> list[Mark]:
        """What happened on the present line; another line's is not known."""
        if self.overlay is not None and self.overlay[0]:
            return []
        return marks(self.frame.marks, SETS[self.marked][1])

    def _tracks(self) -> Sequence[Track]:
        """The branches left that are in view."""
        if not self.branches or self.overlay is not None:
            return ()
        x0, x1 = self.view()
        return [track for track in self.frame.left if track.seen(self.metric, x0, x1)]

    def _second(self) -> Series | None:
        return self.line_of(self.overlay[1]) if self.overlay is not None else None

    def nothing_yet(self) -> str:
        return "" if any(len(s) for s in self.frame.series.values()) else "no steps yet"

    def _others(self) -> list[Other]:
        from tui.curve import Other

        second = self._second()
        if second is not None and len(second):
            return [Other(second, "o", "accent", every=2, whole=True)]
        # The newest over the older ones.
        return [Other(track.series, "~", "dim") for track in reversed(self._tracks())]

    def _above(self, series: Series, width: int) -> Line:
        plot = self._plot
        assert plot is not None
        if self.cursor is not None:
            under, validation = self.frame.under, self._validation()
            here = self._marks()
            return legend.read_out(plot, self.metric, self.cursor, validation, under, here, width)
        if self.overlay is not None:
            second = self._second()
            if second is None:
                return ((f"reading {self.overlay[1]}…", "dim"),)
            return legend.overlay(plot, self.overlay, (series, second), width)
        now = self.frame.series.get(self.metric)
        newer = int(now.last - self.view()[1]) if now is not None and len(now) else 0
        return legend.legend(
            plot,
            series,
            self._validation(),
            width,
            ema=self.ema,
            band=self.band,
            left=len(self._tracks()),
            newer=0 if self.viewport.following else newer,
            last=self.view()[1],
        )

    # -- actions

    def _changed(self) -> None:
        self._ask()
        self.set_title()
        self.redraw()

    def do_metric(self) -> None:
        self._choose_metric(1)

    def do_metric_before(self) -> None:
        self._choose_metric(-1)

    def _choose_metric(self, by: int) -> None:
        self.metric = METRICS[(METRICS.index(self.metric) + by) % len(METRICS)]
        self._changed()

    def do_log(self) -> None:
        self.log_scale = not self.log_scale
        self._changed()

    def do_band(self) -> None:
        self.band = not self.band
        self._changed()

    def do_ema(self) -> None:
        self.averaged[self.metric] = not self.ema
        self._changed()

    def do_branches(self) -> None:
        self.branches = not self.branches
        self._changed()

    def do_markers(self) -> None:
        self.marked = (self.marked + 1) % len(SETS)
        self._changed()

    def lay_over(self, names: tuple[str, str] | None) -> None:
        """Show two versions' lines ("" is the present one) in one picture; None takes it off."""
        self.overlay, self.cursor, self.viewport = names, None, Viewport()
        self._changed()

    def back(self) -> bool:
        """Esc: the overlay off, then the cursor."""
        if self.overlay is not None:
            self.lay_over(None)
        elif self.cursor is not None:
            self.do_cursor()
        else:
            return False
        return True

    def do_window(self) -> None:
        self.viewport.narrower()
        self._changed()

    def do_follow(self) -> None:
        if self.viewport.following:
            self._holding()
            self.viewport.hold(*self.view())
        else:
            self.viewport.follow()
        self._changed()

    def _holding(self) -> None:
        """From now on the view is held: keep what is in it."""
        if self.viewport.following:
            self._held = dict(self.frame.series)

    def do_cursor(self) -> None:
        newest = int(min(self.view()[1], self.ends()[1]))
        self.cursor = None if self.cursor is not None else newest
        self._changed()

    def _pan(self, by: int) -> None:
        if not self.frame.step:
            return
        if self.cursor is not None and self._plot is not None:
            (first, last), (x0, x1) = self.ends(), self.view()
            stride = max(1, round(self._plot.steps_per_column))
            self.cursor = int(min(max(self.cursor + by * stride, first), last))
            if x0 <= self.cursor <= x1:
                self._changed()
                return
        self._holding()
        self.viewport.pan(by, *self.ends())
        self._changed()

    def do_pan_left(self) -> None:
        self._pan(-1)

    def do_pan_right(self) -> None:
        self._pan(1)

    def do_zoom_out(self) -> None:
        self._zoom(2.0, self.cursor)

    def do_zoom_in(self) -> None:
        self._zoom(0.5, self.cursor)

    def _zoom(self, factor: float, about: float | None) -> None:
        if not self.frame.step:
            return
        self._holding()
        self.viewport.zoom(factor, *self.ends(), about)
        self._changed()

    # -- the mouse

    def _step_under(self, event: MouseEvent) -> int | None:
        """The step under the pointer; None beside the picture."""
        from tui.curve import AXIS

        inside = event.get_content_offset(self)
        if inside is None or self._plot is None or inside.x < AXIS or inside.y < 1:
            return None
        first, last = self.ends()
        return int(min(max(round(self._plot.step_at(inside.x - AXIS)), first), last))

    def on_click(self, event: Click) -> None:
        if (step := self._step_under(event)) is not None:
            self.cursor = step
            self._changed()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self._zoom(0.5, self._step_under(event))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self._zoom(2.0, self._step_under(event))

    # -- frames

    def show(self, frame: Frame) -> None:
        changed = any(getattr(frame, part) is not getattr(self.frame, part) for part in PARTS)
        for name, held in self._held.items():
            now = frame.series.get(name)
            if now is not None and (now.branch != held.branch or now.last < held.last):
                self._held = {}  # the line itself is another one now
                break
        # A picture is drawn when its data changed, not 4 times a second.
        if changed:
            super().show(frame)
        else:
            self.frame = frame
            if self._plot is None:
                self.redraw()
