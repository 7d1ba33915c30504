"""Scorers: what counts as right, what only looks so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation import scorers
from evaluation.numbers import after_mark, last_number
from evaluation.scorers import SCORERS, Scorer, ScorerFailed, apply, score, scorer_for
from evaluation.thinking import answer_of
from queue_store.errors import DataError
from tests.prepare_model import GSM8K


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


NUMBER = "12 * 100 = 1200\n#### 1,200"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "#### 1200",
            "so\n#### $1,200.00",
            "#### 7\n#### 1200.\nend",
            "#### +1200",
            "#### 2400/2",
        ),
        *("#### 1200 dollars a day", "####1200", "#### **1,200**", "#### 1200 %", "#### 1200km"),
    ],
)
def test_a_number_is_its_value_however_it_is_written(text: str) -> None:
    found = score("", NUMBER, text)
    assert (found.scorer, found.version) == ("number", "1.1.0")
    assert found.exact and found.parts == {"value": 1, "marked": 1, "last_number": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("#### 1201", "#### 1200 or 7", "####", "#### x", "#### 1200\n#### 7", "#### -1200"),
        *(
            "#### 12,00",
            "#### 1.200",
            "#### 1200.5",
            "#### 1200 thousand",
            "#### 1200k",
            "#### 1e3",
        ),
        *("#### about 1200", "#### 1200 and more", "#### 1200/7", "#### 600 + 600", "#### 1200/0"),
    ],
)
def test_what_is_nearly_the_number_is_not_it(text: str) -> None:
    found = score("", NUMBER, text)
    assert not found.exact and found.parts["value"] == 0


def test_the_last_number_is_a_fallback_under_its_own_name_and_no_verdict() -> None:
    found = score("", NUMBER, "She makes $1,200 in all.")
    assert not found.exact and found.parts == {"value": 0, "marked": 0, "last_number": 1}
    assert score("", NUMBER, "1200 of 1300").parts["last_number"] == 0


def test_signs_fractions_and_scales_of_numbers() -> None:
    for text, value in (("-5", -5), ("\u22125", -5), ("-$5", -5), ("$-5", -5), ("16-3", 3)):
        assert last_number(text) == value, text
    assert after_mark("#### 1 3/4") == after_mark("#### 7/4") == after_mark("#### 1.75")
    for text in ("-$-5", "3.5/2", "1/2/2024", "5 million", "a dozen", "v1.2.3", "9" * 100):
        assert after_mark(f"#### {text}") is None, text
        assert last_number(text) is None, text


def test_every_row_of_gsm8k_is_judged_by_its_number() -> None:
    with GSM8K.open(encoding="utf-8") as file:
        golds = [json.loads(line)["messages"][-1]["content"] for line in file]
    assert len(golds) == 100
    for gold in golds:
        found = score("", gold, gold)
        assert found.scorer == "number" and found.exact and found.parts["last_number"] == 1, gold


@given(st.integers(-(10**15), 10**15), st.sampled_from(["", " eggs", " %", "."]))
def test_a_number_with_commas_is_the_number(value: int, unit: str) -> None:
    assert after_mark(f"#### {value:,}{unit}") == after_mark(f"so\n#### {value}") == value
    assert last_number(f"it is {value:,}{unit}") == value
    assert not score("", f"#### {value}", f"#### {value + 1:,}{unit}").exact


def test_token_f1_is_that_of_squad() -> None:
    def f1(expected: str, answer: str) -> float:
        return apply(SCORERS["token_f1"], expected, answer).parts["f1"]

    assert f1("The Eiffel Tower!", "eiffel tower") == 1
    assert f1("in the year 1889", "1889") == pytest.approx(0.5)
    assert f1("a cat sat", "the cat sat down") == pytest.approx(0.8)
    assert f1("cat", "dog") == 0 and f1("", "") == 1 and f1("the", "cat") == 0
    assert f1("to be or not to be", "to be") == pytest.approx(0.5)
    assert apply(SCORERS["token_f1"], "An apple.", "apple").exact
    assert not apply(SCORERS["token_f1"], "b a c", "c b").exact


def test_thinking_at_the_start_is_no_part_of_an_answer() -> None:
    assert answer_of("<think>is it 4?</think>\n\n5") == "5"
    assert answer_of("<think></think><think>a</think> 5") == "5"
    assert answer_of("it is 5, then</think>\n5") == "5"
    assert answer_of("<think>it is 5, or") == answer_of("<think>a</think><think>5") == ""
    assert answer_of("5 </think> after <think>") == "after <think>"
    for gold in ("<think>#### 5", "<think>#### 5</think>five", '<think>{"answers":{"1":"CAT"}}'):
        for skill in ("", "binary", "syllo"):
            score(skill, gold, "five")  # a scorer is chosen by the answer, not by the thinking
    assert answer_of("5, said <think>no</think>") == "5, said <think>no</think>"
    for name, gold in (("exact_match", "5"), ("binary", "①"), ("number", "#### 5")):
        assert apply(SCORERS[name], gold, f"<think>no: 7</think>\n{gold}").exact
        assert apply(SCORERS[name], f"<think>so</think>{gold}", gold).exact
        assert not apply(SCORERS[name], gold, f"<think>{gold}").exact


OWN = """
from evaluation.scorers import Scorer

def judge(expected, answer, metadata):
    if answer == "raise":
        raise KeyError("units")
    if answer == "nonsense":
        return 1, {"half": 3.0}
    return answer == expected[::-1], {"half": 0.5}

backwards = Scorer("backwards", "3", "the answer backwards", judge, graded="half")
other = Scorer("another", "1", "has another name", judge)
number = 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with entry points, as pip leaves it."""
    info = tmp_path / "own_scorer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-scorer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[trainctl.scorers]\nbackwards = own_scorer:backwards\nother = own_scorer:other\n"
        "number7 = own_scorer:number\nabsent = own_scorer_that_is_not:x\n"
    )
    (tmp_path / "own_scorer.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "own_scorer", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    scorers.find.cache_clear()
    scorers._installed.cache_clear()
    yield
    scorers.find.cache_clear()
    scorers._installed.cache_clear()


@pytest.mark.usefixtures("own")
def test_a_row_is_judged_by_the_scorer_that_it_names() -> None:
    found = score("binary", "abc", "cba", {"scorer": "backwards"})
    assert (found.scorer, found.version, found.exact) == ("backwards", "3", True)
    assert not score("binary", "abc", "abc", {"scorer": "backwards"}).exact
    assert scorer_for("binary", "⓪", {"scorer": "token_f1"}).name == "token_f1"


@pytest.mark.usefixtures("own")
def test_a_scorer_that_fails_is_an_error_and_no_wrong_answer() -> None:
    with pytest.raises(ScorerFailed, match="scorer backwards 3 failed: KeyError: 'units'"):
        score("", "abc", "raise", {"scorer": "backwards"})
    with pytest.raises(ScorerFailed, match="backwards 3 gave no score"):
        score("", "abc", "nonsense", {"scorer": "backwards"})
    with pytest.raises(ScorerFailed, match="has no number after ####"):
        score("", "no number", "#### 7", {"scorer": "number"})


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("backward", "unknown .did you mean backwards"),
        ("other", "scorer 'other' is none"),
        ("number7", "scorer 'number7' is none"),
        ("absent", "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_a_scorer_that_is_none_is_named_with_its_neighbour(name: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        scorer_for("", "a", {"scorer": name})


def test_a_graded_scorer_must_give_the_part_that_it_is_compared_by() -> None:
    lacking = Scorer("x", "1", "", lambda expected, answer, metadata: (True, {}), graded="half")
    with pytest.raises(ScorerFailed):
        apply(lacking, "a", "a")


def test_rows_about_another_models_answer_are_judged_as_they_are_written() -> None:
    """Sparring rows (formats F6): the skill is that of the problem, the answer a sentence."""
    for skill in ("binary", "syllo"):
        for gold, other in (("It is incorrect.", "It is correct."), ("It is correct.", "No.")):
            assert score(skill, gold, gold).exact and score(skill, gold, f"  {gold}\n").exact
            assert not score(skill, gold, other).exact
    assert score("binary", "⓪①", "  ①").exact, "the correction is the gold answer"


@given(expected=st.text(max_size=40), text=st.text(max_size=200))
def test_no_text_breaks_a_scorer(expected: str, text: str) -> None:
    for skill in ("", "binary", "syllo"):
        found = score(skill, expected, text)
        assert isinstance(found.exact, bool) and all(0 <= p <= 1 for p in found.parts.values())
    for scorer in SCORERS.values():
        gold = {"number": NUMBER, "syllo": '{"answers":{"1":"CAT"}}'}.get(scorer.name, expected)
        apply(scorer, gold, text)
