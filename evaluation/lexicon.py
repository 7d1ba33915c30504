"""The words of SYLLO with their syllables and clues, read from data/lexicon.tsv.

The clues are of our own wording. Invariants (held by a test): the syllables join exactly to the
word, words are lower case, no clue contains its word or a derived form, no two clues are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Word:
    label: str
    syllables: tuple[str, ...]
    band: int
    """How common the word is: 1 everyday … 4 rare."""
    definition: str


@cache
def lexicon() -> tuple[Word, ...]:
    """All words in the order of the file."""
    text = (files("evaluation") / "data" / "lexicon.tsv").read_text(encoding="utf-8")
    words = []
    for line in text.splitlines()[1:]:
        label, syllables, band, definition = line.split("\t")
        words.append(Word(label, tuple(syllables.split("-")), int(band), definition))
    return tuple(words)
