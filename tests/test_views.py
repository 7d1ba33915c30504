"""What faces read of the store: the promised shapes, and which steps count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.messages import is_unknown
from engine.reading.views import Views
from queue_store import queue, transitions
from queue_store.database import open_metrics
from queue_store.errors import NotFound
from queue_store.home import Home
from queue_store.items import Priority
from queue_store.lock import EngineLock
from tests.stepping_engine import make_home
from tests.story import Story, nulls

NAN = float("nan")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def story(home: Home) -> Iterator[Story]:
    story = Story(home)
    yield story
    story.close()


@pytest.fixture
def views(home: Home) -> Iterator[Views]:
    with Views(home) as views:
        yield views


def present(views: Views) -> list[int]:
    return [row["step"] for row in views.history() if not row["taken_back"]]


# -- which steps count -------------------------------------------------------------------------


def test_steps_beyond_the_checkpoint_count_while_the_engine_runs_and_not_after_its_death(
    story: Story, views: Views
) -> None:
    with EngineLock.acquire(story.home, "daemon"):
        story.item()
        story.claim()
        story.begin()
        story.train(5)
        story.checkpoint()
        story.train(3)
        assert present(views) == list(range(1, 9))
    assert present(views) == list(range(1, 6))
    assert [row["step"] for row in views.history()] == list(range(1, 9))


def test_the_lock_of_a_command_is_no_engine(story: Story, views: Views) -> None:
    story.item()
    story.begin()
    story.train(3)
    with EngineLock.acquire(story.home, "rollback"):
        assert present(views) == []
        assert views.status()["state"] == "stopped"


def test_a_crash_and_a_rollback_take_back_exactly_what_is_not_on_the_line(
    story: Story, views: Views
) -> None:
    story.item()
    story.claim()
    story.begin()  # run 1
    story.train(5)
    at_5 = story.checkpoint()
    story.train(5)
    story.checkpoint()
    story.train(3)  # 11 to 13, lost in a crash
    story.begin()  # run 2, from step 10
    story.train(5)  # 11 to 15
    story.checkpoint()
    rows = views.history()
    assert [(r["run"], r["step"]) for r in rows if r["taken_back"]] == [(1, 11), (1, 12), (1, 13)]
    assert present(views) == list(range(1, 16))

    story.roll_back(at_5)
    assert present(views) == list(range(1, 6))
    story.begin()  # run 3, branch 2
    story.train(4)  # 6 to 9
    story.checkpoint()
    rows = views.history()
    kept = [(r["run"], r["branch"], r["step"]) for r in rows if not r["taken_back"]]
    assert kept == [(1, 1, n) for n in range(1, 6)] + [(3, 2, n) for n in range(6, 10)]
    assert len(rows) == 13 + 5 + 4
    assert [p[0] for p in views.series("loss")["points"]] == list(range(1, 10))
    assert views.series("loss")["branch"] == 2


def test_a_run_that_never_saved_leaves_no_trace_on_the_line(story: Story, views: Views) -> None:
    story.item()
    story.begin()
    story.train(4)
    story.begin()
    story.train(2)
    story.begin()
    story.train(3)
    story.checkpoint()
    assert [(r["run"], r["step"]) for r in views.history() if not r["taken_back"]] == [
        (3, 1),
        (3, 2),
        (3, 3),
    ]


def test_history_has_the_promised_fields_and_can_be_narrowed(story: Story, views: Views) -> None:
    story.item("a.jsonl")
    story.item("b.jsonl")
    story.begin()
    story.train(3, item=1, losses={2: NAN})
    story.train(3, item=2)
    story.checkpoint(item=2)
    row = views.history()[0]
    assert set(row) >= {
        *("branch", "step", "item", "cursor_from", "cursor_to", "loss", "learning_rate"),
        *("grad_norm", "tokens", "seconds", "taken_back"),
    }
    assert (row["cursor_from"], row["cursor_to"], row["taken_back"]) == (0, 2, False)
    assert is_unknown(views.history()[1]["loss"])
    assert [r["step"] for r in views.history(item=2)] == [4, 5, 6]
    assert [r["step"] for r in views.history(start=2, end=4)] == [2, 3, 4]
    assert nulls(views.history()) == []


# -- series ------------------------------------------------------------------------------------


def test_a_series_is_whole_when_it_fits_and_reduced_with_its_extremes_when_not(
    story: Story, views: Views
) -> None:
    story.item()
    story.begin()
    story.train(1000, losses={500: 9999.0, 700: -5.0})
    story.checkpoint()
    whole = views.series("loss", width=1000)
    assert (whole["first"], whole["last"], whole["total"]) == (1, 1000, 1000)
    assert whole["points"][499] == [500, 9999.0, 9999.0, 9999.0, 9999.0]
    small = views.series("loss", width=10)
    assert len(small["points"]) == 10
    assert small["total"] == 1000
    assert [p[0] for p in small["points"]] == list(range(100, 1001, 100))
    assert max(p[2] for p in small["points"]) == 9999.0
    first = small["points"][0]
    assert first[1:] == [0.0, 99.0, 49.5, 0.0]
    part = views.series("loss", width=5, start=101, end=200)
    assert (part["first"], part["last"], part["total"]) == (101, 200, 100)
    assert [p[0] for p in part["points"]] == [120, 140, 160, 180, 200]
    assert len(views.series("loss", width=1)["points"]) == 1


@pytest.mark.parametrize("width", [1, 2, 3, 7, 13, 99, 100, 101])
def test_a_series_never_has_more_points_than_asked_for(
    story: Story, views: Views, width: int
) -> None:
    story.item()
    story.begin()
    story.train(100)
    story.checkpoint()
    points = views.series("loss", width=width)["points"]
    assert len(points) <= width
    assert points[-1][0] == 100
    assert points[-1][4] == 0.0


def test_what_is_no_number_is_a_gap_in_the_series_and_survives_its_reduction(
    story: Story, views: Views
) -> None:
    story.item()
    story.begin()
    story.train(100, losses={50: NAN, 51: float("inf")})
    story.checkpoint()
    whole = views.series("loss", width=100)["points"]
    assert whole[49] == [50, None, None, None, None]
    assert whole[50] == [51, None, None, None, None]
    reduced = views.series("loss", width=10)["points"]
    assert [p[0] for p in reduced if p[3] is None] == [50, 60]
    assert reduced[4][1:3] == [51.0, 59.0]
    assert reduced[4][4] is None
    assert reduced[5][4] == 40.0


def test_a_bucket_across_two_runs_counts_both_shares(story: Story, views: Views) -> None:
    story.item()
    story.begin()
    story.train(5)
    story.checkpoint()
    story.train(2)
    story.begin()
    story.train(5, losses={6: 500.0})
    story.checkpoint()
    (point,) = views.series("loss", width=1)["points"]
    assert point[:3] == [10, 90.0, 500.0]
    assert point[3] == pytest.approx((99 + 98 + 97 + 96 + 95 + 500 + 93 + 92 + 91 + 90) / 10)
    assert views.series("loss", width=1)["total"] == 10


def test_validation_loss_counts_its_sets_by_their_tokens(story: Story, views: Views) -> None:
    story.item()
    story.begin()
    story.train(10)
    story.validate({"a": (1.0, 100), "b": (4.0, 200)})
    story.train(10)
    story.validate({"a": (2.0, 100), "b": (NAN, 200)})
    story.train(10)
    story.validate({"a": (0.5, 100)})
    story.checkpoint()
    points = views.series("val_loss")["points"]
    assert [(p[0], p[3], p[4]) for p in points] == [
        (10, 3.0, 3.0),
        (20, None, None),
        (30, 0.5, 0.5),
    ]


def test_every_metric_has_a_series(story: Story, views: Views) -> None:
    story.item()
    story.begin()
    story.train(4)
    story.checkpoint()
    expected = {
        "loss": 96.0,
        "learning_rate": 1e-3,
        "grad_norm": 1.0,
        "tokens_per_second": 200.0,
        "seconds": 0.5,
        "memory": 1000,
    }
    for metric, value in expected.items():
        assert views.series(metric)["points"][-1][4] == value, metric


def test_one_spike_among_a_million_steps_is_in_the_series(story: Story, views: Views) -> None:
    story.item()
    story.begin()
    assert story.run is not None
    db = open_metrics(story.home)
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO steps(run, branch, step, item, cursor_from, cursor_to, loss, learning_rate,"
        " grad_norm, tokens, seconds, memory, time) VALUES(1, 1, ?, 1, 0, 1, ?, 1, 1, 1, 1, 1, 1)",
        ((n, 5000.0 if n == 654_321 else 1.0) for n in range(1, 1_000_001)),
    )
    db.execute("COMMIT")
    db.close()
    story.step = 1_000_000
    story.checkpoint()
    found = views.series("loss", width=500)
    assert (len(found["points"]), found["total"]) == (500, 1_000_000)
    assert sum(p[2] == 5000.0 for p in found["points"]) == 1
    assert views.series("loss", width=500, start=999_990)["total"] == 11


# -- the queue ---------------------------------------------------------------------------------


def test_the_queue_is_in_the_order_of_training_with_the_ended_ones_last(
    story: Story, views: Views
) -> None:
    for name, priority in (
        ("n1", Priority.NORMAL),
        ("low", Priority.LOW),
        ("n2", Priority.NORMAL),
        ("high", Priority.HIGH),
        ("bad", Priority.NORMAL),
        ("n3", Priority.NORMAL),
    ):
        story.item(name, priority)
    transitions.skip(story.state, 5, "no")
    queue.move_first(story.state, 6)
    story.begin()
    story.claim()  # "high"
    queue.set_waiting(
        story.state,
        [{"path": "/x/w.jsonl", "name": "w", "priority": 1, "reason": "open", "since": 1.0}],
    )
    rows = views.queue()
    assert [r["name"] for r in rows] == ["high", "n3", "n1", "n2", "low", "w", "bad"]
    assert set(rows[0]) >= {
        *("id", "name", "state", "priority", "position", "lines", "rows", "epochs", "step"),
        *("steps", "cursor", "attempts", "error", "digest"),
    }
    assert rows[0]["attempts"][0]["n"] == 1
    assert is_unknown(rows[0]["attempts"][0]["ended"])
    assert (rows[0]["rows"], rows[0]["steps"]) == (100, 50)
    assert is_unknown(rows[1]["rows"])
    assert rows[5]["reason"] == "open"
    assert nulls(rows) == []
    for offset in range(8):
        for limit in range(1, 8):
            assert views.queue(limit=limit, offset=offset) == rows[offset : offset + limit]
    assert [r["name"] for r in views.queue("queued")] == ["n3", "n1", "n2", "low"]
    assert [r["name"] for r in views.queue("skipped")] == ["bad"]
    assert [r["name"] for r in views.queue("waiting")] == ["w"]


def test_a_page_of_a_long_queue_is_the_page_asked_for(story: Story, views: Views) -> None:
    story.item()
    with story.state.transaction() as db:
        columns = [r[1] for r in db.execute("PRAGMA table_info(items)") if r[1] != "id"]
        names = ", ".join(columns)
        for state, count in (("queued", 50_000), ("done", 50_000)):
            values = names.replace("state", f"'{state}'").replace("position", "n + 1.0")
            db.execute(
                f"INSERT INTO items({names}) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT"
                f" n + 1 FROM c WHERE n < {count}) SELECT {values} FROM items, c WHERE id = 1"
            )
    views.queue(limit=100)
    assert len(views.queue(limit=100)) == 100
    assert views.queue(limit=10, offset=60_000)[0]["state"] == "done"


def test_an_item_that_is_not_there_is_named(views: Views) -> None:
    with pytest.raises(NotFound, match="no item 7"):
        views.item(7)


# -- status ------------------------------------------------------------------------------------

STATUS = {
    *("state", "branch", "global_step", "loss", "val_loss", "learning_rate", "tokens_per_second"),
    *("eta_seconds", "item", "queue", "head", "model", "gpus", "ram", "disk", "engine", "hint"),
}


def test_the_status_without_an_engine_says_stopped_and_why_it_does_not_know(
    story: Story, views: Views
) -> None:
    empty = views.status()
    assert set(empty) >= STATUS
    assert (empty["state"], empty["engine"], empty["global_step"]) == ("stopped", None, 0)
    assert sorted(nulls(empty)) == [".engine", ".item"]
    story.item()
    story.claim()
    story.begin()
    story.train(5)
    point = story.checkpoint()
    story.version(point, "v001")
    story.train(2)
    status = views.status()
    assert (status["global_step"], status["loss"], status["branch"]) == (5, 95.0, 1)
    assert status["head"] == {"checkpoint": point.name, "version": "v001"}
    assert status["item"]["name"] == "a.jsonl"
    assert (status["item"]["cursor"], status["item"]["step"]) == (10, 5)
    assert status["disk"]["snapshots_left"] > 0
    assert nulls(status) == [".engine"]


def test_an_engine_that_holds_the_home_and_is_silent_is_starting(views: Views) -> None:
    with EngineLock.acquire(views.home, "daemon"):
        status = views.status()
    assert status["state"] == "starting"
    assert status["engine"]["mode"] == "daemon"
    assert status["gpus"] == {"unknown": "the engine does not answer yet"}
