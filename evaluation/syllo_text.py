"""SYLLO answers in words: lists, tables and arrows (formats F4b), a solution a line.

Which part of a line is the word is seen from the line itself: the one whose letters the other
parts join to, else what an arrow points to, else the one in capitals. Prose is passed over.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

MOST_LINES = 400
"""Lines of an answer that are looked at; a puzzle has ten words."""

MOST_TOKENS = 40
"""Words of a line that may be a solution."""

_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBERED = re.compile(r"[\s>*_•\-|]*[(\[]?(\d{1,3})\s*(?:[.):\]|]|\s-\s)[\s*_]*(.*)", re.DOTALL)
_BULLET = re.compile(r"^[\s>]*(?:[*•-]\s+)?")
_ARROW = re.compile("→|⇒|⟶|-->|->|=>|=")
_BACK = re.compile("←|⇐|<--|<-|<=")
_SEVERAL = re.compile(r"[;\n]|(?<=\s)(?=\d{1,2}[.)]\s)")
_HEADS = {
    *("clue", "number", "no", "tiles", "tile", "syllable", "syllables", "word", "words"),
    *("answer", "answers", "solution", "solutions", "parts"),
}


@dataclass(frozen=True)
class Solution:
    """What an answer says of one clue. `clue` counts from 1; `word` in upper case; `tiles` in
    lower case, None where the answer names none."""

    clue: int
    word: str
    tiles: tuple[str, ...] | None


def word_of(text: str) -> str:
    return _nfc(text).strip().upper()


def tile_of(text: str) -> str:
    return _nfc(text).strip().lower()


def _nfc(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def tiles_in(text: str) -> tuple[str, ...]:
    """The tiles that a text names, whatever stands between them: "win + dow", "win-dow"."""
    return tuple(tile_of(token) for token in _TOKEN.findall(text))


def read_text(text: str) -> list[tuple[Solution, str]]:
    """The solutions that a text states, each with its style: word_list, arrow, pipe, table,
    brackets, parentheses, colon, plain. A line that names none is passed over; one without a
    number is of the clue after the line before, and counts only where no line has a number (else
    it is what leads up to the list)."""
    found: list[tuple[Solution, str]] = []
    numbers: list[bool] = []
    table = False
    clue = 0
    for line in _lines(unicodedata.normalize("NFC", text)):
        if "-" in line and not line.strip(" \t|:+=-"):
            # The row above the rule of a table names its columns.
            if "|" in line and found and found[-1][1] in ("pipe", "table") and not table:
                found.pop()
                numbers.pop()
                clue -= 1
            table = table or "|" in line
            continue
        numbered = _NUMBERED.fullmatch(line)
        rest = numbered[2] if numbered else _BULLET.sub("", line, count=1)
        words = _several_words(rest) if numbered is None else []
        if words:
            for word in words:
                clue += 1
                found.append((Solution(clue, word, None), "word_list"))
                numbers.append(False)
            continue
        read = _solution(rest, numbered is not None, table)
        if read is None:
            continue
        clue = int(numbered[1]) if numbered else clue + 1
        word, tiles, style = read
        found.append((Solution(clue, word, tiles), style))
        numbers.append(numbered is not None)
    if any(numbers):
        return [one for one, its in zip(found, numbers, strict=True) if its]
    return found


def _lines(text: str) -> list[str]:
    return [part for part in _SEVERAL.split(text) if part and part.strip()][:MOST_LINES]


def _several_words(line: str) -> list[str]:
    """The words of a line that is nothing but words in capitals between commas or blanks."""
    parts = line.strip().rstrip(".").replace(",", " ").split()
    plain = 1 < len(parts) <= MOST_TOKENS and all(
        _TOKEN.fullmatch(part) and part.isupper() for part in parts
    )
    # "WIN DOW WINDOW" is one word with its tiles, in capitals.
    return parts if plain and not _joined(parts) else []


def _solution(
    text: str, numbered: bool, table: bool
) -> tuple[str, tuple[str, ...] | None, str] | None:
    """Word, tiles and style of one line without its number, None where it states no solution."""
    tokens = _TOKEN.findall(text)
    if not tokens or len(tokens) > MOST_TOKENS or all(token.lower() in _HEADS for token in tokens):
        return None
    style = _style(text, len(tokens), table)
    if len(tokens) == 1:
        bare = _TOKEN.sub("", text)
        if len(tokens[0]) < 2 or (not numbered and re.search(r"\w|[?!]", bare)):
            return None
        return word_of(tokens[0]), None, style
    split = _joined(tokens)
    if split is None:
        split = _pointed(text)
    if split is None:
        return _in_capitals(tokens, style) if numbered or style != "plain" else None
    word, tiles = split
    return word_of(word), None if tiles is None else tuple(map(tile_of, tiles)), style


Split = tuple[str, list[str] | None]
"""A word, and the tiles that are named with it, None where none are."""


def _joined(tokens: list[str]) -> Split | None:
    """The first or last token where the others, in their order, join to it."""
    for word, tiles in ((tokens[-1], tokens[:-1]), (tokens[0], tokens[1:])):
        if tiles and "".join(tiles).lower() == word.lower():
            return word, tiles
    return None


def _pointed(text: str) -> Split | None:
    """What an arrow points to, or what stands alone in a cell or beside a bracket, in capitals."""
    for sign, word_last in ((_ARROW, True), (_BACK, False)):
        sides = sign.split(text)
        if len(sides) == 2:
            left, right = _TOKEN.findall(sides[0]), _TOKEN.findall(sides[1])
            tiles, word = (left, right) if word_last else (right, left)
            if tiles and len(word) == 1:
                return word[0], tiles
            if word and len(tiles) == 1 and tiles[0].isupper():
                return tiles[0], word  # WINDOW = win + dow
    tokens = _TOKEN.findall(text)
    loud = [token for token in tokens if token.isupper() and len(token) > 1]
    if len(loud) != 1:
        return None
    word = loud[0]
    if "|" in text:
        cells = [cell for part in text.split("|") if (cell := _TOKEN.findall(part))]
        return (word, _tile_cells(word, cells)) if [word] in cells else None
    beside = "[" in text or "(" in text or (":" in text and tokens[0] == word)
    if beside and word in (tokens[0], tokens[-1]):
        return word, [token for token in tokens if token != word]
    return None


def _tile_cells(word: str, cells: list[list[str]]) -> list[str] | None:
    """The tiles in a row's other cells: the cell that joins to the word, else cells of one tile
    each, else the only cell there is. None where cells say something else, a clue perhaps."""
    others = [cell for cell in cells if cell != [word]]
    for cell in others:
        if "".join(cell).lower() == word.lower():
            return cell
    if all(len(cell) == 1 for cell in others):
        return [cell[0] for cell in others]
    return others[0] if len(others) == 1 else None


def _in_capitals(tokens: list[str], style: str) -> tuple[str, None, str] | None:
    """The one token in capitals of a numbered line of prose: its word, without tiles."""
    loud = {token for token in tokens if token.isupper() and len(token) > 2}
    return (loud.pop(), None, style) if len(loud) == 1 else None


def _style(text: str, tokens: int, table: bool) -> str:
    if tokens == 1:
        return "table" if table and "|" in text else "word_list"
    for style, signs in (
        ("arrow", ("→", "⇒", "⟶", "->", "=>", "←", "⇐", "<-", "=")),
        ("table" if table else "pipe", ("|",)),
        ("brackets", ("[",)),
        ("parentheses", ("(",)),
        ("colon", (":",)),
    ):
        if any(sign in text for sign in signs):
            return style
    return "plain"
