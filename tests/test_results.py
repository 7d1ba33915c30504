"""Evaluation results: what is complete stays, what failed is tried again, nothing is mixed up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import database
from queue_store.database import open_metrics
from queue_store.errors import NotFound
from queue_store.home import Home
from queue_store.metrics_schema import METRICS_SCHEMA
from queue_store.results import Result, Results, Scored, SetItem, config_digest
from queue_store.results_schema import RESULTS_SCHEMA

MODEL, OTHER, SET = "a" * 64, "b" * 64, "5" * 64
SETTINGS = {"temperature": 0.0, "max_tokens": 64}
ITEMS = [
    SetItem(f"q{n}", n, [{"role": "user", "content": f"{n}?"}], str(n), "sums", n % 2, "easy")
    for n in range(5)
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@pytest.fixture
def results(home: Home) -> Iterator[Results]:
    with Results(home) as opened:
        yield opened


def begun(results: Results, model: str = MODEL, **settings: object) -> int:
    return results.begin(model, SET, "sums", ITEMS, {**SETTINGS, **settings})


def right(item: str, answer: str = "4", version: str = "1") -> Result:
    score = Scored("exact_match", version, True, {"match": 1.0})
    return Result(item, answer, "stop", 3, 12.5, 4, "plain", "box", scores=(score,))


def test_an_answer_is_kept_in_full_with_who_gave_it_and_who_judged_it(results: Results) -> None:
    evaluation = begun(results)
    long = "\x1b[31m" + "x" * 10_000
    assert results.put(evaluation, [right("q1", long)]) == (1, 0)
    (found,) = results.results(evaluation)
    assert found == right("q1", long)
    outcome = results.outcomes(evaluation)[1]
    assert (outcome.item, outcome.skill, outcome.level, outcome.tier) == ("q1", "sums", 1, "easy")
    assert outcome.answered and (outcome.tokens, outcome.ms, outcome.batch) == (3, 12.5, 4)
    assert (outcome.backend, outcome.host) == ("plain", "box")
    assert outcome.scores == (Scored("exact_match", "1", True, {"match": 1.0}),)


def test_what_is_complete_is_never_overwritten(results: Results) -> None:
    evaluation = begun(results)
    results.put(evaluation, [right("q1", "first")])
    sent_again = [right("q1", "second"), Result("q1", error_kind="timeout"), right("q2")]
    assert results.put(evaluation, sent_again) == (1, 2)
    assert [r.answer for r in results.results(evaluation)] == ["first", "4"]
    assert results.results(evaluation)[0].complete


def test_an_error_is_no_answer_and_the_next_try_takes_its_place(results: Results) -> None:
    evaluation = begun(results)
    results.put(evaluation, [Result("q0", error_kind="timeout", error="60 s"), right("q1")])
    assert results.missing(evaluation) == ["q0", "q2", "q3", "q4"]
    outcomes = results.outcomes(evaluation)
    assert [o.answered for o in outcomes] == [False, True, False, False, False]
    assert [o.error_kind for o in outcomes] == ["timeout", "", *["missing"] * 3]
    results.put(evaluation, [Result("q0", error_kind="link", error="gone")])
    assert results.results(evaluation)[0].attempts == 2
    results.put(evaluation, [right("q0")])
    found = results.results(evaluation)[0]
    assert (found.answer, found.error_kind, found.error, found.attempts) == ("4", "", "", 3)
    assert results.missing(evaluation) == ["q2", "q3", "q4"]


def test_an_evaluation_is_one_model_set_and_configuration(results: Results) -> None:
    evaluation = begun(results)
    assert begun(results) == evaluation
    assert results.begin(MODEL, SET, "sums", ITEMS, dict(reversed(SETTINGS.items()))) == evaluation
    hot = begun(results, temperature=1.0)
    other = begun(results, OTHER)
    changed = results.begin(MODEL, "6" * 64, "sums", ITEMS[:1], SETTINGS)
    assert len({evaluation, hot, other, changed}) == 4
    results.put(hot, [right("q1")])
    results.put(hot, [Result("q2", error_kind="worker")])
    assert results.results(evaluation) == []
    found = {e.id: (e.items, e.complete, e.failed) for e in results.evaluations(model=MODEL)}
    assert found == {evaluation: (5, 0, 0), hot: (5, 1, 1), changed: (1, 0, 0)}
    assert [e.id for e in results.evaluations(set_name="sums")] == [evaluation, hot, other, changed]
    assert results.evaluations(set_name="none") == []
    assert results.evaluation(hot).complete == 1
    with pytest.raises(NotFound, match="no evaluation 99"):
        results.evaluation(99)
    assert results.evaluations()[1].settings == {**SETTINGS, "temperature": 1.0}


def test_a_new_version_of_a_scorer_judges_beside_the_old_one(results: Results) -> None:
    evaluation = begun(results)
    results.put(evaluation, [right("q1")])
    results.add_scores(evaluation, {"q1": [Scored("exact_match", "2", False, {"match": 0.0})]})
    results.add_scores(evaluation, {"q1": [Scored("exact_match", "1", False)]})
    found = {(s.version, s.exact) for s in results.outcomes(evaluation)[1].scores}
    assert found == {("1", True), ("2", False)}
    with pytest.raises(ValueError, match="'q2' has no answer to score"):
        results.add_scores(evaluation, {"q2": [Scored("exact_match", "2", True)]})


def test_a_scorer_that_failed_is_kept_as_an_error_until_it_judges(results: Results) -> None:
    evaluation = begun(results)
    failed = Scored("own", "1", None, error="KeyError")
    results.put(evaluation, [Result("q1", "4", "stop", scores=(failed,))])
    assert results.outcomes(evaluation)[1].scores == (failed,)
    results.add_scores(evaluation, {"q1": [Scored("own", "1", True)]})
    assert results.outcomes(evaluation)[1].scores == (Scored("own", "1", True),)


def test_the_items_of_a_set_outlive_its_file(results: Results) -> None:
    begun(results)
    assert results.items(SET) == ITEMS


@pytest.mark.parametrize("digest", ["", "latest", "A" * 64, "a" * 63, "../" + "a" * 61])
def test_a_model_is_named_by_its_digest_alone(results: Results, digest: str) -> None:
    with pytest.raises(ValueError, match="digest of the model"):
        results.begin(digest, SET, "sums", ITEMS, SETTINGS)
    with pytest.raises(ValueError, match="digest of the set"):
        results.begin(MODEL, digest, "sums", ITEMS, SETTINGS)
    assert results.evaluations() == []


def test_the_digest_of_a_configuration_does_not_depend_on_the_order_of_keys() -> None:
    assert config_digest({"a": 1, "b": 2}) == config_digest({"b": 2, "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 1.5})


def test_results_of_two_threads_connections_meet_in_one_table(home: Home, results: Results) -> None:
    evaluation = begun(results)
    with Results(home) as other:
        assert begun(other) == evaluation
        other.put(evaluation, [right("q3")])
    assert results.put(evaluation, [right("q3", "late")]) == (0, 1)


def test_a_batch_that_breaks_off_leaves_nothing_of_itself(results: Results) -> None:
    evaluation = begun(results)
    with pytest.raises(sqlite3.IntegrityError):
        results.put(evaluation, [right("q1"), Result(None)])  # type: ignore[arg-type]
    assert results.results(evaluation) == []


def test_a_home_of_before_gets_the_tables_and_keeps_its_rows(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        database, "METRICS_SCHEMA", METRICS_SCHEMA[: METRICS_SCHEMA.index(RESULTS_SCHEMA)]
    )
    with open_metrics(home) as old:
        old.execute(
            "INSERT INTO validations(run, branch, step, name, loss, tokens, seconds, time)"
            " VALUES(1, 1, 5, 'sums', 0.5, 9, 0.1, 0)"
        )
        with pytest.raises(sqlite3.OperationalError):
            old.execute("SELECT * FROM answers")
    monkeypatch.undo()
    with Results(home) as new:
        new.put(begun(new), [right("q1")])
        assert new.db.execute("SELECT step FROM validations").fetchone()[0] == 5
