"""The line above the curves: what is drawn with which sign, or the values under the cursor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from queue_store.compared import steps_before
from tui.figures import bar, count, counted, known, loss, real, why
from tui.frame import Frame, Record
from tui.marks import Mark
from tui.metrics import TITLES, figure
from tui.panes.base import words
from tui.panes.events import clock_time
from tui.safe import Line, Span, fit, line_text

if TYPE_CHECKING:
    from tui.curve import Plot
    from tui.series import Series

COMPARED = 100
"""Steps up to the last one of both of two lines, whose mean losses are compared."""
WIDE_GAP = 0.05


def gap(series: Series, validation: Series, at: int = -1) -> float | None:
    """A validation loss (the one at index `at`) less the mean training loss of the steps up to it
    (of the points nearest to it where the series is coarser); None where either is missing, not a
    number, or too early to tell."""
    if not len(validation) or not len(series):
        return None
    step = int(validation.steps[at])
    near = steps_before(step)
    if not near:
        return None
    found = float(validation.mean[at]) - _mean_until(series, step, near)
    return found if math.isfinite(found) else None


def _mean_until(series: Series, step: int, near: int) -> float:
    """The mean of the `near` steps up to `step`; NaN without one, or where one is no number."""
    reach = max(float(near), 2 * series.spacing)
    found = series.mean[(series.steps > step - reach) & (series.steps <= step)]
    return float(found.mean()) if len(found) else math.nan


def legend(
    plot: Plot,
    series: Series,
    validation: Series | None,
    width: int,
    *,
    ema: bool,
    band: bool,
    left: int,
    newer: int,
    last: float,
) -> Line:
    """The signs of what is drawn, with the newest values in view (until step `last`). `left` is
    the number of branches left that are drawn, `newer` that of steps beyond the right edge."""
    metric = series.metric
    name = "train" if metric == "loss" else TITLES[metric]
    parts: list[Span] = [("- ", "line"), (f"{name} {figure(metric, plot.newest)}", "")]
    parts.append((" (EMA)" if ema else "", ""))
    if not math.isfinite(plot.newest) or not math.isfinite(float(series.mean[-1])):
        parts.append(("  ! not a number", "bad"))
    if band:
        parts.append(("  : min to max", "band"))
    at = -1 if validation is None else int((validation.steps <= last).sum()) - 1
    if validation is not None and at >= 0:
        value, tick = float(validation.mean[at]), int(validation.steps[at])
        parts += [("  * ", "mark"), (f"val {loss(value)} at {count(tick)}", "")]
        apart = gap(series, validation, at)
        if apart is not None:
            text = f"  gap {round(apart, 3) + 0.0:+.3f}"  # no -0.000
            parts.append((text, "warn" if apart > WIDE_GAP else "dim"))
    if left:
        parts.append((f"  ~ {left} left", "dim"))
    return _ending(parts, f">> {counted(newer, 'newer step')}: f" if newer > 0 else "", width)


def overlay(plot: Plot, names: tuple[str, str], shown: tuple[Series, Series], width: int) -> Line:
    """Two lines in one picture, and how far they are from each other where both are newest."""
    first, second = shown
    metric = first.metric
    one, other = (name or "the present" for name in names)
    if not len(second) or not plot.newest_beside:
        return ((f"{other} has no {TITLES[metric]} here", "warn"),)
    parts: list[Span] = [
        ("- ", "line"),
        (f"{one} {figure(metric, plot.newest)}", ""),
        ("   o ", "accent"),
        (f"{other} {figure(metric, plot.newest_beside[0])}", ""),
    ]
    both = min(first.last, second.last)
    near = min(COMPARED, both)
    apart = _mean_until(second, both, near) - _mean_until(first, both, near)
    if math.isfinite(apart):
        parts.append((f"   o less - {apart:+.3g}: the {near} steps to {count(both)}", "dim"))
    return _ending(parts, "Esc: off", width)


def read_out(
    plot: Plot,
    metric: str,
    step: int,
    validation: Series | None,
    under: Record,
    marks: Sequence[Mark],
    width: int,
) -> Line:
    """The values at the step under the cursor: mean, moving average, least and most of the steps of
    its column, the last validation until then, its item, its time, and what happened there."""
    at = max(0, min(plot.column_of(step), len(plot.line_at) - 1))
    low, high = plot.range_at[at]
    value, average = plot.mean_at[at], plot.line_at[at]
    parts: list[Span] = [("| ", "accent"), (f"step {count(step)}", "bold")]
    if plot.bad_at[at]:
        parts.append(("  ! not a number", "bad"))
    elif not math.isfinite(value):
        parts.append(("  no value here", "dim"))
    if math.isfinite(value):
        parts.append((f"  {figure(metric, value)}", ""))
    if math.isfinite(average) and average != value:
        parts.append((f" EMA {figure(metric, average)}", "line"))
    if math.isfinite(low) and high > low:
        parts.append((f" ({figure(metric, low)} to {figure(metric, high)})", "band"))
    if validation is not None:
        before = int((validation.steps <= step).sum())
        if before:
            value, tick = float(validation.mean[before - 1]), int(validation.steps[before - 1])
            parts.append((f"  val {loss(value)} at {count(tick)}", ""))
    here = [mark for mark in marks if plot.column_of(mark.step) == at]
    parts += [(f"  {mark.text}", "warn") for mark in reversed(here) if mark.kind != "item"]
    if under.get("asked") == step and real(under.get("step")) is not None:
        if known(under.get("name")):
            parts.append((f"  {str(under.get('name')).removesuffix('.jsonl')}", ""))
        parts.append((f"  {clock_time(under.get('time'), date=True)}", "dim"))
        parts.append((_sets(under.get("validation")), "dim"))
    return fit(parts, width)


def _sets(validation: object) -> str:
    """The losses of the single sets of a validation, where there are several."""
    sets = validation.get("sets") if isinstance(validation, Mapping) else None
    if not isinstance(sets, Mapping) or len(sets) < 2:
        return ""
    return "  of " + ", ".join(f"{name} {loss(value)}" for name, value in sets.items())


def nothing(frame: Frame, metric: str, width: int) -> list[Line]:
    """What to say before there is a step, or where a metric has no value."""
    status = frame.status
    phase, progress = str(status.get("phase") or ""), real(status.get("progress"))
    if not status:
        return words(["asking the engine…"])
    if frame.step and metric in frame.series:
        return words([f"no {TITLES[metric]} was measured (m: next metric)"])
    if frame.step:
        return words(["reading…"])
    lines = words(["no steps yet", phase or f"the engine is {frame.state}"])
    if progress is not None:
        done = (bar(progress, max(10, min(40, width - 8))), "accent")
        lines.append((done, (f" {progress * 100:.0f}%", "dim")))
    reason = why(status.get("loss"))
    if reason and not phase:
        lines.append(((reason, "dim"),))
    return lines


def _ending(parts: Sequence[Span], end: str, width: int) -> Line:
    """`parts` with `end` at the right edge, which is never cut off for them."""
    if not end:
        return fit(parts, width)
    line = fit(parts, max(0, width - len(end) - 2))
    return (*line, (" " * (width - len(line_text(line)) - len(end)), ""), (end, "accent"))
