"""A screen of the console as text that a person can read: its letters, and the tone of each run of
cells that is not plain text, so that a lost highlight is seen in a diff.

A dialog is pictured alone, with its place: what lies behind it has pictures of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.cells import cell_len
from rich.color import Color as TerminalColor
from rich.style import Style
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from textual.color import Color
from textual.geometry import Region
from textual.pilot import Pilot

NAMED = (
    *("text-error", "text-warning", "text-success", "text-primary", "primary", "primary-darken-1"),
    *("primary-muted", "panel", "panel-lighten-2", "surface", "background", "foreground"),
)
"""The theme's colours that are called by their names; of two that are the same, the first."""
FRAME = set("╭─╮│╰╯┏━┓┃┗┛")
"""Borders: their tones are those of what they stand around."""
FLAGS = ("bold", "dim", "italic", "underline", "reverse", "strike")


Cells = list[tuple[str, Style]]
Name = Callable[[str], str]


class TextPictures(SingleFileSnapshotExtension):
    """A text file for each test."""

    _write_mode = WriteMode.TEXT
    _file_extension = "txt"


def picture(pilot: Pilot[Any]) -> str:
    """The dialog on top, or the whole screen where there is none."""
    screen = pilot.app.screen
    width, height = pilot.app.size
    region, head = Region(0, 0, width, height), f"== {width}x{height}"
    for dialog in screen.query("#dialog"):
        region = dialog.region
        head += f", {region.width}x{region.height} at {region.x},{region.y}"
    rows = [_row(strip) for strip in screen._compositor.render_strips()]
    cells = [row[region.x : region.right] for row in rows[region.y : region.bottom]]
    named = _named(pilot.app.get_css_variables())
    plain = _most(
        style for row in cells for letter, style in row if letter.strip(" " + "".join(FRAME))
    )
    ground = _most(_ground(style) for row in cells for _, style in row)
    text = ["".join(letter for letter, _ in row).rstrip() for row in cells]
    tones = []
    for number, row in enumerate(cells, 1):
        runs = _runs(row, plain, ground, named)
        if runs:
            tones.append(f"{number:3} " + ", ".join(runs))
    focused = pilot.app.focused
    who = (focused.id or type(focused).__name__) if focused is not None else "nothing"
    about = [f"plain: {_told(plain, ground, named)} on {named(ground)}", f"focus: {who}"]
    return "\n".join([head, *text, "-- tones", *about, *tones]) + "\n"


def _row(strip: Any) -> Cells:
    """A letter and its style for every cell; the second cell of a wide letter is empty."""
    found: Cells = []
    for segment in strip:
        for letter in segment.text:
            from_here = segment.style or Style.null()
            found.append((letter, from_here))
            found += [("", from_here)] * (cell_len(letter) - 1)
    return found


def _most(found: Any) -> Any:
    return Counter(found).most_common(1)[0][0]


def _ground(style: Style) -> str:
    return _color(style.bgcolor)


def _ink(style: Style) -> str:
    return _color(style.color)


def _color(color: TerminalColor | None) -> str:
    if color is None:
        return ""
    return color.triplet.hex if color.triplet is not None else color.name


def _named(variables: dict[str, str]) -> Name:
    """The name of a colour of the theme, else its figures."""
    names: dict[str, str] = {}
    for name in reversed(NAMED):
        names[_hex(variables[name])] = name
    return lambda color: names.get(color, color or "none")


def _hex(text: str) -> str:
    color = Color.parse(text)
    return f"#{color.r:02x}{color.g:02x}{color.b:02x}"


def _told(style: Style, ground: str, named: Name) -> str:
    """A style in words; its background only where it is not `ground`."""
    words = [flag for flag in FLAGS if getattr(style, flag)]
    words.append(named(_ink(style)))
    if _ground(style) != ground:
        words.append(f"on {named(_ground(style))}")
    return " ".join(words)


def _runs(row: Cells, plain: Style, ground: str, named: Name) -> list[str]:
    """What is not plain in a row: each style with the columns it has, from 1."""
    usual = _told(plain, ground, named)
    found: dict[str, list[tuple[int, int]]] = {}
    end = ""
    for at, (letter, style) in enumerate(row, 1):
        seen = bool(letter.strip()) or letter == ""
        told = _told(style, ground, named)
        if letter in FRAME or told == usual:
            continue
        if not seen:  # the colour of letters says nothing where there are none
            if _ground(style) == ground and not style.reverse and not style.underline:
                continue
            told = f"on {named(_ink(style) if style.reverse else _ground(style))}"
            if end.endswith(told):
                told = end
        runs = found.setdefault(told, [])
        if runs and end == told and not "".join(c for c, _ in row[runs[-1][1] : at - 1]).strip():
            runs[-1] = (runs[-1][0], at)
        else:
            runs.append((at, at))
        end = told
    return [f"{told} {_columns(runs)}" for told, runs in found.items()]


def _columns(runs: list[tuple[int, int]]) -> str:
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
