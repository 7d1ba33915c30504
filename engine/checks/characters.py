"""Texts that were damaged on their way: UTF-8 read as something else, control characters."""

from __future__ import annotations

import re
import unicodedata

from engine.checks.findings import RowChecker, quoted, texts
from queue_store.rows import Row

# What the bytes 80 to BF of UTF-8 look like when they are read as Latin-1 or as Windows-1252.
_TAIL = (
    "[\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d"
)
_TAIL += "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]"
_MOJIBAKE = re.compile(
    f"[\u00c2\u00c3]{_TAIL}|\u00e2{_TAIL}{{2}}|\u00f0{_TAIL}{{3}}|(?:[\u00d0\u00d1]{_TAIL}){{2,}}"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")


def _mojibake(row: Row) -> str | None:
    for text in texts(row):
        if text.isascii():
            continue
        if "\ufffd" in text:
            at = text.index("\ufffd")
            return (
                f"has the replacement character U+FFFD in {quoted(text[max(0, at - 15) : at + 15])}"
            )
        for found in _MOJIBAKE.finditer(text):
            meant = _meant(found[0])
            if meant is not None:
                return f"has {quoted(found[0])} where {quoted(meant)} was meant (a wrong encoding)"
    return None


def _meant(text: str) -> str | None:
    """What the characters were before they were read in the wrong encoding; None where they
    were something else."""
    for encoding in ("cp1252", "latin-1"):
        try:
            meant = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        # Two letters that stand beside each other by chance make no letter that anybody writes.
        return meant if unicodedata.category(meant[0]) not in ("Cc", "Cn", "Co") else None
    return None


def _control(row: Row) -> str | None:
    for text in texts(row):
        if found := _CONTROL.search(text):
            code = ord(found[0])
            name = "an escape sequence" if code == 0x1B else "a control character"
            name = "a byte order mark" if code == 0xFEFF else name
            around = text[max(0, found.start() - 15) : found.start()]
            return f"has {name} (U+{code:04X}) after {quoted(around)}"
    return None


mojibake = RowChecker("mojibake", "1.0.0", "deep", _mojibake)
control_characters = RowChecker("control_characters", "1.0.0", "deep", _control)
