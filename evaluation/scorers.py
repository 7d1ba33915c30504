"""Scorers: whether an answer is right, and in what parts. Each has a name and a version.

Every scorer states how it normalises; none asks whether the answer merely contains the right
one, which an answer that lists many would pass. All judge the answer without the thinking that
it opens with (evaluation.thinking). Pure functions of text: no model, no file. One's own is found
by an entry point of the group `trainctl.scorers` that names a Scorer; a row asks for a scorer by
`"scorer": NAME` in its metadata. A scorer that fails is an error, never a wrong answer.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata as packages
from typing import Any

from evaluation import numbers, syllo_scorer
from evaluation.thinking import answer_of
from queue_store.errors import DataError

GROUP = "trainctl.scorers"
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
    """Another one whenever any answer would be judged otherwise."""
    about: str
    """How it normalises, in a line."""
    judge: Callable[[str, str, Mapping[str, Any]], tuple[bool, Parts]]
    """(expected, answer without thinking, the row's metadata) -> verdict and parts."""
    graded: str = ""
    """The part whose mean is compared between models; "" for a scorer of right and wrong."""


class ScorerFailed(DataError):
    """A scorer raised or gave no score: nothing is known of the answer."""


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _exact_match(expected: str, answer: str, metadata: Mapping[str, Any]) -> tuple[bool, Parts]:
    same = _normal(expected) == _normal(answer)
    return same, {"match": float(same)}


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def squad_tokens(text: str) -> list[str]:
    """The words of a text as SQuAD's evaluation counts them (Rajpurkar et al., 2016): lower case,
    ASCII punctuation taken out, a/an/the left out, split at white space."""
    bare = unicodedata.normalize("NFC", text).lower().translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split()


def _token_f1(expected: str, answer: str, metadata: Mapping[str, Any]) -> tuple[bool, Parts]:
    right, given = squad_tokens(expected), squad_tokens(answer)
    same = right == given
    if not right or not given:  # as SQuAD 2.0: nothing matches nothing alone
        return same, {"f1": float(same)}
    shared = sum((Counter(right) & Counter(given)).values())
    return same, {"f1": 2 * shared / (len(right) + len(given))}


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


def _number(expected: str, answer: str, metadata: Mapping[str, Any]) -> tuple[bool, Parts]:
    right = numbers.after_mark(expected)
    if right is None:
        raise ValueError(f"the expected answer has no number after {numbers.MARK}")
    marked = numbers.after_mark(answer)
    return marked == right, {
        "value": float(marked == right),
        "marked": float(marked is not None),
        "last_number": float(numbers.last_number(answer) == right),
    }


SCORERS: dict[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        Scorer(
            "exact_match",
            "1.1.0",
            "the whole answer; Unicode NFC, runs of white space count as one blank, ends cut; case"
            " and punctuation count",
            _exact_match,
        ),
        Scorer(
            "token_f1",
            "1.0.0",
            "words as SQuAD counts them: lower case, no ASCII punctuation, no a/an/the; f1 of the"
            " shared words; right where all are the same in the same order",
            _token_f1,
            graded="f1",
        ),
        Scorer(
            "number",
            "1.1.0",
            "the number after the last ####, as an exact value: commas at every third, currency,"
            " sign, fractions and a unit after it are read, nothing is converted; last_number"
            " tells beside it whether the last number anywhere was right (no verdict)",
            _number,
        ),
        Scorer(
            "binary",
            "1.1.0",
            'first line, after its last "=" if there is one; white space and leading ⓪ ignored',
            _binary,
        ),
        Scorer(
            "syllo",
            "2.0.0",
            "every word right at its clue, tiles from the bank, each once, joining to the word, in"
            " the form of the expected answer; parts also for answers in another form",
            syllo_scorer.judge,
            graded="word_acc",
        ),
    )
}


@cache
def _installed() -> dict[str, packages.EntryPoint]:
    return {point.name: point for point in packages.entry_points(group=GROUP)}


@cache
def find(name: str) -> Scorer:
    """The scorer of that name, built in or of an entry point. Raises DataError: unknown (with its
    neighbours), or an entry point that cannot be loaded or is no Scorer of that name."""
    if name in SCORERS:
        return SCORERS[name]
    points = _installed()
    if name not in points:
        known = [*SCORERS, *sorted(points.keys() - SCORERS.keys())]
        near = difflib.get_close_matches(name, known, 1)
        mend = f"did you mean {near[0]}? " if near else ""
        raise DataError(f"scorer {name!r} is unknown", mend=f"{mend}known: {', '.join(known)}")
    where = f"entry point {GROUP} {points[name].value}"
    try:
        found = points[name].load()
    except Exception as error:  # an entry point is another's program
        raise DataError(
            f"scorer {name!r} cannot be loaded: {type(error).__name__}: {error}",
            where=where,
            mend="mend or reinstall the package that has it",
        ) from None
    if not isinstance(found, Scorer) or found.name != name or not found.version:
        raise DataError(
            f"scorer {name!r} is none",
            where=where,
            mend=f"name a trainctl Scorer({name!r}, version, about, judge)",
        )
    return found


def scorer_for(skill: str, expected: str, metadata: Mapping[str, Any] | None = None) -> Scorer:
    """The scorer of a row: the one that its metadata names, else its skill's, else, by the look
    of the expected answer, number or exact_match. Raises DataError as `find`."""
    named = (metadata or {}).get("scorer")
    if named is not None:
        return find(str(named))
    expected = answer_of(expected)  # the look that the scorer will have of it
    if skill == "binary" or (skill == "syllo" and syllo_scorer.readable(expected)):
        return SCORERS[skill]
    return SCORERS["number" if numbers.after_mark(expected) is not None else "exact_match"]


def apply(
    scorer: Scorer, expected: str, answer: str, metadata: Mapping[str, Any] | None = None
) -> Score:
    """What a scorer says of an answer. Raises ScorerFailed where it raises or says no score."""
    try:
        exact, parts = scorer.judge(answer_of(expected), answer_of(answer), metadata or {})
        checked = {str(key): float(value) for key, value in parts.items()}
        good = isinstance(exact, bool) and all(0 <= value <= 1 for value in checked.values())
    except Exception as error:  # one's own scorer is another's program
        raise ScorerFailed(
            f"scorer {scorer.name} {scorer.version} failed: {type(error).__name__}: {error}"
        ) from None
    if not good or (scorer.graded and scorer.graded not in checked):
        raise ScorerFailed(
            f"scorer {scorer.name} {scorer.version} gave no score: {exact!r}, {parts!r}"[:300]
        )
    return Score(exact, checked, scorer.name, scorer.version)


def score(
    skill: str, expected: str, answer: str, metadata: Mapping[str, Any] | None = None
) -> Score:
    """Judge one answer. `metadata` is the row's: it may name the scorer, and SYLLO reads its
    `syllable_bank` (without it the bank is the tiles of the expected words). Raises as
    `scorer_for` and `apply`."""
    return apply(scorer_for(skill, expected, metadata), expected, answer, metadata)
