"""The watch on a real store: which steps count, what stands over the looks, what is told."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.hints import tail
from engine.hints.watch import Watch
from engine.lines import segments
from engine.reading.views import Views
from queue_store import queue, records, transitions
from queue_store.database import open_metrics
from queue_store.failures import Cause
from queue_store.home import Home
from tests.engine_kit import Running, add, make_home
from tests.story import Story
from tests.waiting import wait_until
from trainctl.commands.status import plain


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def story(home: Home) -> Iterator[Story]:
    story = Story(home)
    yield story
    story.close()


def status(story: Story, state: str = "training", **more: Any) -> dict[str, Any]:
    return {
        "state": state,
        "global_step": story.step,
        "item": {"name": "a.jsonl"},
        "queue": queue.waiting_by_priority(story.state),
        "eta_seconds": 60.0,
        "gpus": [],
        **more,
    }


def rules(watch: Watch, story: Story, **more: Any) -> list[str]:
    return sorted(hint.rule for hint in watch.look(story.state, status(story, **more)))


def usual(first: int, count: int, level: float = 0.5) -> dict[int, float]:
    draw = random.Random(first)
    return {step: level + draw.gauss(0, 0.03) for step in range(first, first + count)}


def test_a_spike_is_found_once_and_its_hint_keeps_since_when(story: Story) -> None:
    story.item()
    story.item("b.jsonl")
    story.claim()
    story.begin()
    story.train(120, losses=usual(1, 120) | {110: 5.0, 115: float("nan")})
    watch = Watch(story.home)
    (hint,) = watch.look(story.state, status(story))
    assert hint.rule == "spike" and "step 110" in hint.text and "a.jsonl" in hint.text
    story.train(20, losses=usual(121, 20))
    (later,) = watch.look(story.state, status(story))
    assert (later.since_time, later.since_step) == (hint.since_time, 110)
    assert rules(watch, story, state="preparing") == ["spike"], "between two items it stands"
    assert rules(watch, story, state="idle") == []


def test_a_line_that_was_left_takes_its_hints_along(story: Story) -> None:
    story.item()
    story.item("b.jsonl")
    story.claim()
    story.begin()
    story.train(60, losses=usual(1, 60))
    at_60 = story.checkpoint()
    story.train(40, losses=usual(61, 40) | {70: 5.0})
    watch = Watch(story.home)
    assert rules(watch, story) == ["spike"]
    story.roll_back(at_60)
    story.begin()
    story.train(15, losses=usual(61, 15))  # beyond the step of the spike that was left
    assert rules(watch, story) == []


def test_only_the_tail_of_the_line_is_read(story: Story) -> None:
    story.item()
    story.begin()
    story.train(30, losses={**usual(1, 30), 30: float("nan")})
    story.checkpoint()
    story.validate({"fixed": (0.7, 10)})
    story.begin()
    story.train(3, losses=usual(31, 3))
    story.validate({"fixed": (0.6, 10), "split": (9.0, 10)})
    line = segments(records.line(story.state, live=True))
    with closing(open_metrics(story.home)) as db:
        assert tail.newest_step(db, line)[1] == 33
        assert [one.step for one in tail.steps(db, line, 5)] == [28, 29, 31, 32, 33]
        found = tail.ticks(db, line)
    assert [(one.step, one.val) for one in found] == [(30, 0.7), (33, 0.6)]
    assert found[1].train == pytest.approx(0.5, abs=0.1) and found[1].item == 1


def test_queue_inbox_and_failures_come_and_go_with_what_they_speak_of(story: Story) -> None:
    item = story.item()
    story.claim()
    watch = Watch(story.home)
    assert rules(watch, story) == ["queue_nearly_empty"]
    story.item("b.jsonl")
    assert rules(watch, story) == []
    transitions.fail(story.state, item.id, Cause.DATA, "line 3: no answer", 3)
    (hint,) = watch.look(story.state, status(story))
    assert hint.rule == "item_fails" and hint.text == "a.jsonl: data: line 3: no answer"
    transitions.retry(story.state, item.id)
    assert rules(watch, story) == []
    waits = {"path": "/i/x", "name": "x", "priority": 1, "reason": "open", "since": 0.0}
    queue.set_waiting(story.state, [waits])
    assert rules(watch, story) == ["file_waits"]
    queue.set_waiting(story.state, [])
    assert rules(watch, story) == []


def test_a_failure_for_want_of_memory_tells_what_its_steps_took(story: Story) -> None:
    item = story.item()
    story.claim()
    story.begin()
    story.train(3)
    transitions.fail(story.state, item.id, Cause.CUDA_MEMORY, "no room", 1)
    (hint,) = Watch(story.home).look(story.state, status(story, state="preparing"))
    assert hint.rule == "item_fails" and hint.figures["peak_bytes"] == 1000


def test_without_an_engine_the_status_tells_what_a_person_can_mend(story: Story) -> None:
    item = story.item()
    story.claim()
    transitions.fail(story.state, item.id, Cause.NOT_A_NUMBER, "loss is nan at step 3", 3)
    with story.state.transaction():
        story.state.meta_set("paused", True)
    with Views(story.home) as views:
        told = views.status()
    assert told["hint"] == "a.jsonl: not a number: loss is nan at step 3"
    assert [hint["rule"] for hint in told["hints"]] == ["item_fails", "paused"]
    page = plain(told)
    assert "loss is nan at step 3" in page and "lower training.learning_rate" in page
    assert "paused: nothing trains" in page and "trainctl resume" in page


def test_a_running_engine_tells_its_hints_and_since_when(home: Home) -> None:
    add(home, "a.jsonl", rows=400)
    with Running(home) as running:
        running.pause_at(3)
        told = running.status
        assert told["hints"][-1]["rule"] == "paused"
        assert told["hints"][-1]["figures"] == {"step": 3}
        assert told["hint"] == told["hints"][0]["text"]
        running.ask("resume")
        wait_until(
            lambda: [hint["rule"] for hint in running.status["hints"]] == ["queue_nearly_empty"],
            timeout=240,
            what="the last item ends soon",
        )
