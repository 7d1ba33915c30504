"""What faces read of checkpoints, versions, rollback plans, samples and events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.messages import is_unknown
from engine.reading import comparing
from engine.reading.views import Views
from queue_store import queue
from queue_store.errors import NotFound, Refused
from queue_store.home import Home
from queue_store.items import ItemState
from queue_store.lock import EngineLock
from queue_store.metrics import Example
from snapshots import rollback
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


# -- checkpoints, versions, plans --------------------------------------------------------------


def test_checkpoints_and_versions_have_the_promised_fields(story: Story, views: Views) -> None:
    story.item()
    story.claim()
    story.begin()
    story.train(5)
    point = story.checkpoint()
    story.version(point, "v001")
    base, saved = views.checkpoints()
    assert set(saved) >= {
        *("id", "name", "branch", "step", "item", "cursor", "created", "size_bytes", "loss"),
        *("val_loss", "complete"),
    }
    assert (base["complete"], saved["complete"]) == (True, True)
    (story.home.checkpoints / point.name).rmdir()
    assert views.checkpoints()[1]["complete"] is False
    (found,) = views.versions()
    assert set(found) >= {
        *("name", "branch", "step", "created", "description", "size_bytes", "verified_at"),
        *("kind", "pinned", "tags", "kept_because", "loss", "val_loss", "scores"),
        "weights_digest",
    }
    assert {"head", "latest 2 verified"} <= set(found["kept_because"])
    assert nulls([base, saved, found]) == []


def forked(story: Story) -> None:
    """v001 at step 20, v002 at 40 on the line left behind, the head at 30 on the other."""
    story.item()
    story.claim()
    story.begin()
    names = ("e0", "e1", "e2", "e3")
    story.metrics.set_examples(
        [Example(e, "syllo", n, f"prompt {n}", "x", "syllo", 1) for n, e in enumerate(names)]
    )
    story.train(20)
    first = story.checkpoint()
    story.sample(dict(zip(names, (True, True, False, False), strict=True)))
    story.version(first, "v001")
    story.train(20)
    story.sample(dict(zip(names, (True, False, True, False), strict=True)))
    story.version(story.checkpoint(), "v002")
    story.roll_back(first)
    story.begin()
    story.train(10)
    story.checkpoint()


def test_a_version_has_the_samples_of_its_own_line(story: Story, views: Views) -> None:
    forked(story)
    one, two = views.versions()
    assert one["samples"] == {"step": 20, "exact": 2, "total": 4}
    assert two["samples"] == {"step": 40, "exact": 2, "total": 4}
    story.sample({"e0": True, "e1": True, "e2": True, "e3": True})
    assert views.versions()[1]["samples"]["step"] == 40, "not those of another branch"
    plan = views.rollback_plan("v001")
    assert plan["samples"] == {"step": 20, "exact": 2, "total": 4}
    assert plan["now"]["samples"] == {"step": 30, "exact": 4, "total": 4}


def test_two_versions_are_compared_by_their_samples(story: Story, views: Views) -> None:
    forked(story)
    found = comparing.answer(views, "v001", "v002")
    assert found["fork"]["step"] == 20 and found["steps"] == {"a": 0, "b": 20}
    samples = found["samples"]
    assert (samples["both"], samples["none"]) == (1, 1)
    assert [one["example"] for one in samples["gained"]] == ["e2"]
    assert samples["lost"] == [
        {"example": "e1", "set": "syllo", "position": 1, "prompt": "prompt 1"}
    ]
    with pytest.raises(NotFound):
        comparing.answer(views, "v001", "v099")


def test_a_version_is_compared_with_the_present_state(
    story: Story, views: Views, home: Home
) -> None:
    with EngineLock.acquire(home, "daemon"):
        forked(story)
        story.train(5)  # beyond the head, as a running engine is
        found = comparing.answer(views, "v002", None)
        b = found["b"]
        assert (b["name"], b["step"], b["loss"]) == ("head", 35, 65.0)
        assert found["fork"]["step"] == 20 and found["steps"] == {"a": 20, "b": 15}
        assert found["samples"]["b"]["step"] == 20, "the tick before the fork"
        assert [one["example"] for one in found["samples"]["lost"]] == ["e2"]
        assert nulls(found) == []
        # On disk the two are the same bytes, and what trains is not on disk.
        assert "newest checkpoint is of step 30" in found["same_weights"]["unknown"]
        assert "unknown" in found["files"]
    saved = comparing.answer(views, "v002", None)
    assert saved["b"]["step"] == 30 and isinstance(saved["same_weights"], bool), "as it was saved"


def test_without_samples_the_comparison_says_why(story: Story, views: Views) -> None:
    story.item()
    story.claim()
    story.begin()
    story.train(5)
    story.version(story.checkpoint(), "v001")
    assert views.versions()[0]["samples"] == {"unknown": "no sample tick before it"}
    assert "unknown" in comparing.answer(views, "v001", None)["samples"]


def test_a_rollback_plan_tells_what_is_lost_and_goes_stale(story: Story, views: Views) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        story.item(name)
    with pytest.raises(Refused, match="nothing has trained"):
        views.rollback_plan()
    story.claim()
    story.begin()
    story.train(5)
    first = story.checkpoint()
    story.version(first, "v001")
    story.train(5)
    story.version(story.checkpoint(), "v002", state="unverified")
    story.train(10)
    story.done(1)
    story.claim()
    story.train(2, item=2)
    story.sample({"e1": True})
    story.checkpoint(item=2)
    plan = views.rollback_plan()
    assert (plan["version"], plan["step"], plan["steps_lost"]) == ("v001", 5, 17)
    assert plan["hours_lost"] == pytest.approx(17 * 0.5 / 3600, abs=1e-3)
    assert plan["samples_lost"] == 1
    assert plan["now"]["step"] == 22
    assert [(i["name"], i["becomes"]) for i in plan["items"]] == [
        ("a.jsonl", "paused at row 10"),
        ("b.jsonl", "skipped (rolled back)"),
    ]
    assert nulls(plan) == []
    made = rollback.plan(story.state, "v001")
    assert made.token == plan["plan"]
    rollback.check(story.state, made)
    story.roll_back(first)
    assert views.rollback_plan("v001")["plan"] != plan["plan"]
    with pytest.raises(NotFound, match="v009"):
        views.rollback_plan("v009")


def test_a_rollback_plan_counts_what_a_running_engine_has_trained_since_its_checkpoint(
    story: Story, views: Views
) -> None:
    with EngineLock.acquire(story.home, "daemon"):
        for name in ("a.jsonl", "b.jsonl"):
            story.item(name)
        story.claim()
        story.begin()
        story.train(5)
        story.version(story.checkpoint(), "v001")
        story.train(5)
        story.done(1)
        story.claim()
        story.train(3, item=2)
        plan = views.rollback_plan()
    assert (plan["now"]["step"], plan["steps_lost"]) == (13, 8)
    assert [(i["name"], i["state"]) for i in plan["items"]] == [
        ("a.jsonl", "trained"),
        ("b.jsonl", "training"),
    ]
    with pytest.raises(NotFound, match="no verified version"):
        views.rollback_plan()


def test_the_plan_comes_true(story: Story, views: Views) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        story.item(name)
    story.claim()
    story.begin()
    story.train(5)
    point = story.checkpoint()
    story.version(point, "v001")
    story.train(5)
    story.done(1)
    story.claim()
    story.train(2, item=2)
    story.checkpoint(item=2)
    views.rollback_plan("v001")
    story.roll_back(point)
    a, b = queue.get(story.state, 1), queue.get(story.state, 2)
    assert (a.state, a.cursor) == (ItemState.PAUSED, 10)
    assert (b.state, b.reason) == (ItemState.SKIPPED, "rolled back")


def test_without_a_name_a_rollback_stays_on_the_heads_line(story: Story, views: Views) -> None:
    story.item()
    story.claim()
    story.begin()
    story.train(5)
    first = story.checkpoint()
    story.version(first, "v001")
    story.train(5)
    story.version(story.checkpoint(), "v002")
    story.roll_back(first)
    story.begin()
    story.train(20)
    story.checkpoint()
    assert views.rollback_plan()["version"] == "v001"
    assert [p[0] for p in views.series("loss", version="v002")["points"]] == list(range(1, 11))


# -- samples, events ---------------------------------------------------------------------------


def test_samples_are_those_of_the_present_line(story: Story, views: Views) -> None:
    examples = [Example(f"e{n}", "syllo", n, f"prompt {n}", "gold", "syllo", n) for n in (1, 2)]
    story.metrics.set_examples(examples)
    story.item()
    story.claim()
    story.begin()
    assert is_unknown(views.samples()["step"])
    story.train(5)
    story.sample({"e1": False, "e2": True})
    story.checkpoint()
    story.train(5)
    story.sample({"e1": True, "e2": True})
    story.begin()
    found = views.samples()
    assert (found["step"], found["exact"], found["total"]) == (5, 1, 2)
    assert [s["example"] for s in found["samples"]] == ["e1", "e2"]
    assert found["samples"][0]["expected"] == "gold"
    story.train(10)
    story.sample({"e1": True, "e2": True})
    story.checkpoint()
    assert views.samples()["step"] == 15
    assert views.samples(step=14)["step"] == 5
    assert views.samples()["steps"] == [5, 15]
    past = views.samples(example="e1")
    assert [(s["step"], s["exact"]) for s in past["samples"]] == [(5, False), (15, True)]
    with pytest.raises(NotFound, match="no example 'e9'"):
        views.samples(example="e9")
    assert nulls(found) == []


def test_events_come_after_a_number_and_of_chosen_kinds(story: Story, views: Views) -> None:
    story.item("a.jsonl")
    story.item("b.jsonl")
    story.begin()
    found = views.events()
    assert [e["kind"] for e in found["events"]] == ["item.queued", "item.queued", "start"]
    assert found["last"] == 3
    assert [e["seq"] for e in views.events(after=1, limit=1)["events"]] == [2]
    assert [e["item"] for e in views.events(kinds=["item.queued"])["events"]] == [1, 2]
    assert [e["seq"] for e in views.latest_events(2)["events"]] == [2, 3]
    assert nulls(found) == []
