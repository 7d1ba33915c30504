"""A row as a person reads it: what trains and what does not, with every sign visible.

Used by the console and by the command line; imports neither Textual nor anything heavy. The
text is foreign: it passes `safe`, and nothing in it can look like the marks put around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from queue_store.safe import cell_width, safe

MARKS = ("⟦", "⟧")
ASCII_MARKS = ("[+", "+]")
TRAINED, MASKED = "trained", "masked"
"""Tones of a line's spans (see style.tcss)."""
BOLD_GREEN, DIM, PLAIN = "\x1b[1;32m", "\x1b[2m", "\x1b[0m"

Line = tuple[tuple[str, str], ...]

_SIGNS = str.maketrans({"\r": "␍", "\t": "␉", "\u2028": "⏎", "\u2029": "⏎"})
_ASCII_SIGNS = str.maketrans(
    {
        **{0x2400 + code: f"^{chr(0x40 + code)}" for code in range(0x20)},
        0x2421: "^?",
        0xFFFD: "?",
    }
)


def visible(text: str, *, ascii: bool = False) -> str:
    """`text` with every control character as a sign; a line feed as a sign and a new line.
    `ascii`: the signs in ASCII (^M as in caret notation); the letters of the text stay."""
    left, right = MARKS
    text = text.translate(_SIGNS).replace(left, "[").replace(right, "]")
    if not ascii:
        return safe(text).replace("\n", "⏎\n")
    left, right = ASCII_MARKS
    text = text.replace(left, "[ +").replace(right, "+ ]")
    return safe(text).translate(_ASCII_SIGNS).replace("⏎", "^J").replace("\n", "^J\n")


def printed(segments: Sequence[Mapping[str, Any]], *, colour: bool, ascii: bool = False) -> str:
    """The row for a terminal or a pipe. `colour`: trained bright and the rest dim; else what
    trains stands in brackets."""
    left, right = ASCII_MARKS if ascii else MARKS
    parts = []
    for segment in segments:
        text = visible(str(segment["text"]), ascii=ascii)
        if colour:
            parts.append(f"{BOLD_GREEN if segment['trained'] else DIM}{text}{PLAIN}")
        else:
            parts.append(f"{left}{text}{right}" if segment["trained"] else text)
    return "".join(parts).rstrip("\n")


def lines(segments: Sequence[Mapping[str, Any]], width: int, *, ascii: bool = False) -> list[Line]:
    """The row as lines of at most `width` columns, for the console: what trains has a tone and
    stands in brackets, so that it is told from the rest without colour too."""
    left, right = ASCII_MARKS if ascii else MARKS
    text, tones = "", []
    for segment in segments:
        shown = visible(str(segment["text"]), ascii=ascii)
        if segment["trained"]:
            # The bracket closes on the line of the text, not on the empty one after it.
            body = shown.removesuffix("\n")
            shown = f"{left}{body}{right}{shown[len(body) :]}"
        text += shown
        tones += [TRAINED if segment["trained"] else MASKED] * len(shown)
    found: list[Line] = []
    at = 0
    for line in text.removesuffix("\n").split("\n"):
        for start, end in _broken(line, max(4, width)):
            found.append(_spans(line[start:end], tones[at + start : at + end]))
        at += len(line) + 1
    return found


def thinking(found: object) -> str:
    """What became of the answers' think blocks, "" where there are none: {"setting", "answers",
    "trained", "left_out", "empty_blocks"} of a report's masks."""
    if not isinstance(found, Mapping):
        return ""
    numbers = {key: int(found.get(key) or 0) for key in ("answers", "trained", "empty_blocks")}
    if not numbers["answers"] and not numbers["empty_blocks"]:
        return ""
    text = f"{found.get('setting')}: {numbers['trained']} of {numbers['answers']} train"
    empty = numbers["empty_blocks"]
    return f"{text}, {empty} empty blocks added by the template" if empty else text


def _broken(line: str, width: int) -> list[tuple[int, int]]:
    """Where to break a line: after a space in the second half of the width, else anywhere."""
    pieces: list[tuple[int, int]] = []
    start = 0
    while True:
        used, end, space = 0, start, 0
        plain = line.isascii()
        while end < len(line):
            used += 1 if plain else cell_width(line[end])
            if used > width:
                break
            end += 1
            if line[end - 1] == " ":
                space = end
        if end == len(line):
            return [*pieces, (start, end)]
        if space > start + width // 2:
            end = space
        end = max(end, start + 1)
        pieces.append((start, end))
        start = end


def _spans(text: str, tones: Sequence[str]) -> Line:
    spans: list[tuple[str, str]] = []
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or tones[at] != tones[start]:
            spans.append((text[start:at], tones[start]))
            start = at
    return tuple(spans)
