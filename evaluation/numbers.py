"""Numbers in answers: how they are written, and which of them is the answer.

Read: an optional sign (-, +, the Unicode minus), an optional currency sign, digits with or without
commas at every third, a decimal point, a fraction `a/b` or a mixed number `1 3/4`; a unit after it
is passed over and never converted (50 % is 50). Compared exactly, as fractions: 1,200.00 is 1200,
0.33 is not 1/3. Not read, so that nothing is guessed: decimal commas, commas at other places,
exponents, spelled numbers, and numbers with a word of scale (million, dozen, 5k).
"""

from __future__ import annotations

import re
from fractions import Fraction

MARK = "####"
"""The sign before the answer of a GSM8K row."""

LONGEST = 60
"""Characters of the longest number that is read."""

_SIGN, _CURRENCY = r"[-+\u2212]", r"[$€£¥₹]"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?P<before>{_SIGN}?){_CURRENCY}?(?P<after>{_SIGN}?)"
    rf"(?:(?P<mixed>\d+)[ ](?=\d+/\d)|(?=[\d.]))"
    rf"(?P<whole>{_DIGITS})?(?P<decimals>\.\d+)?(?:/(?P<below>\d+))?"
    r"(?![\d/]|[.,]\d|[A-Za-z](?![A-Za-z]))"
)
_BEGINS = re.compile(
    r"(?:(?<![\w.,/+\-\u2212$€£¥₹])[-+\u2212$€£¥₹]{1,3}|(?<![\w.,/]))(?:\d+[ ](?=\d+/\d))?\.?\d"
)
_UNIT = re.compile(r"\s*(?:[^\W\d_]|[%°²³/.,!'’* $€£¥₹)-]){0,60}")
_SCALES = re.compile(
    r"\s*-?(?:hundred|thousand|million|billion|trillion|dozen|score|mio|mn|bn|lakh|crore)s?\b",
    re.IGNORECASE,
)
_OTHERS = re.compile(r"\b(?:or|and|to)\b", re.IGNORECASE)


def _at(text: str, start: int) -> tuple[Fraction, int] | None:
    """The number that begins at `start`, and where it ends."""
    found = _NUMBER.match(text, start)
    if found is None or found.end() - start > LONGEST or _SCALES.match(text, found.end()):
        return None
    whole, decimals, below = found["whole"], found["decimals"], found["below"]
    if (whole is None and decimals is None) or (found["before"] and found["after"]):
        return None
    if below is not None and (decimals or not whole or "," in whole or int(below) == 0):
        return None
    value = Fraction((whole or "0").replace(",", "") + (decimals or ""))
    if below is not None:
        value /= int(below)
    if found["mixed"] is not None:
        value += int(found["mixed"])
    negative = (found["before"] or found["after"]) in ("-", "\u2212")
    return (-value if negative else value), found.end()


def after_mark(text: str) -> Fraction | None:
    """The number that the line after the last "####" begins with; nothing but a unit may follow
    it ("18 dollars a day"), no second number, no alternative. None where it is none."""
    _, mark, rest = text.rpartition(MARK)
    line = rest.strip().partition("\n")[0].strip().strip("*")
    read = _at(line, 0) if mark else None
    if read is None:
        return None
    value, end = read
    unit = _UNIT.match(line, end)
    whole = unit is not None and unit.end() == len(line) and not _OTHERS.search(line, end)
    return value if whole else None


def last_number(text: str) -> Fraction | None:
    """The last number anywhere in a text: a fallback, and to be named as one. A hyphen after a
    digit or before a blank is no sign (16-3, 16 - 3)."""
    starts = [found.start() for found in _BEGINS.finditer(text)]
    read = _at(text, starts[-1]) if starts else None
    return None if read is None else read[0]
