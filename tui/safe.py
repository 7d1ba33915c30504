"""The console's only door for text: everything drawn passes here, and nothing is ever markup.

A drawn line is a tuple of spans (text, tone). `strip` cleans every span before it becomes
terminal output, so that a pane cannot forget to; `content` does so for Textual's own widgets.
Never hand a plain string to a Textual widget: it would be read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.strip import Strip

from queue_store import safe as store_safe

Span = tuple[str, str]
"""Text and the name of its tone ("" is plain; see style.tcss)."""
Line = tuple[Span, ...]

__all__ = [
    "Line",
    "Span",
    "clip",
    "content",
    "fit",
    "line_text",
    "pad",
    "plain",
    "safe",
    "safe_line",
    "squeeze",
    "steady",
    "strip",
    "wrap",
]


# Joiners, variation selectors, skin tones: drawn in one cell with what stands before them here,
# and beside it there. A Hangul filler is two columns of nothing in one terminal, none in another.
_UNSTEADY = re.compile(
    "[\u200d\u3164\ufe00-\ufe0f\uffa0\U0001f3fb-\U0001f3ff\U000e0000-\U000e01ef]"
)


def steady(text: str) -> str:
    """`text` without what makes its width another one in another terminal: a family joined of
    three signs is three signs. Without this, rows would end beside their column, or past it."""
    return text if text.isascii() else _UNSTEADY.sub("", text)


def safe(text: str) -> str:
    """Without control characters (queue_store.safe), and steady; newlines and tabs stay."""
    return steady(store_safe.safe(text))


def safe_line(text: str) -> str:
    """`safe` for one line: a newline becomes a sign, a tab a space."""
    return steady(store_safe.safe_line(text))


def content(text: object, style: str = "") -> Content:
    """`text` as Content in one style: shown letter by letter, brackets included."""
    return Content.styled(safe(str(text)), style) if style else Content(safe(str(text)))


_PLAIN = str.maketrans({"·": "-", "…": "~", "–": "-"})


def plain(line: Line) -> Line:
    """`line` with the console's own signs in ASCII, one column each; other people's text stays."""
    return tuple((text.translate(_PLAIN), tone) for text, tone in line)


def clip(text: object, width: int, ellipsis: str = "…") -> str:
    """`text` on one line in at most `width` terminal columns; what is cut ends in `ellipsis`."""
    line = safe_line(str(text))
    if width <= 0:
        return ""
    if cell_len(line) <= width:
        return line
    if width <= len(ellipsis):
        return set_cell_size(line, width)
    return set_cell_size(line, width - len(ellipsis)).rstrip() + ellipsis


def squeeze(text: object, width: int, shortest: int = 20) -> str:
    """`text` on one line; where it is wider than `width` columns, its longest words (names of
    files, paths) give up their middle first, down to `shortest` characters."""
    words = safe_line(str(text)).split(" ")
    over = cell_len(" ".join(words)) - width
    while over > 0:
        at = max(range(len(words)), key=lambda n: cell_len(words[n]))
        word = words[at]
        keep = max(shortest, len(word) - over - 1)
        if len(word) <= keep + 1:
            break
        tail = keep // 3
        words[at] = f"{word[: keep - tail]}…{word[len(word) - tail :]}"
        over = cell_len(" ".join(words)) - width
    return " ".join(words)


def pad(text: object, width: int, *, right: bool = False) -> str:
    """`text` clipped and filled with spaces to exactly `width` columns."""
    line = clip(text, width)
    fill = " " * (width - cell_len(line))
    return fill + line if right else line + fill


def wrap(text: object, width: int, limit: int = 200) -> list[str]:
    """`text` in lines of at most `width` columns, at most `limit` of them; newlines are kept."""
    lines: list[str] = []
    for part in safe(str(text)).split("\n"):
        lines.extend(_wrap_line(part.replace("\t", "    "), max(1, width)))
        if len(lines) > limit:
            return [*lines[: limit - 1], "…"]
    return lines


def _wrap_line(line: str, width: int) -> list[str]:
    """Break at spaces where there is one in the second half of a line, else anywhere."""
    lines = []
    while cell_len(line) > width:
        head = chop_cells(line, width)[0]
        space = head.rfind(" ")
        if space > len(head) // 2:
            head = head[: space + 1]
        lines.append(head.rstrip(" "))
        line = line[len(head) :]
    return [*lines, line]


def fit(line: Iterable[Span], width: int) -> Line:
    """`line` cut to `width` columns."""
    result: list[Span] = []
    left = width
    for text, tone in line:
        if left <= 0:
            break
        shown = clip(text, left)
        result.append((shown, tone))
        left -= cell_len(shown)
    return tuple(result)


def line_text(line: Line) -> str:
    """The bare characters of a line."""
    return "".join(text for text, _ in line)


def strip(line: Line, width: int, style_of: Callable[[str], Style], base: Style) -> Strip:
    """The terminal cells of `line`: cleaned, and exactly `width` columns wide."""
    segments = [Segment(safe_line(text), base + style_of(tone)) for text, tone in line if text]
    return Strip(segments).adjust_cell_length(width, base)
