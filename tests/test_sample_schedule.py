"""When samples are taken, of what, and what becomes of an example: dense at the beginning of each
item, put off by the budget in words, learned and lost, improving and regressing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.reading.courses import Course, counts, courses, moved
from engine.reading.versionrows import tally
from engine.reading.views import Views
from engine.training.controls import Place
from engine.training.sampler import answer
from engine.training.ticks import SAMPLES, Monitor, samples_due
from queue_store.home import Home
from queue_store.metrics import Example, Sample, item_example, item_of
from tests import engine_kit as kit
from tests.story import Story
from tests.test_rendering import evaluation

F7 = (0, 10, 25, 50, 100, 150, 200, 250, 500)


def due(first: int, steps: int, every: int = 0, schedule: tuple[int, ...] = F7) -> list[int]:
    """The item's steps at which samples fall due; it begins after global step `first`."""
    return [n for n in range(steps + 1) if samples_due(first + n, n, steps, every, schedule)]


def test_the_schedule_counts_the_items_steps_and_the_grid_the_branchs() -> None:
    assert due(0, 300) == due(7, 300) == [0, 10, 25, 50, 100, 150, 200, 250, 300]
    assert due(960, 300, every=1000) == [0, 10, 25, 40, 50, 100, 150, 200, 250, 300]
    assert due(1000, 8, every=1000) == [0, 8], "the grid's step 1000 was the item's before"
    assert due(0, 8, every=3, schedule=()) == [3, 6], "without a schedule the grid alone"
    assert due(0, 30, schedule=()) == []


def test_a_tick_without_room_in_the_budget_stays_due_and_says_since_when() -> None:
    monitor = Monitor(0.1)
    at = [Place(1, n) for n in range(5)]
    assert monitor.put_off(SAMPLES) is None and not monitor.may_run(SAMPLES)
    monitor.fall_due(SAMPLES, at[0])
    assert monitor.may_run(SAMPLES), "its cost is not known yet"
    monitor.ran(SAMPLES, 2.0, True)
    assert monitor.put_off(SAMPLES) is None
    monitor.fall_due(SAMPLES, at[1])
    monitor.stepped(10.0)
    monitor.fall_due(SAMPLES, at[2])
    late = monitor.put_off(SAMPLES)
    assert late is not None and late.due == at[1], "the first of those that were put off"
    assert late.seconds == pytest.approx(30.0), "40 s of training pay for two ticks of 2 s"
    assert not monitor.may_run(SAMPLES)
    monitor.stepped(30.0)
    assert monitor.may_run(SAMPLES)
    monitor.ran(SAMPLES, 1.0, False)
    assert monitor.put_off(SAMPLES) is not None, "broken off, it stays due"
    monitor.budget = 0.0
    assert monitor.put_off(SAMPLES) is None, "switched off, nothing waits"


# -- what becomes of an example ------------------------------------------------------------------


def course(*said: float) -> list[tuple[Any, ...]]:
    """(learned, lost, change) at each tick; a similarity of 1 stands for an exact answer."""
    marks = [(10 * n, "e", one == 1, one) for n, one in enumerate(said)]
    found = courses(marks)
    return [(c.learned, c.lost, c.change) for c in (found[m[0], "e"] for m in marks)]


def test_learned_once_lost_and_found_again() -> None:
    assert course(0.2, 1, 1, 0.9, 0.9, 1, 0.3) == [
        (None, None, "new"),
        (10, None, "improving"),
        (10, None, "stable"),
        (10, 30, "regressing"),
        (10, 30, "stable"),
        (10, None, "improving"),
        (10, 60, "regressing"),
    ]
    assert course(1)[0] == (0, None, "new")


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ((False, 0.50), (False, 0.56), "improving"),
        ((False, 0.56), (False, 0.50), "regressing"),
        ((False, 0.50), (False, 0.54), "stable"),
        ((True, 1.0), (True, 0.7), "stable"),  # exact as its scorer says, in other words
        ((True, 0.7), (False, 0.9), "regressing"),
        ((False, 0.9), (True, 0.7), "improving"),
    ],
)
def test_exact_counts_before_similar(before: Any, now: Any, change: str) -> None:
    assert moved(before, now) == change


def test_each_example_is_compared_with_its_own_tick_before() -> None:
    found = courses([(0, "a", False, 0.1), (5, "b", True, 1.0), (9, "a", True, 1.0)])
    assert found[9, "a"] == Course(9, None, 0, "improving")
    assert counts(found, 9) == {"improving": 1, "regressing": 0, "stable": 0, "new": 0}
    assert counts(found, 5)["new"] == 1


# -- on a real home -----------------------------------------------------------------------------


def home_with(folder: Path, **samples: Any) -> Home:
    home = kit.make_home(
        folder,
        training={"sample_steps": 7, "monitoring_budget": 1.0},
        samples={"count": 2, "item_count": 3, "schedule": [0, 2], "max_tokens": 4, **samples},
    )
    evaluation(home)
    return home


@pytest.fixture
def rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tick is put off, whatever it costs."""
    monkeypatch.setattr(Monitor, "_lacks", lambda monitor, kind: 0.0)


def events(home: Home) -> list[dict[str, Any]]:
    with Views(home) as views:
        return [e for e in views.latest_events(500)["events"] if e["kind"] == "samples"]


def test_rows_of_each_item_are_asked_before_it_trains_and_at_its_end(
    tmp_path: Path, trainctl: Any, rich: None
) -> None:
    home = home_with(tmp_path / "home")
    first = kit.add(home, "a.jsonl", 24, seed=1)
    second = kit.add(home, "b.jsonl", 24, seed=2)
    kit.train_all(home)
    with kit.opened(home) as state:
        a, b = (row[0] for row in state.db.execute("SELECT steps FROM items ORDER BY id"))
    taken = [(e["item"], e["data"]["item_step"], e["step"]) for e in events(home)]
    assert {(first.id, n, n) for n in (0, 2, a)} <= set(taken)
    assert {(second.id, n, a + n) for n in (0, 2, b)} <= set(taken)
    assert len(taken) == len(set(taken)) and all(e["data"]["rows"][1] == 3 for e in events(home))
    assert all(e["data"]["due"] == e["step"] for e in events(home))
    # Between the items no step is done: the sets were not asked twice there.
    between = [e["data"]["count"] for e in events(home) if e["step"] == a]
    assert between == [2, 0]

    done = trainctl("samples", "--json", home=home)
    told = json.loads(done.out)
    assert (told["total"], told["item_total"], told["step"]) == (2, 3, a + b)
    rows = [one for one in told["samples"] if one["item"] == second.id]
    assert len({one["example"] for one in rows}) == 3 == len(rows)
    assert all(item_of(one["example"]) == second.id and one["expected"] for one in rows)
    assert sum(told["changes"].values()) == 5 and told["changes"]["new"] == 0
    for one in told["samples"]:
        with Views(home) as views:
            course = views.samples(example=one["example"])["samples"]
        assert [c["step"] for c in course] == sorted({c["step"] for c in course})
        assert course[-1]["learned"] == one["learned"] and course[0]["change"] == "new"
        assert course[0]["step"] == (0 if one["item"] != second.id else a)
    text = trainctl("samples", home=home).out
    assert "since step" in text and "improving" in text and "rows of the item" in text
    # A version's figure is of the held-out sets alone.
    with Views(home) as views:
        assert tally(views.metrics, views.line())["total"] == 2


def test_a_tick_that_may_take_long_is_told_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rich: None
) -> None:
    home = home_with(tmp_path / "home", schedule=[0])
    kit.add(home, "a.jsonl", 24, seed=1)
    phases: list[tuple[int, str]] = []
    with kit.Running(home) as running:

        def watched(*args: Any, **kwargs: Any) -> Any:
            status = running.status
            phases.append((status["global_step"], status["phase"]))
            return answer(*args, **kwargs)

        monkeypatch.setattr("engine.training.looking.answer", watched)
        running.wait_trained()
        last = running.status["phase"]
    # What it costs is known after the first: it is quick, and would flicker.
    assert phases[0] == (0, "asking the fixed examples")
    assert {phase for _, phase in phases[1:]} == {""} and last == ""


def test_answers_change_no_bit_of_the_weights(tmp_path: Path, rich: None) -> None:
    plain = kit.make_home(tmp_path / "plain")
    asked = home_with(tmp_path / "asked")
    for home in (plain, asked):
        kit.add(home, "a.jsonl", 24, seed=1)
    evaluation(plain)  # what is held out does not train, asked or not
    assert kit.train_all(plain) == kit.train_all(asked)
    assert len(events(asked)) >= 3


def test_the_rows_are_the_same_ones_after_a_restart(tmp_path: Path, rich: None) -> None:
    home = home_with(tmp_path / "home")
    kit.add(home, "a.jsonl", 40)
    with kit.Running(home) as running:
        running.pause_at(3)
    kit.train_all(home)
    with Views(home) as views:
        told = views.samples()
        courses = [views.samples(example=one["example"])["samples"] for one in told["samples"]]
    assert {len(course) for course in courses} == {len(courses[0])} and len(courses[0]) >= 3


def test_a_file_that_went_from_the_store_is_not_told_as_a_held_out_set(
    tmp_path: Path, rich: None
) -> None:
    home = home_with(tmp_path / "home")
    item = kit.add(home, "a.jsonl", 40)
    with kit.Running(home) as running:
        running.pause_at(3)
    (home.items / item.file).unlink()
    kit.train_all(home)
    with Views(home) as views:
        told = [e["text"] for e in views.latest_events(500)["events"] if e["kind"] == "warning"]
    assert told == [
        f"no row of item 1, a.jsonl, is asked, for its file cannot be read again:"
        f" {home.items / item.file}: no such file"
    ]
    asked = [e["data"] for e in events(home) if e["step"] > 3]
    assert asked and all(one["count"] == 2 and one["rows"][1] == 0 for one in asked)


def test_a_tick_that_is_put_off_is_said(tmp_path: Path, trainctl: Any) -> None:
    home = home_with(tmp_path / "home")
    kit.add(home, "a.jsonl", 40)
    told: list[Any] = []
    real: list[float] = []
    with kit.Running(home) as running:
        board, reported = running.engine.board, running.engine.board.step

        def step(metric: Any) -> None:
            reported(metric)
            worker = running.engine.worker
            assert worker is not None
            monitor = worker.watch.monitor
            if metric.step == 1:
                real.append(monitor.spent)
                monitor.spent += 1000
            if metric.step == 4:
                told.append(running.engine.board.build()["samples_due"])
                monitor.spent -= 1000

        board.step = step  # type: ignore[method-assign]
        running.unpause()
        running.wait_trained()
        assert "unknown" in running.engine.board.build()["samples_due"]
    # What was really spent before is lacking, too, and the same again for the tick that waits.
    assert told[0]["step"] == 2
    assert 900 < told[0]["training_seconds"] <= 1000 + 2 * real[0]
    (late,) = [e for e in events(home) if e["data"]["due"] == 2]
    assert late["step"] > 2 and "due since step 2 (training.monitoring_budget)" in late["text"]


def test_a_tick_at_the_step_where_a_session_began_is_of_the_line_once(tmp_path: Path) -> None:
    story = Story(kit.make_home(tmp_path))
    story.item()
    story.claim()
    story.begin()
    story.train(5)
    story.sample({"e1": False})
    story.checkpoint()
    story.begin()
    own = item_example(7, "ab" * 32, 3)
    assert story.run is not None
    again = [Sample(1, 5, name, "again", True, 1.0, 1, 0.1) for name in ("e1", own)]
    story.metrics.set_examples(
        [Example(n, of, 1, "p", "gold", "", None) for n, of in (("e1", "s"), (own, "a.jsonl"))]
    )
    story.metrics.add_samples(story.run.id, again)
    story.train(1)
    story.checkpoint()
    with Views(story.home) as views:
        assert [mark[:3] for mark in views.sample_marks()] == [(5, "e1", True), (5, own, True)]
        (one, other) = views.samples()["samples"]
    assert (one["answer"], one["item"]) == ("again", {"unknown": "of the set s"})
    assert (other["item"], other["learned"], other["change"]) == (7, 5, "new")
    story.close()
