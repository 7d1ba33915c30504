"""Stored answers in numbers: by version, by set, and which of them may be ranked together."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.reading.views import Views
from evaluation.standing import scores, standing
from queue_store import daily_copy
from queue_store.home import Home
from queue_store.results import Result, Results, Scored
from queue_store.tallies import alike, commonest, newest, tallies
from snapshots import retention, trash, versions
from snapshots.named import named
from snapshots.retention import Rules
from tests.results_kit import answer, digest, store
from tests.store_world import World

A, B, C = (digest(sign) for sign in "abc")


@pytest.fixture
def results(home: Home) -> Iterator[Results]:
    with Results(home) as opened:
        yield opened


def test_errors_and_answers_without_a_verdict_are_in_no_count(results: Results) -> None:
    made = {
        **{n: answer(n, n < 6) for n in range(30)},
        30: Result("q30", error_kind="timeout"),
        31: Result("q31", "x", "stop", scores=(Scored("own", "1", None, error="it broke"),)),
        32: Result("q32", "x", "stop"),
    }
    id = store(results, A, made)
    (one,) = tallies(results.db)
    assert (one.right, one.n, one.items, one.whole) == (6, 30, 40, False)
    told = standing(results, id)
    assert (told["right"], told["accuracy"]["total"]) == (one.right, one.n)
    found = scores(results.db, [A, B])
    assert found[A]["sums"].items() >= {"right": 6, "n": 30, "items": 40, "accuracy": 0.2}.items()
    assert found[A]["sums"]["low"] == pytest.approx(0.0951, abs=1e-4)
    assert found[B] == {"unknown": "it was never evaluated"}


def test_the_newest_version_of_a_scorer_counts(results: Results) -> None:
    """1.10 is newer than 1.9; q0 has both, and q1 the older alone."""
    id = store(results, A, {n: answer(n, False, version="1.9") for n in range(4)}, count=4)
    results.add_scores(id, {"q0": [Scored("exact_match", "1.10", True)]})
    results.add_scores(id, {"q2": [Scored("exact_match", "1.2", True)]})
    (one,) = tallies(results.db)
    assert (one.right, one.n) == (1, 4) == (standing(results, id)["right"], 4)


def test_a_set_is_told_by_its_newest_evaluation(results: Results) -> None:
    store(results, A, lambda n: answer(n, True))
    store(results, A, lambda n: answer(n, False), set_digest=digest("7"))
    assert newest(tallies(results.db))[A]["sums"].right == 0
    assert scores(results.db, [A])[A]["sums"]["digest"] == digest("7")


def test_only_those_that_were_asked_the_same_are_ranked(results: Results) -> None:
    other = {"set_name": "words", "set_digest": digest("6")}
    for model in (A, B, C):
        store(results, model, lambda n: answer(n, n < 10))
    for model in (A, B):
        store(results, model, lambda n: answer(n, n < 20), **other)
    store(results, A, lambda n: answer(n, True), settings={"max_tokens": 9})
    store(results, A, lambda n: answer(n, True), set_name="odd", set_digest=digest("8"))
    found = tallies(results.db)
    asked = {name: number for name, (_, number) in commonest(found).items()}
    assert asked == {"odd": 1, "sums": 3, "words": 2}
    ranked = alike(found, {A, B, C})
    assert {m: [(t.set_name, t.right) for t in mine] for m, mine in ranked.items()} == {
        A: [("sums", 10), ("words", 20)],
        B: [("sums", 10), ("words", 20)],
    }
    assert set(alike(found, {B, C})) == {B}, "half of two were asked words"
    assert alike([], {A}) == {}


def test_versions_and_checkpoints_have_their_scores_by_the_weights_digest(
    tmp_path: Path, trainctl
) -> None:
    world = World(tmp_path / "home")
    world.home.config.write_text("")
    for _ in range(2):
        world.step += 10
        point = world.save()
        versions.create(world.state, verified=False)
    with Results(world.home) as results:
        store(results, point.weights_digest, lambda n: answer(n, n < 31))
    with Views(world.home) as views:
        one, two = views.versions()
        assert one["scores"] == {"unknown": "it was never evaluated"}
        assert (two["scores"]["sums"]["right"], two["scores"]["sums"]["n"]) == (31, 40)
        rows = views.checkpoints()
        assert rows[-1]["scores"] == two["scores"] and "unknown" in rows[1]["scores"]
        plan = views.rollback_plan("v001")
        assert plan["scores"] == one["scores"]
    out = trainctl("versions", home=world.home).out
    assert "sums 31/40" in out
    assert "sums 77.5 % (62-88) of 40" in trainctl("versions", "v002", home=world.home).out
    both = ("diff", "v001", "v002", "--no-tensors")
    diff = json.loads(trainctl(*both, "--json", home=world.home).out)
    assert diff["b"]["scores"] == two["scores"]
    assert "77.5 % (62-88)" in trainctl(*both, home=world.home).out
    world.close()


def test_results_outlive_their_version_and_are_in_the_daily_copy(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    world.home.config.write_text("")
    for _ in range(4):
        world.step += 10
        world.save()
        versions.create(world.state)
    gone = versions.get(world.state, "v001").weights_digest
    with Results(world.home) as results:
        store(results, gone, lambda n: answer(n, n < 31))
        before = tallies(results.db)
        assert [row["name"] for row in retention.prune(world.state, Rules(1, 0, 0, 0))] == [
            *("v001", "v002")
        ]
        trash.empty(world.state)
        assert tallies(results.db) == before
    made = daily_copy.back_up(world.state)
    (copy,) = [one.path for one in made if one.path.name.startswith("metrics")]
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as db:
        assert tallies(db) == before
    # By its digest the version that is gone is still compared.
    assert named(world.state, gone).digest == gone
    world.close()
