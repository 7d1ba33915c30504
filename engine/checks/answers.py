"""Answers that teach nothing: empty ones, left-over placeholders, loops, echoes of the question."""

from __future__ import annotations

import re

from engine.checks.findings import (
    Problem,
    RowChecker,
    after_thinking,
    answers,
    quoted,
)
from queue_store.rows import Row

PLACEHOLDERS = {"undefined", "nan", "null", "none", "n/a", "todo", "tbd", "..."}
ECHO = 20
"""Characters from which on an answer that equals its question is told."""

RUN = 20
"""Times from which on a letter that repeats is told. Digits and rules (-----) may well."""

PHRASE_WORDS = 12
SENTENCE_WORDS = 4

_UNFILLED = re.compile(
    r"\{\{\s*\w+\s*\}\}|\$\{\w+\}|<%=?\s*\w+\s*%>|\{(?:answer|response|output)\}"
)
_RUN = re.compile(rf"(\S)\1{{{RUN - 1},}}")
_WORD_RUN = re.compile(r"\b([^\W\d_]{2,})(?:\W+\1\b){4,}", re.IGNORECASE)
_WORDY = re.compile(r"[^\W\d_]{2,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def _empty(row: Row) -> str | None:
    if row.messages is None:
        return None if (row.text or "").strip() else "the text is nothing but white space"
    mine = [turn for turn in row.messages if turn.role == "assistant"]
    empty = [turn for turn in mine if not turn.tool_calls and not after_thinking(turn.content)]
    if not empty:
        return None
    what = "nothing after its thinking" if empty[0].content.strip() else "empty"
    if len(mine) == 1:
        return f"the answer is {what}"
    return f"{len(empty)} of {len(mine)} answers are empty; the first is {what}"


def _degenerate(row: Row) -> Problem | str | None:
    for answer in answers(row):
        text = answer.strip()
        if text.casefold() == "[object object]" or _UNFILLED.fullmatch(text):
            return Problem(
                f"the answer is a placeholder that was not filled: {quoted(text)}", "error"
            )
        if text.casefold() in PLACEHOLDERS:
            return f"the answer is {quoted(text)}: a placeholder?"
        if max(map(len, text.split()), default=0) >= RUN:
            for found in _RUN.finditer(text):
                if found[1].isalpha() or found[1] in "!?":
                    return f"an answer repeats {found[1]!r} {len(found[0])} times"
    if row.messages is not None and len(row.messages) > 1:
        asked, answered = row.messages[-2], row.messages[-1]
        if asked.role == "user" and answered.role == "assistant":
            same = " ".join(asked.content.split()) == " ".join(answered.content.split())
            if same and len(answered.content) >= ECHO:
                return "the answer is the question itself"
    return None


def _repetition(row: Row) -> str | None:
    for answer in answers(row):
        if found := _WORD_RUN.search(answer):
            return f"an answer repeats the word {quoted(found[1])} {len(found[0].split())} times"
        if phrase := _phrase(answer.split()):
            return f"an answer repeats {quoted(phrase)} three times in a row"
        if sentence := _sentence(answer):
            return f"an answer says {quoted(sentence)} twice in a row"
    return None


def _phrase(words: list[str]) -> str | None:
    """A phrase of 2 to PHRASE_WORDS words that stands three times in a row."""
    if len(words) == len(set(words)):
        return None
    for size in range(2, min(PHRASE_WORDS, len(words) // 3) + 1):
        run = 0
        for place, (one, other) in enumerate(zip(words, words[size:], strict=False)):
            run = run + 1 if one == other else 0
            if run == 2 * size:
                phrase = " ".join(words[place - size + 1 : place + 1])
                # Numbers, signs and rules of tables repeat for good reasons.
                if len(set(_WORDY.findall(phrase))) >= 2:
                    return phrase
                run = 0
    return None


def _sentence(text: str) -> str | None:
    before = ""
    for sentence in _SENTENCE.split(text):
        sentence = sentence.strip()
        if sentence and sentence == before and len(_WORDY.findall(sentence)) >= SENTENCE_WORDS:
            return sentence
        before = sentence or before
    return None


empty_answer = RowChecker("empty_answer", "1.0.0", "standard", _empty)
degenerate_answer = RowChecker("degenerate_answer", "1.0.0", "deep", _degenerate)
repetition = RowChecker("repetition", "1.0.0", "deep", _repetition)
