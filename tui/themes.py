"""Which of Textual's themes is used: the configured one, where the terminal has its colours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from queue_store.errors import ConfigError

if TYPE_CHECKING:
    from textual.theme import Theme

THEMES = (
    *("textual-dark", "textual-light", "nord", "gruvbox", "dracula", "tokyo-night", "monokai"),
    *("flexoki", "solarized-light", "solarized-dark", "atom-one-dark", "atom-one-light"),
    *("catppuccin-mocha", "catppuccin-latte", "catppuccin-frappe", "catppuccin-macchiato"),
    *("rose-pine", "rose-pine-moon", "rose-pine-dawn", "ansi-dark", "ansi-light"),
)
"""The names of Textual's themes, for a check of config.toml that need not load Textual."""


def checked(theme: str, file: str) -> None:
    """Raises ConfigError where `theme`, which stands in `file`, is none."""
    if theme not in THEMES:
        near = difflib.get_close_matches(theme, THEMES, 1)
        mend = f"did you mean {near[0]}?" if near else f"known: {', '.join(THEMES)}"
        raise ConfigError(f"unknown theme {theme!r}", where=f"{file}: console.theme", mend=mend)


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
