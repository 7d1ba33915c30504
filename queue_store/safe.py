"""The one filter for text that we did not write: file names, rows, model output, error texts.

Such text may hold terminal control sequences (OSC 52 writes the clipboard, C1 CSI moves the
cursor, bidi overrides reorder what a person reads). Every face sends it through `safe` or
`safe_line` before it reaches a terminal. Never used for JSON output: there escapes are exact.
"""

from __future__ import annotations

import re
import unicodedata

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_REPLACEMENT = "\ufffd"

_TABLE: dict[int, str] = {code: chr(0x2400 + code) for code in range(0x20)}  # ESC -> the sign ␛
_TABLE[0x7F] = "\u2421"
_TABLE.update({code: _REPLACEMENT for code in (*range(0x80, 0xA0), *_BIDI)})
_TABLE.update({code: "\n" for code in (0x2028, 0x2029)})
del _TABLE[0x09], _TABLE[0x0A]

_LINE_TABLE = {**_TABLE, 0x09: " ", 0x0A: "\u23ce", 0x2028: "\u23ce", 0x2029: "\u23ce"}

# One scan finds out that most strings are harmless; lone surrogates cannot be encoded at all.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def safe(text: str) -> str:
    """`text` with every control character but tab and newline replaced by a visible sign.

    `\\r\\n` becomes a newline; a lone carriage return, which would overwrite a line, a sign.
    """
    if _HARMFUL.search(text) is not None:
        text = text.replace("\r\n", "\n").translate(_TABLE)
    return _SURROGATES.sub(_REPLACEMENT, text)


def safe_line(text: str) -> str:
    """`safe` for a cell or a one-line message: a newline becomes ⏎, a tab a space."""
    return _SURROGATES.sub(_REPLACEMENT, text.replace("\r\n", "\n").translate(_LINE_TABLE))


def cell_width(text: str) -> int:
    """Terminal columns that `text` takes: 2 for a wide character, 0 for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
