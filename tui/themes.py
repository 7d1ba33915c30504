"""Which of Textual's themes is used: the configured one, where the terminal has its colours."""

from __future__ import annotations

from collections.abc import Mapping

from textual.theme import Theme


def fitting(wanted: str, known: Mapping[str, Theme], colors: str | None) -> str:
    """The theme to use, "" for Textual's own choice where `wanted` is not known.

    In a terminal of 16 colours (`colors` "standard", as rich finds out) a theme's shades would
    all be drawn as the same two greys: there it is the theme of the terminal's own palette, dark
    or light as the wanted one.
    """
    theme = known.get(wanted)
    if colors == "standard" and not (theme and theme.ansi):
        return "ansi-light" if theme and not theme.dark else "ansi-dark"
    return wanted if theme else ""
