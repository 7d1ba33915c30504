"""What lies along the line: marks, the branches left behind, the facts of one step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.messages import is_unknown
from engine.reading.views import Views
from queue_store import head, records, transitions
from queue_store.home import Home
from queue_store.lock import EngineLock
from tests.stepping_engine import make_home
from tests.story import Story, nulls


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def story(home: Home) -> Iterator[Story]:
    with EngineLock.acquire(home, "daemon"):
        made = Story(home)
        made.item("first.jsonl")
        made.item("second.jsonl")
        made.claim()
        yield made
        made.close()


@pytest.fixture
def views(home: Home) -> Iterator[Views]:
    with Views(home) as views:
        yield views


def told(views: Views) -> list[tuple[str, int, str]]:
    return [(m["kind"], m["step"], m["name"]) for m in views.marks()]


def test_a_rollback_leaves_a_branch_that_can_be_seen_from_its_fork_on(
    story: Story, views: Views
) -> None:
    story.begin()
    story.train(10)
    at_10 = story.checkpoint()
    story.train(20, losses={n: 7.0 for n in range(11, 31)})
    story.version(story.checkpoint(), "v001")
    assert views.left_branches("loss") == []
    story.roll_back(at_10)
    story.begin()
    story.train(5)
    (left,) = views.left_branches("loss")
    assert (left["fork"], left["tip"], left["name"], left["branch"]) == (10, 30, "v001", 1)
    assert [p[0] for p in left["points"]] == list(range(11, 31)), "its own steps alone"
    assert {p[3] for p in left["points"]} == {7.0}
    assert [p[0] for p in views.series("loss")["points"]] == list(range(1, 16))
    assert ("rollback", 10, "") in told(views)
    assert "v001" not in {m["name"] for m in views.marks()}, "it is not on the present line"


def test_branches_of_branches_each_have_their_own_steps(story: Story, views: Views) -> None:
    story.begin()
    story.train(10)
    at_10 = story.checkpoint()
    story.train(10)
    at_20 = story.checkpoint()  # run 1, left from 10 on
    story.train(3)  # 21 to 23, lost in a crash
    story.begin()
    story.train(10)  # run 2, from 20 on
    story.checkpoint()
    story.roll_back(at_20)
    story.begin()
    story.train(5)  # run 3, from 20 on
    story.checkpoint()
    story.roll_back(at_10)
    story.begin()
    story.train(2)  # run 4: the present
    found = [
        (left["fork"], left["tip"], [p[0] for p in left["points"]])
        for left in views.left_branches("loss")
    ]
    assert found == [
        (10, 25, list(range(11, 26))),
        (20, 30, list(range(21, 31))),
        (20, 23, [21, 22, 23]),
    ]


def test_items_are_marked_at_their_first_step_wherever_they_went_on(
    story: Story, views: Views
) -> None:
    story.begin()
    story.train(4, item=1)
    story.train(3, item=2)
    story.train(4, item=1)
    story.checkpoint()
    story.begin()
    story.train(2, item=2)
    assert told(views) == [
        ("item", 1, "first.jsonl"),
        ("item", 5, "second.jsonl"),
        ("restart", 11, ""),
    ]


def test_a_failure_lies_where_what_it_spoilt_was_taken_back(story: Story, views: Views) -> None:
    story.begin()
    story.train(6)
    story.checkpoint()
    story.train(3, losses={9: float("nan")})
    transitions.fail(story.state, 1, "nan", "loss is NaN at step 9", 3)
    point = story.state.db.execute("SELECT id FROM checkpoints WHERE step = 6").fetchone()
    head.move_head(story.state, records.checkpoint(story.state, point[0]), why="back to step 6: x")
    story.begin()
    story.train(4, item=2)
    marks = views.marks()
    assert [(m["kind"], m["step"]) for m in marks] == [("item", 1), ("failure", 6), ("item", 7)]
    assert "loss is NaN at step 9" in marks[1]["text"] and marks[1]["name"] == "first.jsonl"
    (left,) = views.left_branches("loss")
    assert left["points"][-1][0] == 9 and left["points"][-1][3] is None


def test_a_failure_that_took_nothing_back_lies_at_its_step(story: Story, views: Views) -> None:
    story.begin()
    story.train(6)
    transitions.fail(story.state, 1, "data", "no row fits", 3)
    story.train(4, item=2)
    assert ("failure", 6, "first.jsonl") in told(views)


def test_versions_of_the_trunk_stay_marked_on_a_later_branch(story: Story, views: Views) -> None:
    story.begin()
    story.train(5)
    at_5 = story.checkpoint()
    story.version(at_5, "v001")
    story.train(5)
    at_10 = story.checkpoint()
    story.version(at_10, "v002")
    story.roll_back(at_10)
    story.begin()
    story.train(3)
    assert [m for m in told(views) if m[0] == "version"] == [
        ("version", 5, "v001"),
        ("version", 10, "v002"),
    ]


def test_the_facts_of_a_step_name_its_item_time_and_validation(story: Story, views: Views) -> None:
    story.begin()
    story.train(5)
    story.validate({"syllo": (2.0, 100), "gsm8k": (4.0, 100)})
    story.train(5, item=2)
    facts = views.step_facts(8)
    assert (facts["step"], facts["item"], facts["name"], facts["loss"]) == (
        8,
        2,
        "second.jsonl",
        92,
    )
    assert facts["time"] > 1e9
    assert facts["validation"] == {"step": 5, "loss": 3.0, "sets": {"syllo": 2.0, "gsm8k": 4.0}}
    assert is_unknown(views.step_facts(3)["validation"]) and is_unknown(views.step_facts(0))
    assert nulls(facts) == nulls(views.marks()) == nulls(views.left_branches("loss")) == []


def test_a_home_that_never_trained_has_no_marks(home: Home, views: Views) -> None:
    assert views.marks() == [] and views.left_branches("loss") == []
    assert is_unknown(views.step_facts(5))


def test_the_marks_of_many_steps_cost_no_look_at_each(story: Story, views: Views) -> None:
    story.begin()
    assert story.run is not None
    db = story.metrics.db
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss, learning_rate,"
        " grad_norm, tokens, seconds, memory, time) VALUES(?, 1, ?, ?, 0, 1, 1, 1, 1, 1, 1, 1, ?)",
        ((story.run.id, n, 1 + n % 2, float(n)) for n in range(1, 100_001)),
    )
    db.execute("COMMIT")
    seen = [0]
    views.metrics.set_progress_handler(lambda: seen.__setitem__(0, seen[0] + 1) or 0, 100)
    assert [m[:2] for m in told(views)] == [("item", 1), ("item", 2)]
    assert seen[0] < 100, "about 100 instructions of SQLite a count"
