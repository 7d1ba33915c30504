"""Tones that can be read on every theme: WCAG 2.1's contrast, and colours moved until they have it.

A theme's own colours are kept where they are readable; imports no Textual.
"""

from __future__ import annotations

from functools import lru_cache

from rich.color import Color, blend_rgb
from rich.color_triplet import ColorTriplet
from rich.style import Style

READABLE = 4.5
"""WCAG 2.1 level AA for text."""
MUTED = 0.65
"""How much of the plain text's colour is left in what is muted."""
_STEPS = 20


def luminance(color: ColorTriplet) -> float:
    """Relative luminance, 0 (black) to 1 (white)."""
    parts = [part / 255 for part in color]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: ColorTriplet, other: ColorTriplet) -> float:
    """The contrast ratio of two colours, 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@lru_cache(256)
def muted(base: Style) -> Style:
    """Plain text's colour moved towards its background, as far as it can still be read; the
    terminal's own dim where the theme leaves the colours to the terminal."""
    if not _known(base.color) or not _known(base.bgcolor):
        return Style(dim=True)
    plain, ground = _triplet(base.color), _triplet(base.bgcolor)
    for step in range(_STEPS):
        share = MUTED + (1 - MUTED) * step / _STEPS
        found = blend_rgb(ground, plain, share)
        if contrast(found, ground) >= READABLE:
            return Style(color=Color.from_triplet(found))
    return Style(color=base.color)


@lru_cache(256)
def readable(tone: Style, base: Style) -> Style:
    """`tone` on the background of `base`, its colour moved to black or white where it could not
    be read."""
    if not _known(tone.color) or not _known(base.bgcolor) or tone.reverse or _known(tone.bgcolor):
        return tone
    color, ground = _triplet(tone.color), _triplet(base.bgcolor)
    ends = (ColorTriplet(0, 0, 0), ColorTriplet(255, 255, 255))
    end = max(ends, key=lambda one: contrast(one, ground))
    for step in range(_STEPS + 1):
        found = blend_rgb(color, end, step / _STEPS)
        if contrast(found, ground) >= READABLE:
            return tone + Style(color=Color.from_triplet(found)) if step else tone
    return tone + Style(color=Color.from_triplet(end))


@lru_cache(1024)
def legible(style: Style) -> Style:
    """A whole style whose letters can be read on its own background."""
    if not _known(style.color) or not _known(style.bgcolor):
        return style
    swapped = Style(color=style.bgcolor, bgcolor=style.color) if style.reverse else style
    moved = readable(Style(color=swapped.color), Style(bgcolor=swapped.bgcolor)).color
    return style + (Style(bgcolor=moved) if style.reverse else Style(color=moved))


@lru_cache(64)
def plain_text(base: Style) -> Style:
    """`base` with its own colour moved where some theme's plain text could not be read on it."""
    return base + readable(Style(color=base.color), base) if _known(base.color) else base


def _known(color: Color | None) -> bool:
    return color is not None and color.triplet is not None


def _triplet(color: Color | None) -> ColorTriplet:
    assert color is not None and color.triplet is not None
    return color.triplet
