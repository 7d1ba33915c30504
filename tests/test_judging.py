"""Answers become scores that are kept, and old answers are judged anew without being asked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest

from engine.prepare import profiles
from evaluation import scorers
from evaluation.compare import Model, compare
from evaluation.judging import judge, judged, rejudge, set_items
from evaluation.make import make_file
from evaluation.scorers import SCORERS
from evaluation.sets import load_set
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.results import Result, Results, Scored, SetItem
from tests.prepare_model import GSM8K
from tests.results_kit import SETTINGS, answer, digest, items, store
from tests.store_world import World

SUM = SetItem("q0", 0, [{"role": "user", "content": "1+1?"}], "so #### 2")


@pytest.fixture
def results(home: Home) -> Iterator[Results]:
    with Results(home) as opened:
        yield opened


def test_a_set_is_asked_judged_and_kept_row_by_row(home: Home, results: Results) -> None:
    made = make_file("syllo", "easy", 12, 3, True, home.evaluation / "easy.jsonl")
    (home.evaluation / "gsm8k.jsonl").write_bytes(GSM8K.read_bytes())
    for path in (made, home.evaluation / "gsm8k.jsonl"):
        one = load_set(path)
        asked = set_items(one)
        evaluation = results.begin(digest("a"), one.digest, one.name, asked, SETTINGS)
        given = [judged(item, Result(item.id, item.expected, "stop")) for item in asked]
        given[0] = judged(asked[0], Result(asked[0].id, error_kind="timeout"))
        results.put(evaluation, given)
        assert results.items(one.digest) == asked
        outcomes = results.outcomes(evaluation)
        assert [o.answered for o in outcomes] == [False] + [True] * (len(asked) - 1)
        assert all(score.exact for o in outcomes[1:] for score in o.scores)
        assert outcomes[0].scores == () and results.missing(evaluation) == [asked[0].id]


def test_an_answer_is_judged_without_thinking_and_what_the_profile_adds() -> None:
    assert judge(SUM, "<think>3?</think>\n#### 2").exact
    wrapped = "<think>3?</think>\n<<ANS_START>>\n2\n<<ANS_END>>"
    plain = SetItem("q", 0, (), "2")
    regime = profiles.find("regime3")
    assert judge(plain, wrapped).exact is False
    assert judge(plain, wrapped, lambda text: profiles.scored(regime, text)).exact
    emoji = profiles.find("emoji_think")
    assert judge(plain, "🤔🤔🤔\n2\n🛑🛑", lambda text: profiles.scored(emoji, text)).exact


def test_who_cannot_judge_says_so_and_says_nothing_of_the_answer() -> None:
    unknown = judge(SetItem("q", 0, (), "2", metadata={"scorer": "nmber"}), "2")
    assert (unknown.scorer, unknown.exact) == ("nmber", None) and "did you mean" in unknown.error
    failed = judge(SetItem("q", 0, (), "two", metadata={"scorer": "number"}), "#### 2")
    assert failed.exact is None and "no number after ####" in failed.error

    def broken(text: str) -> str:
        raise KeyError("emoji")

    assert judge(SUM, "#### 2", broken).error == "KeyError: 'emoji'"


def test_stored_answers_are_judged_by_a_new_version_without_being_asked(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(n: int) -> Result:
        return Result(f"q{n}", error_kind="link") if n == 0 else answer(n, n < 9)

    ids = [
        store(results, digest("a"), lambda n: answer(n, n < 5, version="1.0.0"), count=600),
        store(results, digest("b"), failing, count=600),
    ]
    a, b = Model("v001", digest("a"), 1.0), Model("v002", digest("b"), 1.0)
    with pytest.raises(Refused, match="judged by different scorers") as refused:
        compare(results, a, b)
    assert "--rejudge" in refused.value.mend
    assert [rejudge(results, one) for one in ids] == [600, 0]
    assert [rejudge(results, one) for one in ids] == [0, 0]
    (found,) = compare(results, a, b)["sets"]
    assert found["accuracy"]["gained"] == 4 and found["scorers"] == ["exact_match 1.1.0"]
    shouting = dataclasses.replace(
        SCORERS["exact_match"], version="2.0.0", judge=lambda *_: (False, {"match": 0.0})
    )
    monkeypatch.setitem(scorers.SCORERS, "exact_match", shouting)
    assert [rejudge(results, one) for one in ids] == [600, 599]
    assert results.results(ids[1])[1].answer == "2", "the answer stays as it came"
    assert {s.version for s in results.outcomes(ids[0])[0].scores} == {"1.0.0", "1.1.0", "2.0.0"}


def test_a_scorer_that_failed_judges_when_it_is_mended(results: Results) -> None:
    failed = Scored("exact_match", "1.1.0", None, error="KeyError")
    evaluation = store(results, digest("a"), {0: Result("q0", "1", "stop", scores=(failed,))})
    assert rejudge(results, evaluation) == 1
    assert results.outcomes(evaluation)[0].scores[0].exact is True


def test_the_command_judges_anew_with_the_profile_of_the_answers(world: World, trainctl) -> None:
    settings = {**SETTINGS, "profile": "regime3"}
    with Results(world.home) as results:
        wrapped = [f"<<ANS_START>>\n{n + 1}\n<<ANS_END>>" for n in range(40)]
        old = Scored("exact_match", "0.9.0", False)
        for model, few in (("b" * 64, 5), ("c" * 64, 30)):
            store(
                results,
                model,
                lambda n, few=few: Result(
                    f"q{n}", wrapped[n] if n < few else "no idea", "stop", scores=(old,)
                ),
                settings=settings,
                asked=items(40),
            )
    before = json.loads(trainctl("compare", "base", "c" * 64, "--json", home=world.home).out)
    assert before["sets"][0]["accuracy"]["b"]["hits"] == 0
    words = ("compare", "base", "c" * 64, "--rejudge", "--json")
    found = json.loads(trainctl(*words, home=world.home).out)["sets"][0]
    assert found["scorers"] == ["exact_match 1.1.0"]
    assert (found["accuracy"]["a"]["hits"], found["accuracy"]["b"]["hits"]) == (5, 30)


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    world = World(tmp_path / "home2")
    world.home.config.write_text("")
    yield world
    world.close()
