"""What every drawn line passes last, Textual's own widgets included: readable letters, and ASCII
signs where that is asked for.
"""

from __future__ import annotations

import re

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from tui.contrast import legible

_LETTER = re.compile(r"\w")
_SIGNS = {
    "-": "─━┄┅┈┉╌╍╴╶╸╺╼╾═–—·−",
    "|": "│┃┆┇┊┋╎╏╵╷╹╻╽╿║",
    "+": "┌┐└┘├┤┬┴┼╭╮╯╰┏┓┗┛┣┫┳┻╋╔╗╚╝╠╣╦╩╬",
    "#": "█■▉▊▋▌▐",
    ":": "░▒▓",
    " ": "▁▂▃▄▅▆▇▀▔▍▎▏▕▖▗▘▙▚▛▜▝▞▟",
    "~": "…≈",
    "*": "●•★✱",
    "o": "○◦",
    ">": "▶▸►→»›",
    "<": "◀◂◄←«‹",
    "^": "▲▴↑",
    "v": "▼▾↓✓✔",
    "x": "×✗✘",
    "'": "‘’",
    '"': "“”",
}
_TABLE = str.maketrans({sign: plain for plain, signs in _SIGNS.items() for sign in signs})


class ReadableFilter(LineFilter):
    """Moves the colour of letters that a theme makes too faint: placeholders, labels of fields."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same texts; signs without a letter (borders) keep their colours."""
        return [
            Segment(segment.text, legible(segment.style), segment.control)
            if segment.style is not None and _LETTER.search(segment.text)
            else segment
            for segment in segments
        ]


class AsciiFilter(LineFilter):
    """Draws the console's signs, borders and scroll bars in ASCII, each one column wide. Other
    people's letters stay (`tui.terminal` keeps those from a terminal that cannot show them)."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments, of the same widths."""
        if not self.enabled:
            return segments
        return [
            segment
            if segment.text.isascii()
            else Segment(segment.text.translate(_TABLE), segment.style, segment.control)
            for segment in segments
        ]
