"""Best by a paired test alone; canary, regressions and items that stay wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from evaluation.best import Decision, decide
from evaluation.compare import Model, compare
from evaluation.hints import Hard, canary, hard, history, regressions
from evaluation.statistics import mcnemar
from queue_store import journal
from queue_store.errors import NotFound
from queue_store.home import Home
from queue_store.results import Result, Results, Scored
from snapshots import labels, versions
from tests.results_kit import answer, digest, store
from tests.store_world import World

BEST, NEW = Model("v003", digest("a"), 0.9), Model("v007", digest("b"), 0.8)


@pytest.fixture
def results(home: Home) -> Iterator[Results]:
    with Results(home) as opened:
        yield opened


def decided(results: Results, **words: Any) -> Decision:
    return decide(compare(results, BEST, NEW), **words)


def test_best_moves_on_a_significant_gain_and_says_why(results: Results) -> None:
    store(results, BEST.digest, lambda n: answer(n, n < 10))
    store(results, NEW.digest, lambda n: answer(n, n < 16))
    found = decided(results)
    assert found.move and (found.gained, found.lost, found.n) == (6, 0, 40)
    assert found.why == "v007 is better than v003: gained 6, lost 0 of 40 items (p 0.031)"


def test_best_stays_where_the_gain_may_be_chance(results: Results) -> None:
    store(results, BEST.digest, lambda n: answer(n, n < 10))
    store(results, NEW.digest, lambda n: answer(n, n < 15))
    found = decided(results)
    assert not found.move and found.p == mcnemar(5, 0) == 0.0625
    assert "not shown to be better" in found.why


def test_best_stays_where_nothing_was_gained(results: Results) -> None:
    store(results, BEST.digest, lambda n: answer(n, n < 30))
    store(results, NEW.digest, lambda n: answer(n, n < 10))
    assert "v007 is worse than v003 on set sums" in decided(results).why
    store(results, digest("c"), lambda n: answer(n, n < 30))
    same = decide(compare(results, BEST, Model("v008", digest("c"), 0.9)))
    assert not same.move and "no better" in same.why


def test_all_sets_count_together_and_none_may_have_lost(results: Results) -> None:
    """3 + 3 items gained in two sets are a gain; 30 gained in one do not outweigh 8 lost in the
    other."""
    for name, sign in (("sums", "5"), ("words", "6")):
        words = {"set_name": name, "set_digest": digest(sign)}
        store(results, BEST.digest, lambda n: answer(n, n < 10), **words)
        store(results, NEW.digest, lambda n: answer(n, n < 13), **words)
        store(
            results,
            digest("d"),
            lambda n, few=name == "words": answer(n, n < (2, 40)[not few]),
            **words,
        )
    assert decided(results).move
    found = decide(compare(results, BEST, Model("v009", digest("d"), 0.9)))
    assert found.gained == 30 and found.lost == 8 and found.p < 0.001
    assert not found.move and "worse than v003 on set words" in found.why


def test_a_model_of_which_answers_are_missing_is_not_judged_yet(results: Results) -> None:
    def failing(n: int) -> Result:
        return Result(f"q{n}", error_kind="timeout") if n >= 37 else answer(n, True)

    store(results, BEST.digest, lambda n: answer(n, n < 10))
    store(results, NEW.digest, failing)
    found = decided(results)
    assert not found.move and "3 of 40 items have no answer" in found.why
    store(results, NEW.digest, lambda n: answer(n, True) if n == 37 else None)
    assert decided(results).move, "two of forty may fail"


def test_the_canary_keeps_a_broken_evaluation_from_deciding(results: Results) -> None:
    alarm = canary(0, 40, 0.01)
    assert "none of 40 answers is right while the training loss is 0.01" in alarm
    store(results, BEST.digest, lambda n: answer(n, n < 10))
    store(results, NEW.digest, lambda n: answer(n, n < 30))
    assert not decided(results, alarm=alarm).move
    for right, n, loss in ((1, 40, 0.01), (0, 40, 0.05), (0, 0, 0.01), (0, 9, 0.01), (0, 40, None)):
        assert canary(right, n, loss) == ""
    assert canary(0, 40, float("nan")) == ""


def test_of_equal_models_few_are_promoted() -> None:
    """What five items once would promote a third of the time: here under 2.5 %."""
    draw = random.Random(5)
    moved = 0
    for _ in range(2000):
        sides = [(draw.random() < 0.6) - (draw.random() < 0.6) for _ in range(100)]
        gained, lost = sides.count(1), sides.count(-1)
        test = {"n": 100, "gained": gained, "lost": lost, "p": mcnemar(gained, lost)}
        one = {"set": "s", "items": 100, "errors": {"a": {}, "b": {}}, "accuracy": test}
        named = {"a": {"name": "v1"}, "b": {"name": "v2"}}
        moved += decide({**named, "sets": [one]}).move
    assert 0 < moved < 60


def test_a_regression_beyond_chance_is_named_with_its_group(results: Results) -> None:
    store(results, BEST.digest, lambda n: answer(n, True), count=200)
    store(results, NEW.digest, lambda n: answer(n, n % 10 != 6 and n != 3), count=200)
    found = regressions(compare(results, BEST, NEW))
    assert "tier" not in found[0] and found[0]["lost"] == 21
    assert found[0]["text"].startswith("v007 is worse than v003 on sums: 179 of 200 right, 200")
    levels = [one for one in found if "level" in one]
    assert [(one["level"], one["lost"]) for one in levels] == [(7, 20)], "one item is chance"
    assert "skill sums, level 7" in levels[0]["text"]
    assert regressions(compare(results, NEW, BEST)) == []


def test_an_item_is_hard_that_stays_wrong_whatever_failed_between() -> None:
    found = hard(
        {
            "right at last": [False, False, False, False, True],
            "twice": [True, True, True, False, False],
            "thrice": [True, True, False, False, False],
            "long ago": [False, False, False, True, True, True, True, False],
            "errors between": [False, None, False, None, False],
            "never": [False] * 5,
            "unknown": [None, None, None],
            "none": [],
        }
    )
    assert found == [
        *(Hard("never", 5, 5), Hard("errors between", 3, 3), Hard("thrice", 3, 5)),
    ]
    assert hard({"x": [False, False]}, wrong=2, last=2) == [Hard("x", 2, 2)]


def test_the_history_of_items_is_read_from_the_results(results: Results) -> None:
    ids = []
    for sign in "abc":
        made = {0: answer(0, sign == "c"), 1: Result("q1", error_kind="link")}
        ids.append(store(results, digest(sign), made, count=3))
    results.add_scores(ids[0], {"q0": [Scored("exact_match", "1.2.0", True)]})
    assert history(results, ids) == {
        "q0": [True, False, True],
        "q1": [None, None, None],
        "q2": [None, None, None],
    }


def test_the_tag_moves_with_its_reason_in_the_journal(tmp_path: Path, results: Results) -> None:
    store(results, BEST.digest, lambda n: answer(n, n < 10))
    store(results, NEW.digest, lambda n: answer(n, n < 20))
    decision = decided(results)
    world = World(tmp_path / "other")
    for _ in range(2):
        world.save()
        versions.create(world.state, verified=False)
        world.step += 1
    labels.tag(world.state, "v001", "mine")
    labels.move_best(world.state, "v001", "the first one", {})
    moved = labels.move_best(world.state, "v002", decision.why, asdict(decision))
    assert moved.tags == ("best",) and versions.get(world.state, "best").name == "v002"
    assert versions.get(world.state, "v001").tags == ("mine",)
    event = journal.latest(world.state, 1)[0]
    assert event.text == f"v002 is the best version: {decision.why}"
    assert (event.data["gained"], event.data["p"]) == (10, decision.p)
    assert (event.kind, event.data["left"]) == ("best.moved", "v001")
    labels.move_best(world.state, "v002", "again", {})
    assert journal.latest(world.state, 1)[0].seq == event.seq, "nothing moved, nothing is told"
    with pytest.raises(NotFound):
        labels.move_best(world.state, "v009", "no such version", {})
    assert versions.get(world.state, "best").name == "v002"
    world.close()
