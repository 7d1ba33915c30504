"""The judgement of a SYLLO answer: words at their clues, tiles of the bank, the form asked for.

Parts, each 0 or 1 but for the second: `word_em` every word right at its clue and none besides;
`word_acc` the share of clues with the right word; `tile_legal` every tile is one of the bank,
used once, and a word's tiles join to it (where the answer names no tiles: the words can be laid
with the bank); `json_valid` the answer is one JSON value and nothing around it; `contract_ok` it
has the shape, the keys and their types of the expected answer; `strict` all of them (json_valid
only where the expected answer is JSON). `strict` is the verdict. What an inventory says is not
compared: it may be a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.syllo_answers import CLUE_KEYS, Reading, is_json, read_answer
from evaluation.syllo_text import Solution, tile_of

LAY_STEPS = 20_000
"""Steps of the search that lays words with the bank; a real puzzle takes some hundreds."""


def judge(expected: str, answer: str, metadata: Mapping[str, Any]) -> tuple[bool, dict[str, float]]:
    """Verdict and parts. `metadata["syllable_bank"]` is the bank; without one it is the tiles of
    the expected answer, and without those `tile_legal` is unknown and left out. Raises ValueError
    where the expected answer is no SYLLO answer."""
    gold, given = read_answer(expected), read_answer(answer)
    if gold is None:
        raise ValueError("the expected answer is no SYLLO answer in any form of F4")
    right = {solution.clue: solution.word for solution in gold.solutions}
    said: dict[int, list[Solution]] = {}
    for solution in given.solutions if given else ():
        said.setdefault(solution.clue, []).append(solution)
    # A clue answered twice is not answered: which of them was meant?
    hits = sum([s.word for s in said.get(clue, ())] == [word] for clue, word in right.items())
    word_em = hits == len(right) == (len(given.solutions) if given else 0)
    json_valid = is_json(answer) if given is None else given.whole
    contract = given is not None and _conforms(gold, given)
    parts = {"word_em": float(word_em), "word_acc": hits / len(right)}
    strict = word_em and contract  # which asks for JSON alone where the expected answer is that
    bank = _bank(gold, metadata)
    if bank is not None:
        legal = given is not None and tile_legal(given.solutions, bank)
        parts["tile_legal"] = float(legal)
        strict = strict and legal
    parts |= {"json_valid": float(json_valid), "contract_ok": float(contract)}
    return strict, {**parts, "strict": float(strict)}


def readable(expected: str) -> bool:
    """Whether an expected answer is of a syllacrostic: JSON in a known shape, or several words.
    ("syllo" is met as a name for syllogisms, too, whose answers are a word or a sentence.)"""
    gold = read_answer(expected)
    return gold is not None and (gold.whole or len(gold.solutions) > 1)


def _bank(gold: Reading, metadata: Mapping[str, Any]) -> Counter[str] | None:
    tiles = metadata.get("syllable_bank")
    if isinstance(tiles, list):
        return Counter(tile_of(str(tile)) for tile in tiles)
    if any(solution.tiles is None for solution in gold.solutions):
        return None
    return Counter(tile for solution in gold.solutions for tile in solution.tiles or ())


def tile_legal(solutions: Sequence[Solution], bank: Counter[str]) -> bool:
    """Whether the solutions use tiles of the bank alone, each once, and join them to the words."""
    if not solutions:
        return False
    left = Counter(bank)
    for solution in solutions:
        if solution.tiles is None:
            continue
        if "".join(solution.tiles).upper() != solution.word:
            return False
        left.subtract(solution.tiles)
    if any(number < 0 for number in left.values()):
        return False
    return _can_lay([s.word.lower() for s in solutions if s.tiles is None], left)


def _can_lay(words: list[str], bank: Counter[str]) -> bool:
    """Whether the words, one after the other, can be laid with the tiles (each used once)."""
    budget = LAY_STEPS
    tiles = sorted(tile for tile in bank if tile)

    def lay(rest: str, later: list[str]) -> bool:
        nonlocal budget
        budget -= 1
        if budget < 0:
            return False
        if not rest:
            return not later or lay(later[0], later[1:])
        for tile in tiles:
            if bank[tile] > 0 and rest.startswith(tile):
                bank[tile] -= 1
                if lay(rest[len(tile) :], later):
                    return True
                bank[tile] += 1
        return False

    # Longest tiles a word has: its letters, so the depth is bounded by the letters of all words.
    if sum(map(len, words)) > 600:
        return False
    return not words or lay(words[0], words[1:])


def _conforms(gold: Reading, given: Reading) -> bool:
    """Whether an answer has the form of the expected one: its shape, its keys at the top with
    their JSON types, and the keys of its entries with theirs. More keys are allowed."""
    if gold.shape != given.shape:
        return False
    if gold.payload is None or given.payload is None:
        return gold.payload is given.payload
    if gold.shape == "sections":
        return given.whole >= gold.whole and _sections(gold) <= _sections(given)
    return given.whole >= gold.whole and _like(gold.payload, given.payload, depth=0)


def _sections(reading: Reading) -> set[tuple[str, str]]:
    """The names of the sections and what kind of data they hold."""
    entries = [entry for entry in reading.payload if isinstance(entry, dict)]
    return {(str(entry.get("section")), _kind(entry.get("data"))) for entry in entries}


def _like(gold: Any, given: Any, depth: int) -> bool:
    if _kind(gold) != _kind(given):
        return False
    if isinstance(gold, dict):
        if _by_clue(gold):
            model = next(iter(gold.values()))
            return _by_clue(given) and all(_like(model, one, depth + 1) for one in given.values())
        return all(
            # Below the solutions' entries keys are tiles or sentences, which may differ.
            key in given and (depth > 2 or _known(key, value, given[key], depth))
            for key, value in gold.items()
        )
    if isinstance(gold, list) and gold and depth < 4:
        same = all(_kind(one) == _kind(gold[0]) for one in gold)
        if not same:
            return True
        return bool(given) and all(_like(gold[0], one, depth + 1) for one in given)
    return True


def _known(key: str, gold: Any, given: Any, depth: int) -> bool:
    """A key's value: by its type alone where its own keys are tiles (an inventory)."""
    if key in ("usage", "inventory_check", "analysis", "summary") or key in CLUE_KEYS:
        return _kind(gold) == _kind(given)
    if gold == [] or given == []:
        return _kind(gold) == _kind(given)
    return _like(gold, given, depth + 1)


def _by_clue(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(str(key).isdecimal() for key in value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    for kind, name in ((str, "string"), (list, "list"), (dict, "object")):
        if isinstance(value, kind):
            return name
    return "null"
