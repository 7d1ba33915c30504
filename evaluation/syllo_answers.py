"""SYLLO answers in any of their forms, brought to one: clue, word, tiles (formats F4a, F4b).

The payloads that generators ask for differ in their keys, and so do models' answers; what an
answer says is judged apart from whether it has the form that was asked for.
Pure functions of text. Must never guess: an entry without a word is no solution.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from evaluation.syllo_text import Solution, read_text, tile_of, tiles_in, word_of

CLUE_KEYS = ("ans_num", "index", "clue", "number")
WORD_KEYS = ("answer", "word")
TILE_KEYS = ("syllables", "tiles")

SHAPES = (
    *("solutions", "solutions_map", "solutions_list", "solutions_text", "sequence"),
    *("solutions_table", "solutions_markdown", "letters", "answers", "report"),
)
"""The keys that hold the solutions of a payload, which give its shape its name. Others: `sections`
(a list of {section, data}), `list` (the entries without a key around them), `text.STYLE`."""

_FENCE = "```"
_TRIES = 12
"""Places of a text with prose around it at which a payload is looked for."""


@dataclass(frozen=True)
class Reading:
    """An answer in the one form. `whole`: the text is one JSON value and nothing else; `payload`
    that value, or the one found in prose, None for an answer in words."""

    shape: str
    solutions: tuple[Solution, ...]
    whole: bool
    payload: Any


@lru_cache(maxsize=64)
def read_answer(text: str) -> Reading | None:
    """What an answer says, None where it says no word of a solution.

    Takes every payload of F4a and F4b, alone, in a code fence or in prose, and answers in words.
    Numbers of clues may be digits in a string; entries without one count in their order; a
    sequence that begins at 0 is counted from 1. The last ones are remembered: an expected answer
    is read to choose the scorer and to judge.
    """
    try:
        value = json.loads(text)
        whole = True
    except (ValueError, RecursionError):
        value, whole = None, False
    if whole:
        found = _payload(value)
        return None if found is None else Reading(*found, True, value)
    for value in _inside(text):
        found = _payload(value)
        if found is not None:
            return Reading(*found, False, value)
    read = read_text(text)
    if not read:
        return None
    styles = [style for _, style in read]
    shape = f"text.{max(styles, key=styles.count)}"
    return Reading(shape, tuple(solution for solution, _ in read), False, None)


def is_json(text: str) -> bool:
    """Whether the text is one JSON object or list, and nothing around it."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _inside(text: str) -> Iterator[Any]:
    """The JSON objects and lists in a text, fenced ones first."""
    decoder = json.JSONDecoder()
    for fenced in text.split(_FENCE)[1 : 2 * _TRIES : 2]:
        try:
            yield json.loads(fenced.removeprefix("json"))
        except (ValueError, RecursionError):
            continue
    for place in [found.start() for found in re.finditer(r"[{\[]", text)][:_TRIES]:
        try:
            yield decoder.raw_decode(text, place)[0]
        except (ValueError, RecursionError):
            continue


def _payload(value: Any) -> tuple[str, tuple[Solution, ...]] | None:
    """Shape and solutions of a JSON value, None where it holds none."""
    if isinstance(value, list):
        for section in value:
            if isinstance(section, dict) and isinstance(section.get("data"), dict | list | str):
                found = _entries(section["data"]) or _below(section["data"])
                if found:
                    return "sections", tuple(found)
        found = _entries(value)
        return ("list", tuple(found)) if found else None
    if not isinstance(value, dict):
        return None
    for shape in SHAPES:
        if shape not in value:
            continue
        held = value[shape]
        if shape == "solutions_table" and isinstance(held, dict):
            found = _table(held)
        elif shape == "report":
            found = _below(held)
        else:
            found = _entries(held)
        if found:
            return _named(shape, held), tuple(found)
    return None


def _named(shape: str, held: Any) -> str:
    """`solutions` is met as a list and, newer, as a map: two shapes under one key."""
    return "solutions.map" if shape == "solutions" and isinstance(held, dict) else shape


def _below(held: Any) -> list[Solution]:
    found = _payload(held) if isinstance(held, dict) else None
    return list(found[1]) if found else []


def _entries(held: Any) -> list[Solution]:
    """The solutions of a list of entries, a map from clue to entry, or a text of lines."""
    if isinstance(held, str):
        return [solution for solution, _ in read_text(held)]
    if isinstance(held, dict):
        pairs = [(_clue(key), entry) for key, entry in held.items()]
        found = [_entry(entry, clue) for clue, entry in pairs if clue is not None]
        return [solution for solution in found if solution is not None]
    if not isinstance(held, list):
        return []
    clues = [_own_clue(entry) for entry in held]
    shift = 1 if 0 in clues and None not in clues else 0
    solutions = []
    for place, (entry, clue) in enumerate(zip(held, clues, strict=True), 1):
        solution = _entry(entry, place if clue is None else clue + shift)
        if solution is not None:
            solutions.append(solution)
    return solutions


def _own_clue(entry: Any) -> int | None:
    if not isinstance(entry, dict):
        return None
    return next((_clue(entry[key]) for key in CLUE_KEYS if key in entry), None)


def _clue(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.strip().isdecimal() and len(value) < 5:
        return int(value)
    return value if type(value) is int else None


def _entry(entry: Any, clue: int) -> Solution | None:
    if isinstance(entry, str):
        read = read_text(entry)
        if len(read) != 1:
            return None
        # A line's own number counts: "2. pa + per → PAPER" may stand first.
        own = re.match(r"\s*\(?\d{1,3}\s*[.):]", entry)
        return read[0][0] if own else Solution(clue, read[0][0].word, read[0][0].tiles)
    if not isinstance(entry, dict):
        return None
    word = next((entry[key] for key in WORD_KEYS if isinstance(entry.get(key), str)), "")
    if not word.strip():
        return None
    return Solution(clue, word_of(word), _tiles(entry))


def _tiles(entry: Mapping[str, Any]) -> tuple[str, ...] | None:
    held = next((entry[key] for key in TILE_KEYS if key in entry), None)
    if isinstance(held, str):
        return tiles_in(held)
    if isinstance(held, list) and all(isinstance(tile, str) for tile in held):
        return tuple(tile_of(tile) for tile in held)
    return None


def _table(held: Mapping[str, Any]) -> list[Solution]:
    """Rows such as ["win | dow", "WINDOW"], or with the clue's number in a cell of its own."""
    rows = held.get("rows")
    solutions: list[Solution] = []
    for place, row in enumerate(rows if isinstance(rows, list) else [], 1):
        if not isinstance(row, list) or not all(type(cell) in (str, int) for cell in row):
            continue
        clue = next((c for c in map(_clue, row) if c is not None), place)
        cells = [cell for cell in row if isinstance(cell, str) and _clue(cell) is None]
        solution = _row(clue, cells)
        if solution is not None:
            solutions.append(solution)
    return solutions


def _row(clue: int, cells: Sequence[str]) -> Solution | None:
    if not cells:
        return None
    read = [tiles_in(cell) for cell in cells]
    alone = [place for place, tokens in enumerate(read) if len(tokens) == 1]
    if not alone:
        return None
    # The word stands in a cell alone; of several such the last in capitals, else the last.
    loud = [place for place in alone if cells[place].strip().isupper()]
    place = (loud or alone)[-1]
    tiles = [tile for other, tokens in enumerate(read) if other != place for tile in tokens]
    return Solution(clue, word_of(cells[place]), tuple(tiles) if tiles else None)
