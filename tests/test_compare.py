"""Two models on the same items: what counts, what is refused, and what is said plainly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.compare import Model, compare
from evaluation.statistics import mcnemar, needed
from queue_store.errors import NotFound, Refused
from queue_store.home import Home
from queue_store.results import Result, Results, Scored
from snapshots import versions
from tests.results_kit import SETTINGS, answer, digest, store
from tests.store_world import World

A = Model("v001", digest("a"), 0.9)
B = Model("v002", digest("b"), {"unknown": "no validation before it"})


@pytest.fixture
def results(home: Home) -> Iterator[Results]:
    with Results(home) as opened:
        yield opened


def one_set(results: Results, **words: Any) -> dict[str, Any]:
    (found,) = compare(results, A, B, **words)["sets"]
    return found


def test_the_same_items_are_compared_with_intervals_and_an_exact_test(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, n < 10))
    store(results, B.digest, lambda n: answer(n, 2 <= n < 28))
    found = one_set(results)
    accuracy = found["accuracy"]
    assert (accuracy["n"], accuracy["gained"], accuracy["lost"]) == (40, 18, 2)
    assert accuracy["a"]["hits"] == 10 and accuracy["b"]["hits"] == 26
    assert accuracy["b"]["low"] == pytest.approx(0.4951, abs=1e-4)
    assert accuracy["b"]["high"] == pytest.approx(0.7787, abs=1e-4)
    assert accuracy["difference"] == pytest.approx(0.4)
    assert accuracy["p"] == accuracy["p_adjusted"] == mcnemar(18, 2)
    assert found["verdict"]["result"] == "better"
    assert found["verdict"]["text"].startswith("v002 is better than v001: 26 of 40 right, v001 10")
    assert found["lost"] == ["q0", "q1"] and found["gained"] == [f"q{n}" for n in range(10, 28)]
    change = found["changed"][-1]
    assert change == {
        **{"item": "q1", "gained": False, "prompt": "1+1?", "expected": "2"},
        **{"a": "2", "b": "no idea"},
    }
    assert len([c for c in found["changed"] if c["gained"]]) == 18
    assert found["scorers"] == ["exact_match 1.1.0"]


def test_the_other_way_round_is_the_mirror_image(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, n < 10))
    store(results, B.digest, lambda n: answer(n, 2 <= n < 28))
    (back,) = compare(results, B, A)["sets"]
    assert back["verdict"]["result"] == "worse"
    assert (back["accuracy"]["gained"], back["accuracy"]["lost"]) == (2, 18)
    assert back["accuracy"]["p"] == mcnemar(2, 18)


def test_too_few_items_show_no_difference_and_it_says_how_many_would(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, n < 30))
    store(results, B.digest, lambda n: answer(n, n < 31))
    verdict = one_set(results)["verdict"]
    assert verdict["result"] == "no difference shown"
    # 2 of 42 change sides by Laplace's rule; below the 5 points asked for, which take 155.
    assert verdict["needed"] == 155 and 0.15 < verdict["detectable"] < 0.25
    assert verdict["text"] == (
        "no difference shown with n = 40: v002 31 of 40 right, v001 30 (p 1);"
        " 160 would be needed to see 5 points"
    )


def test_of_few_items_it_is_hardly_known_how_many_change_sides(results: Results) -> None:
    for model in (A, B):
        store(results, model.digest, lambda n: answer(n, n < 2), count=3)
    verdict = one_set(results)["verdict"]
    # None of three changed sides: Laplace's rule takes it for one in five.
    assert verdict["needed"] == needed(0.05, 0.2) == 626
    assert "630 would be needed to see 5 points" in verdict["text"]
    assert verdict["detectable"] == {"unknown": "so few items show no difference"}


def test_many_items_without_a_difference_say_that_it_would_have_shown(results: Results) -> None:
    for model in (A, B):
        store(results, model.digest, lambda n: answer(n, n % 2 == 0), count=400)
    verdict = one_set(results)["verdict"]
    assert verdict["result"] == "no difference shown" and verdict["needed"] < 400
    assert "so many would have shown 5 points" in verdict["text"]


def test_errors_and_items_not_asked_are_no_wrong_answers(results: Results) -> None:
    def broken(n: int) -> Result | None:
        if n < 4:
            return Result(f"q{n}", error_kind="timeout", error="60 s")
        if n == 4:
            return None
        if n == 5:
            failed = Scored("own", "1", None, error="KeyError")
            return Result("q5", "6", "stop", scores=(failed,))
        return answer(n, True)

    store(results, A.digest, lambda n: answer(n, True))
    store(results, B.digest, broken)
    found = one_set(results)
    assert found["errors"] == {"a": {}, "b": {"timeout": 4, "missing": 1, "scorer": 1}}
    assert found["accuracy"]["n"] == 34 and found["items"] == 40
    assert found["accuracy"]["b"]["share"] == 1.0 and found["accuracy"]["lost"] == 0


def test_a_model_that_only_failed_has_no_accuracy_and_no_verdict(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, True))
    store(results, B.digest, lambda n: Result(f"q{n}", error_kind="worker", error="died"))
    found = one_set(results)
    assert found["errors"]["b"] == {"worker": 40} and "unknown" in found["accuracy"]["b"]["share"]
    assert (
        found["verdict"]["result"] == "unknown" and "answered by both" in found["verdict"]["text"]
    )


def test_tiers_levels_and_skills_have_their_own_numbers_adjusted_together(
    results: Results,
) -> None:
    store(results, A.digest, lambda n: answer(n, False), count=300)
    store(results, B.digest, lambda n: answer(n, n % 10 == 4), count=300)
    found = one_set(results)
    assert [t["tier"] for t in found["tiers"]] == ["easy", "medium", "hard"]
    assert [t["n"] for t in found["tiers"]] == [100] * 3
    assert [level["level"] for level in found["levels"]] == list(range(1, 11))
    five = found["levels"][4]
    assert (five["skill"], five["gained"], five["b"]["share"]) == ("sums", 30, 1.0)
    assert five["p_adjusted"] == pytest.approx(10 * five["p"])
    assert all(one["p_adjusted"] == 1 for one in found["levels"] if one is not five)
    assert [skill["skill"] for skill in found["skills"]] == ["sums"]
    assert found["skills"][0]["p_adjusted"] == found["skills"][0]["p"] == found["accuracy"]["p"]


def test_graded_scores_are_compared_by_permutation(results: Results) -> None:
    def graded(better: float):
        return lambda n: answer(
            n,
            False,
            scorer="syllo",
            version="2.0.0",
            word_acc=(n % 4) / 10 + better * (n % 2),
            json_valid=1.0,
        )

    store(results, A.digest, graded(0.0))
    store(results, B.digest, graded(0.25))
    found = one_set(results)
    (test,) = found["graded"]
    assert (test["scorer"], test["part"], test["n"]) == ("syllo", "word_acc", 40)
    assert test["difference"] == pytest.approx(0.125) and test["p"] < 0.001
    assert test["low"] < test["difference"] < test["high"]
    assert test["b"] - test["a"] == pytest.approx(0.125)
    means = {part["part"]: (part["a"], part["b"]) for part in found["parts"]}
    assert means["json_valid"] == (1.0, 1.0) and means["word_acc"][1] == pytest.approx(0.275)
    assert found["verdict"]["result"] == "no difference shown", "no item turned right"


def test_speed_is_told_by_backend_and_host(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, True))
    fast = Result("q0", "1", "stop", 30, 100.0, None, "vllm", "", scores=answer(0, True).scores)
    unknown = Result("q1", "2", "stop", None, None, 1, "plain", scores=answer(1, True).scores)
    store(results, B.digest, {0: fast, 1: unknown})
    speed = one_set(results)["speed"]
    assert speed["a"] == [
        {
            **{"backend": "plain", "hosts": ["box"], "batch": 8, "answers": 40, "tokens": 400},
            "tokens_per_second": 20.0,
        }
    ]
    assert speed["b"][0]["batch"] == {"unknown": "it was not recorded"}
    assert [(s["backend"], s["answers"], s["tokens_per_second"]) for s in speed["b"]] == [
        ("vllm", 1, 300.0)
    ]


def test_other_generation_settings_are_refused_with_what_differs(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, True))
    store(results, B.digest, lambda n: answer(n, True), settings={**SETTINGS, "temperature": 0.7})
    with pytest.raises(Refused, match=r"different generation settings: temperature 0.0 and 0.7"):
        compare(results, A, B)
    store(results, B.digest, lambda n: answer(n, True))
    assert one_set(results)["settings"] == SETTINGS


def test_a_set_that_changed_between_is_refused(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, True))
    store(results, B.digest, lambda n: answer(n, True), set_digest=digest("6"))
    with pytest.raises(Refused, match=r"not the one of before: v001 was asked 5{12}, v002 6{12}"):
        compare(results, A, B)


def test_another_version_of_the_scorer_is_refused_until_one_judged_both(results: Results) -> None:
    old = store(results, A.digest, lambda n: answer(n, n < 20, version="1.0.0"))
    store(results, B.digest, lambda n: answer(n, n < 20, version="1.10.0"))
    with pytest.raises(Refused, match=r"exact_match 1\.0\.0 and exact_match 1\.10\.0"):
        compare(results, A, B)
    for version, right in (("1.9.0", True), ("1.10.0", False)):
        scores = {f"q{n}": [Scored("exact_match", version, right)] for n in range(40)}
        results.add_scores(old, scores)
    found = one_set(results)
    assert found["scorers"] == ["exact_match 1.10.0"]
    assert found["accuracy"]["a"]["hits"] == 0 and found["accuracy"]["gained"] == 20


def test_what_can_be_compared_is_and_the_rest_says_why_not(results: Results) -> None:
    for name, sign in (("sums", "5"), ("words", "7")):
        store(results, A.digest, lambda n: answer(n, n < 9), set_name=name, set_digest=digest(sign))
    store(results, B.digest, lambda n: answer(n, n < 30))
    found = compare(results, A, B)
    assert [one["set"] for one in found["sets"]] == ["sums"]
    assert found["refused"] == [
        {
            **{"set": "words", "why": "v002 has no results on set words"},
            "mend": "trainctl evaluate v002 --set words",
        }
    ]
    assert found["a"] == {"name": "v001", "digest": "a" * 64, "val_loss": 0.9}


def test_a_model_without_results_says_so(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, True))
    with pytest.raises(NotFound, match=r"\(it was never evaluated: trainctl evaluate v002\)"):
        compare(results, A, B)
    with pytest.raises(NotFound, match=r"on sums: trainctl evaluate v001 --set x\)"):
        compare(results, A, B, set_name="x")
    with pytest.raises(Refused, match="the same weights"):
        compare(results, A, Model("v009", A.digest, 1.0))


def test_an_evaluation_that_was_only_begun_is_none(results: Results) -> None:
    store(results, A.digest, lambda n: answer(n, True))
    store(results, B.digest, {})
    with pytest.raises(NotFound, match="v002 has no results"):
        compare(results, A, B)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two versions, v001 evaluated."""
    world = World(tmp_path / "home")
    world.home.config.write_text("")
    for name, loss in (("a.jsonl", 0.5), ("b.jsonl", None)):
        world.train(world.add(name), val_loss=loss)
        versions.create(world.state, description=f"after {name}")
    yield world
    world.close()


def weights(world: World, name: str) -> str:
    return versions.get(world.state, name).weights_digest


def test_the_command_compares_versions_by_any_of_their_names(world: World, trainctl) -> None:
    with Results(world.home) as results:
        evil = Result("q0", "\x1b]52;c;eA==\x07", "stop", scores=answer(0, False).scores)
        store(results, weights(world, "v001"), lambda n: answer(n, n < 10) if n else evil)
        store(results, weights(world, "v002"), lambda n: answer(n, n < 30))
        store(results, "b" * 64, lambda n: answer(n, n < 2))  # checkpoint 0, the base model
    done = trainctl("compare", "v001", "v002", home=world.home)
    assert done.code == 0, done.err
    assert "v002 is better than v001: 30 of 40 right, v001 9" in done.out
    assert "validation loss: v001 0.5, v002 unknown: no validation" in done.out
    assert "v002 gained 21 items:" in done.out and "and 18 more" in done.out
    assert "\x1b" not in done.out and "␛]52" in done.out
    assert "speed of v002: 20 tokens/s (plain on box, batch 8)" in done.out
    for words in (
        ("1", "2"),
        ("v001", weights(world, "v002")[:10]),
        ("v001", "2", "--set", "sums"),
    ):
        found = json.loads(trainctl("compare", *words, "--json", home=world.home).out)
        assert found["b"]["digest"] == weights(world, "v002")
        assert found["sets"][0]["accuracy"]["gained"] == 21
    base = json.loads(trainctl("compare", "base", "v002", "--json", home=world.home).out)
    assert base["a"]["name"] == "base" and base["sets"][0]["accuracy"]["gained"] == 28


def test_the_command_says_what_is_missing_in_one_line(world: World, trainctl) -> None:
    for words, says in (
        (("v001", "v002"), "v001 has no results (it was never evaluated: trainctl"),
        (("v001", "v009"), "no model v009"),
        (("v001", "v001"), "are the same weights"),
        (("v001", "0123456789"), "no model"),
        (("v001", "0123abcdef"), "no model with a digest 0123abcdef"),
        (("v001", "f" * 64), "no results"),
    ):
        done = trainctl("compare", *words, home=world.home)
        assert done.code == 1 and says in done.err and done.err.count("\n") == 1, done.err
    assert trainctl("compare", "v001", home=world.home).code == 2
