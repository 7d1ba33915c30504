"""Scorers: what counts as right, what only looks so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.scorers import SCORERS, score

EXPECTED = (
    '{"solutions":[{"ans_num":1,"syllables":["win","dow"],"answer":"WINDOW"},'
    '{"ans_num":2,"syllables":["pa","per"],"answer":"PAPER"}]}'
)
BANK = {"syllable_bank": ["per", "dow", "win", "pa", "zo"]}


def answer(*solutions: dict[str, Any], **more: Any) -> str:
    return json.dumps({"solutions": list(solutions), **more})


WINDOW = {"ans_num": 1, "syllables": ["win", "dow"], "answer": "WINDOW"}
PAPER = {"ans_num": 2, "syllables": ["pa", "per"], "answer": "PAPER"}


def syllo(text: str) -> tuple[bool, dict[str, float]]:
    result = score("syllo", EXPECTED, text, BANK)
    assert (result.scorer, result.version) == ("syllo", "1.0.0")
    return result.exact, result.parts


def test_syllo_takes_the_canonical_payload_with_and_without_inventory() -> None:
    perfect = dict(word_em=1.0, word_acc=1.0, tile_legal=1.0, json_valid=1.0, strict=1.0)
    assert syllo(EXPECTED) == (True, perfect)
    assert syllo(answer(WINDOW, PAPER, inventory_check={"status": "anything"})) == (True, perfect)
    assert syllo(answer(PAPER, WINDOW)) == (True, perfect)
    loud = {"ans_num": 1, "syllables": ["WIN", "DOW"], "answer": "Window"}
    assert syllo(answer(loud, PAPER)) == (True, perfect)


def test_syllo_right_words_at_wrong_clues_are_wrong() -> None:
    exact, parts = syllo(answer({**WINDOW, "ans_num": 2}, {**PAPER, "ans_num": 1}))
    assert not exact
    assert parts["word_acc"] == 0.0 and parts["tile_legal"] == 1.0 and parts["json_valid"] == 1.0


def test_syllo_half_right_counts_half_in_word_acc_only() -> None:
    zoo = {"ans_num": 2, "syllables": ["zo"], "answer": "ZO"}
    assert syllo(answer(WINDOW, zoo))[1] == dict(
        word_em=0.0, word_acc=0.5, tile_legal=1.0, json_valid=1.0, strict=0.0
    )
    assert syllo(answer(WINDOW))[1]["word_acc"] == 0.5


@pytest.mark.parametrize(
    "tiles",
    [["win", "dow", "dow"], ["wi", "ndow"], ["win"], ["dow", "win"], []],
    ids=["tile twice", "tiles not in the bank", "tile missing", "wrong order", "none"],
)
def test_syllo_words_built_from_illegal_tiles_are_not_exact(tiles: list[str]) -> None:
    exact, parts = syllo(answer({**WINDOW, "syllables": tiles}, PAPER))
    assert not exact
    assert parts["word_em"] == 1.0 and parts["tile_legal"] == 0.0 and parts["strict"] == 0.0


def test_syllo_an_extra_word_is_not_exact() -> None:
    extra = {"ans_num": 3, "syllables": ["zo"], "answer": "ZO"}
    assert not syllo(answer(WINDOW, PAPER, extra))[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "WINDOW PAPER",
        "Sure! " + EXPECTED,
        EXPECTED[:-1],
        "[]",
        "null",
        '{"solutions": 3}',
        '{"solutions": [1]}',
        answer({**WINDOW, "ans_num": "1"}, PAPER),
        answer({**WINDOW, "ans_num": True}, PAPER),
        answer(WINDOW, {**PAPER, "ans_num": 1}),
        answer({**WINDOW, "syllables": "win dow"}, PAPER),
        answer({**WINDOW, "answer": None}, PAPER),
        "[" * 100_000,
        "1" * 100_000,
    ],
)
def test_syllo_other_payloads_are_no_valid_answer(text: str) -> None:
    exact, parts = syllo(text)
    assert not exact and set(parts.values()) == {0.0}


def test_binary_judges_the_result_on_the_first_line() -> None:
    def right(text: str) -> bool:
        return score("binary", "⓪①①⓪", text).exact

    assert right("⓪①①⓪") and right(" ⓪① ①⓪ \nbecause") and right("add(①①,①①) = ⓪①①⓪")
    assert right("①①⓪"), "leading zeros do not change the value"
    assert not right("") and not right("①①①") and not right("①①⓪ =")
    assert not right("⓪①①⓪ ①①①"), "an answer that lists several is not the answer"
    assert not right("x\n⓪①①⓪") and not right("110")
    assert score("binary", "⓪", "⓪⓪").exact and not score("binary", "⓪", "").exact
    assert score("binary", "10", "10").exact and not score("binary", "10", "①⓪①⓪").exact


def test_exact_match_states_and_keeps_its_normalisation() -> None:
    assert score("", "an apple", "  an \n apple ").exact
    assert score("", "caf\u00e9", "cafe\u0301").exact
    assert not score("", "apple", "an apple").exact and not score("", "Apple", "apple").exact
    assert score("anything", "a", "a").scorer == "exact_match"


def test_number_after_the_marker() -> None:
    expected = "12 * 100 = 1200\n#### 1,200"
    assert score("", expected, "#### 1200").scorer == "number"
    for text in ("#### 1200", "so\n#### $1,200.00", "#### 7\n#### 1200.\nend"):
        assert score("", expected, text).exact, text
    for text in ("1200", "#### 1201", "#### 1200 or 7", "####", "#### x", "#### 1200\n#### 7"):
        assert not score("", expected, text).exact, text


@given(expected=st.text(max_size=40), text=st.text(max_size=200))
def test_no_text_breaks_a_scorer(expected: str, text: str) -> None:
    for scorer in SCORERS.values():
        exact, parts = scorer.judge(expected, text, {})
        assert isinstance(exact, bool) and all(0 <= part <= 1 for part in parts.values())
