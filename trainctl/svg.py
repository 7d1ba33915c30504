"""Line charts as inline SVG: curves, bands, points with intervals, marks; axes with round numbers.

Colours are classes, which the page's style names. Every word that is not ours passes `words`.
Pure: numbers in, markup out; no script, no reference to anything outside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from queue_store.safe import safe

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 20, 36
LOG_RATIO = 20.0
"""Values that span more than this are drawn on a logarithmic axis."""
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

Pair = tuple[float, float]


def words(text: object) -> str:
    """Text as it may stand in markup and in quotes: escaped, and without control characters."""
    return escape(_NOT_XML.sub("\ufffd", safe(str(text))), quote=True)


@dataclass
class Chart:
    """A chart over the steps `first` to `last`, values `low` to `high`. `unit` names the values;
    `percent` draws shares."""

    title: str
    first: float
    last: float
    low: float
    high: float
    unit: str = ""
    percent: bool = False
    log: bool = False
    parts: list[str] = field(default_factory=list)

    @staticmethod
    def over(title: str, steps: Iterable[float], values: Iterable[float], unit: str) -> Chart:
        """A chart in which all of these fit; logarithmic where they span far."""
        xs, ys = list(steps) or [0.0], list(values) or [0.0]
        low, high = min(ys), max(ys)
        log = low > 0 and high / low > LOG_RATIO
        room = 0.0 if log else (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        first, last = min(xs), max(xs)
        if first == last:
            last = first + 1
        return Chart(title, first, last, low - room, high + room, unit, log=log)

    def x(self, step: float) -> float:
        """A step's place, in units of the view."""
        share = (step - self.first) / (self.last - self.first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        """A value's place; what lies outside is drawn at the edge."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log(max(v, 1e-12)) for v in (value, low, high))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - BOTTOM - min(max(share, 0.0), 1.0) * (HEIGHT - TOP - BOTTOM), 2)

    def line(self, points: Sequence[Pair], of: str) -> None:
        """A curve; `of` is its class."""
        if len(points) == 1:
            self.dot(points[0], of, "")
        path = " ".join(f"{self.x(step)},{self.y(value)}" for step, value in points)
        self.parts.append(f'<polyline class="{of}" points="{path}"/>')

    def band(self, points: Sequence[tuple[float, float, float]], of: str) -> None:
        """Between a lower and an upper value at each step."""
        up = [f"{self.x(step)},{self.y(high)}" for step, _, high in points]
        down = [f"{self.x(step)},{self.y(low)}" for step, low, _ in reversed(points)]
        self.parts.append(f'<polygon class="{of}" points="{" ".join((*up, *down))}"/>')

    def dot(self, point: Pair, of: str, title: str) -> None:
        """A point with a word for who holds the pointer over it."""
        at = f'cx="{self.x(point[0])}" cy="{self.y(point[1])}"'
        self.parts.append(
            f'<circle class="{of}" {at} r="3.5"><title>{words(title)}</title></circle>'
        )

    def interval(self, step: float, low: float, high: float, of: str) -> None:
        """A vertical bar from `low` to `high`."""
        x = self.x(step)
        self.parts.append(
            f'<line class="{of}" x1="{x}" x2="{x}" y1="{self.y(low)}" y2="{self.y(high)}"/>'
        )

    def mark(self, step: float, of: str, title: str) -> None:
        """A vertical line at a step of the range; others are left out."""
        if not self.first <= step <= self.last:
            return
        x = self.x(step)
        self.parts.append(
            f'<line class="mark {of}" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
            f"<title>{words(title)}</title></line>"
        )

    def svg(self) -> str:
        """The whole chart."""
        label = words(self.title)
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
            f"<title>{label}</title>{''.join(self._axes())}{''.join(self.parts)}</svg>"
        )

    def _axes(self) -> Iterable[str]:
        bottom = HEIGHT - BOTTOM
        values = _powers(self.low, self.high) if self.log else _round(self.low, self.high, 6)
        for value in values:
            y = self.y(value)
            told = f"{value:.0%}" if self.percent else f"{value:g}"
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{told}</text>'
        for step in _round(self.first, self.last, 9):
            if step == int(step):
                told = f"{int(step):,}".replace(",", "\u202f")
                x = self.x(step)
                side = "end" if x > WIDTH - RIGHT - 20 else "middle"
                yield f'<text x="{x}" y="{bottom + 16}" text-anchor="{side}">{told}</text>'
        yield f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">step</text>'
        yield f'<text x="6" y="12">{words(self.unit)}</text>'


def _round(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most about so many."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    size = next((k * power for k in (1, 2, 5, 10) if k * power >= rough), 10 * power)
    first = math.ceil(low / size - 1e-9)
    return [round(k * size, 12) for k in range(first, math.floor(high / size + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten in between."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [k * 10.0**e for e in exponents for k in (1, 2, 5)]
    return [value for value in values if low <= value <= high]
