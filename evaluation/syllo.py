"""SYLLO: clues, a bank of syllable tiles, and the words that use the tiles up. Our own generator.

A puzzle's set of words decides, by a digest, whether it is held out: 15 % of the sets of words
never occur in a training row, whatever level or seed. The bank is exactly the syllables of all
words plus the red herrings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any

from blake3 import blake3

from evaluation.draw import Draw, share
from evaluation.lexicon import Word, lexicon

GENERATOR_ID = "trainctl_syllo"
GENERATOR_VERSION = "1.0.0"
HELD_OUT_SHARE = 0.15
MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Level:
    """The difficulty of a level; ranges include both ends."""

    words: tuple[int, int]
    syllables: tuple[int, int]
    band: int
    """The rarest words that may occur."""
    overlap: float
    """Probability that a word is sought among those that share a tile with one already chosen."""
    red_herrings: tuple[int, int]


LEVELS = {
    1: Level((4, 4), (2, 3), 1, 0.0, (0, 0)),
    2: Level((4, 5), (2, 3), 2, 0.0, (0, 0)),
    3: Level((5, 5), (2, 4), 3, 0.1, (0, 0)),
    4: Level((5, 6), (3, 4), 3, 0.2, (0, 1)),
    5: Level((6, 6), (3, 5), 4, 0.3, (1, 2)),
    6: Level((6, 7), (3, 5), 4, 0.4, (1, 2)),
    7: Level((7, 7), (4, 5), 4, 0.5, (2, 3)),
    8: Level((7, 8), (4, 5), 4, 0.6, (3, 4)),
    9: Level((8, 9), (4, 5), 4, 0.7, (4, 5)),
    10: Level((9, 10), (4, 5), 4, 0.8, (5, 6)),
}


@cache
def _pool(level: int) -> tuple[Word, ...]:
    low, high = LEVELS[level].syllables
    band = LEVELS[level].band
    return tuple(w for w in lexicon() if w.band <= band and low <= len(w.syllables) <= high)


@cache
def _by_syllable(level: int) -> dict[str, tuple[Word, ...]]:
    found: dict[str, list[Word]] = {}
    for word in _pool(level):
        for syllable in dict.fromkeys(word.syllables):
            found.setdefault(syllable, []).append(word)
    return {syllable: tuple(words) for syllable, words in found.items()}


@cache
def _all_syllables() -> tuple[str, ...]:
    return tuple(dict.fromkeys(s for word in lexicon() for s in word.syllables))


def is_held_out(labels: Sequence[str]) -> bool:
    """Whether the puzzles with this set of words are for evaluation only."""
    return share("syllo held out 1\n" + "\n".join(sorted(labels))) < HELD_OUT_SHARE


def possible(level: int, held_out: bool) -> int:
    """How many rows of different sets of words a file of this level can have, at most."""
    low, high = LEVELS[level].words
    sets = sum(comb(len(_pool(level)), count) for count in range(low, high + 1))
    portion = HELD_OUT_SHARE if held_out else 1 - HELD_OUT_SHARE
    # Half of what there is, so that drawing without repetition stays quick.
    return min(MOST_ROWS, int(sets * portion / 2))


def _between(draw: Draw, limits: tuple[int, int]) -> int:
    return limits[0] + draw.below(limits[1] - limits[0] + 1)


def _words(draw: Draw, level: int) -> list[Word]:
    rules = LEVELS[level]
    pool, related = _pool(level), _by_syllable(level)
    count = _between(draw, rules.words)
    chosen: list[Word] = []
    while len(chosen) < count:
        source = pool
        if chosen and draw.chance() < rules.overlap:
            source = related[draw.pick(draw.pick(chosen).syllables)]
        word = draw.pick(source)
        if word not in chosen:
            chosen.append(word)
    return chosen


def _red_herrings(draw: Draw, level: int, tiles: Sequence[str]) -> list[str]:
    count = _between(draw, LEVELS[level].red_herrings)
    herrings: list[str] = []
    while len(herrings) < count:
        tile = draw.pick(_all_syllables())
        if tile not in tiles and tile not in herrings:
            herrings.append(tile)
    return herrings


def answer_text(words: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The canonical answer in its short form: (word, syllables) in the order of the clues."""
    solutions = [
        {"ans_num": number, "syllables": list(syllables), "answer": label.upper()}
        for number, (label, syllables) in enumerate(words, 1)
    ]
    return json.dumps({"solutions": solutions}, separators=(",", ":"))


def _prompt(words: Sequence[Word], bank: Sequence[str], herrings: int) -> str:
    lines = [f"SYLLO: find {len(words)} words."]
    lines += [f"{number}. {word.definition}" for number, word in enumerate(words, 1)]
    lines.append(f"Tiles: {' '.join(bank)}")
    if herrings:
        lines.append(f"Tiles to leave: {herrings}")
    lines.append("Answer in JSON.")
    return "\n".join(lines)


def _row(draw: Draw, level: int, seed: int, words: list[Word]) -> dict[str, Any]:
    tiles = [syllable for word in words for syllable in word.syllables]
    herrings = _red_herrings(draw, level, tiles)
    bank = draw.shuffled([*tiles, *herrings])
    prompt = _prompt(words, bank, len(herrings))
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer_text([(w.label, w.syllables) for w in words])},
        ],
        "metadata": {
            # Named by its content: the same id is the same puzzle, at any level and seed.
            "puzzle_id": f"syllo-{level}-{blake3(prompt.encode()).hexdigest(8)}",
            "skill": "syllo",
            "level": level,
            "generator_id": GENERATOR_ID,
            "generator_version": GENERATOR_VERSION,
            "seed": seed,
            "word_count": len(words),
            "words": [
                {
                    "label": word.label,
                    "definition": word.definition,
                    "syllable_count": len(word.syllables),
                    "syllables": list(word.syllables),
                    "hint_type": "definition",
                    "signal_strength": "strong",
                }
                for word in words
            ],
            "syllable_bank": bank,
            "red_herrings": herrings,
            "overlap": round(1 - len(set(tiles)) / len(tiles), 3),
            "output_variant": "solutions_only",
        },
    }


def make(level: int, count: int, seed: int, held_out: bool = False) -> Iterator[dict[str, Any]]:
    """`count` rows of `level` (1 to 10), each with another set of words; a function of the
    arguments alone. The caller sees to it that `count` is not above `possible`."""
    draw = Draw("syllo", GENERATOR_VERSION, level, seed, int(held_out))
    seen: set[tuple[str, ...]] = set()
    while len(seen) < count:
        words = _words(draw, level)
        key = tuple(sorted(word.label for word in words))
        if key in seen or is_held_out(key) != held_out:
            continue
        seen.add(key)
        yield _row(draw, level, seed, words)
