"""Scorers: whether an answer is right, and in what parts. Each has a name and a version.

Every scorer states how it normalises; none asks whether the answer merely contains the right
one, which an answer that lists many would pass. Pure functions of text: no model, no file.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

Parts = dict[str, float]


@dataclass(frozen=True)
class Score:
    exact: bool
    """The verdict that counts."""
    parts: Parts
    """Named parts of it, each from 0 to 1."""
    scorer: str = ""
    version: str = ""


@dataclass(frozen=True)
class Scorer:
    name: str
    version: str
    about: str
    judge: Callable[[str, str, Mapping[str, Any]], tuple[bool, Parts]]
    """(expected, answer, the row's metadata) -> verdict and parts."""


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _exact_match(expected: str, answer: str, metadata: Mapping[str, Any]) -> tuple[bool, Parts]:
    same = _normal(expected) == _normal(answer)
    return same, {"match": float(same)}


def _binary_value(text: str) -> str:
    """The result that a line states: what follows its last "=", or all of it; no white space,
    and no leading ⓪ before another digit, as it does not change the value."""
    first = unicodedata.normalize("NFC", text).strip().partition("\n")[0]
    value = "".join(first.rpartition("=")[2].split())
    return re.sub("^⓪+(?=[⓪①])", "", value)


def _binary(expected: str, answer: str, metadata: Mapping[str, Any]) -> tuple[bool, Parts]:
    right, given = _binary_value(expected), _binary_value(answer)
    same = right == given and given != ""
    return same, {"value": float(same)}


_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+")


def _number_after_marker(text: str) -> Decimal | None:
    """The number that follows the last "####", with thousands commas and $ or without."""
    _, marker, rest = text.rpartition("####")
    first = rest.strip().partition("\n")[0].strip().removeprefix("$").rstrip(".% ")
    if not marker or not _NUMBER.fullmatch(first):
        return None
    try:
        return Decimal(first.replace(",", ""))
    except InvalidOperation:
        return None


def _number(expected: str, answer: str, metadata: Mapping[str, Any]) -> tuple[bool, Parts]:
    right, given = _number_after_marker(expected), _number_after_marker(answer)
    same = given is not None and right == given
    return same, {"value": float(same), "marked": float(given is not None)}


@dataclass(frozen=True)
class SylloSolution:
    word: str
    """In upper case."""
    tiles: tuple[str, ...]
    """In lower case."""


def parse_syllo(text: str) -> dict[int, SylloSolution] | None:
    """Clue number to solution, of the canonical payload with or without its inventory_check:
    {"solutions":[{"ans_num":1,"syllables":["win","dow"],"answer":"WINDOW"}]}.

    None for everything else, prose around the JSON and a clue answered twice included.
    """
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return None
    entries = payload.get("solutions") if isinstance(payload, dict) else None
    if not isinstance(entries, list):
        return None
    found: dict[int, SylloSolution] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        number, tiles, word = entry.get("ans_num"), entry.get("syllables"), entry.get("answer")
        if type(number) is not int or number in found or not isinstance(word, str):
            return None
        if not isinstance(tiles, list) or not all(isinstance(tile, str) for tile in tiles):
            return None
        found[number] = SylloSolution(word.upper(), tuple(tile.lower() for tile in tiles))
    return found


def _tile_legal(given: dict[int, SylloSolution], bank: Counter[str]) -> bool:
    used = Counter(tile for solution in given.values() for tile in solution.tiles)
    joined = all("".join(s.tiles).upper() == s.word for s in given.values())
    return joined and used <= bank


def _syllo(expected: str, answer: str, metadata: Mapping[str, Any]) -> tuple[bool, Parts]:
    right = parse_syllo(expected) or {}
    given = parse_syllo(answer)
    tiles = metadata.get("syllable_bank")
    if not isinstance(tiles, list):
        tiles = [tile for solution in right.values() for tile in solution.tiles]
    bank = Counter(str(tile).lower() for tile in tiles)
    found = given or {}
    hits = sum(number in found and found[number].word == s.word for number, s in right.items())
    word_em = bool(right) and hits == len(right) == len(found)
    legal = bool(found) and _tile_legal(found, bank)
    strict = word_em and legal
    return strict, {
        "word_em": float(word_em),
        "word_acc": hits / len(right) if right else 0.0,
        "tile_legal": float(legal),
        "json_valid": float(given is not None),
        "strict": float(strict),
    }


SCORERS: dict[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        Scorer(
            "exact_match",
            "1.0.0",
            "the whole answer; Unicode NFC, runs of white space count as one blank, ends cut",
            _exact_match,
        ),
        Scorer(
            "number",
            "1.0.0",
            "the number after the last ####; thousands commas and a currency sign are ignored",
            _number,
        ),
        Scorer(
            "binary",
            "1.0.0",
            'first line, after its last "=" if there is one; white space and leading ⓪ ignored',
            _binary,
        ),
        Scorer(
            "syllo",
            "1.0.0",
            "every word right at its clue, tiles from the bank, each once, joining to the word",
            _syllo,
        ),
    )
}


def scorer_for(skill: str, expected: str) -> Scorer:
    """The scorer of a skill's rows; of an unknown skill by the look of the expected answer."""
    if skill in ("syllo", "binary"):
        return SCORERS[skill]
    return SCORERS["number" if _number_after_marker(expected) is not None else "exact_match"]


def score(
    skill: str, expected: str, answer: str, metadata: Mapping[str, Any] | None = None
) -> Score:
    """Judge one answer. `metadata` is the row's: SYLLO reads its `syllable_bank` (without it
    the bank is the tiles of the expected words)."""
    scorer = scorer_for(skill, expected)
    exact, parts = scorer.judge(expected, answer, metadata or {})
    return Score(exact, parts, scorer.name, scorer.version)
