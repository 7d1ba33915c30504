"""The hint that an evaluation host stands idle: when it speaks, and which key it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.hints.hosts import IDLE_SECONDS, Idle, Unasked, host_idle, idle
from engine.hints.watch import Watch
from queue_store import jobs
from queue_store.database import now
from queue_store.results import Result, Results, SetItem
from snapshots import versions
from tests.store_world import World
from tests.test_evaluate import write_set

LONG = [Idle("titan", 0.0)]
HALF = IDLE_SECONDS


def test_it_takes_half_an_hour_and_something_to_ask() -> None:
    asked = Unasked(versions=("v002", "v003"), steps=40, why="evaluation.versions is false")
    found = host_idle(LONG, asked, HALF)
    assert found is not None and found.advice == "evaluation.versions is false"
    assert "titan is idle for 30 min" in found.text and "v003 and 1 before it" in found.text
    assert found.figures == {"idle_seconds": 1800, "versions": 2, "steps": 40, "host": "titan"}
    assert host_idle(LONG, asked, HALF - 1) is None
    assert host_idle([], asked, HALF) is None
    assert host_idle(LONG, Unasked(), HALF) is None


def test_steps_without_an_evaluation_raise_it_and_fewer_keep_it() -> None:
    for steps, held, speaks in ((1000, False, True), (999, False, False), (500, True, True)):
        assert (host_idle(LONG, Unasked(steps=steps), HALF, held) is not None) is speaks
    assert host_idle(LONG, Unasked(steps=499), HALF, True) is None


def test_only_hosts_that_are_reached_and_idle_count() -> None:
    host = {"name": "titan", "state": "idle", "idle_since": 5.0}
    unknown = {"unknown": "it is busy"}
    assert idle([host]) == [Idle("titan", 5.0)]
    for other in (
        {"state": "busy", "idle_since": unknown},
        {"name": "local"},
        {"idle_since": unknown},
    ):
        assert idle([{**host, **other}]) == []
    assert idle({"unknown": "no engine is running"}) == []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A home with a host, and v001 of step 10."""
    world = World(tmp_path / "home")
    write_set(world.home, "sums", "1 + 1?")
    world.home.config.write_text('[hosts.titan]\nssh = "titan"\n')
    world.train(world.add())
    versions.create(world.state)
    yield world
    world.close()


def look(world: World, since: float) -> list[tuple[str, str]]:
    host = {"name": "titan", "state": "idle", "idle_since": since}
    status = {"state": "idle", "global_step": world.step, "hosts": [host]}
    found = Watch(world.home).look(world.state, status)
    return [(hint.text, hint.advice) for hint in found if hint.rule == "host_idle"]


def test_the_key_that_explains_it_is_named(world: World) -> None:
    long = now() - HALF - 60
    assert look(world, now()) == []
    ((text, advice),) = look(world, long)
    assert "titan is idle for 31 min, and v001 was never asked" in text
    assert advice == "trainctl evaluate v001 --queue asks it now"
    settings = world.home.config.read_text()
    world.home.config.write_text(settings + "[evaluation]\nversions = false\n")
    assert look(world, long)[0][1].startswith("evaluation.versions is false")
    world.home.config.write_text("[[broken")
    assert look(world, long) == []
    world.home.config.write_text(settings)
    (world.home.evaluation / "sums.jsonl").unlink()
    assert look(world, long)[0][1].startswith("put an evaluation set into")
    write_set(world.home, "sums", "1 + 1?")


def test_what_is_about_to_be_asked_or_was_says_nothing(world: World) -> None:
    state, long = world.state, now() - HALF - 60
    digest = versions.get(state, "v001").weights_digest

    def order(host: str = "") -> jobs.Job:
        return jobs.add(
            state,
            model="v001",
            digest=digest,
            step=10,
            branch=1,
            sets=["sums"],
            reason=jobs.Reason.VERSION,
            host=host,
        )

    job = order()
    assert look(world, long) == []
    jobs.fail(state, job.id, "no scorer\x1b[2J")
    assert look(world, long)[0][1].startswith("its job is failed: no scorer")
    assert "\x1b" not in look(world, long)[0][1]
    with Results(world.home) as results:
        items = [SetItem("1", 0, [], "2")]
        results.put(results.begin(digest, "0" * 64, "sums", items, {}), [Result("1", "2")])
    assert look(world, long) == []
    order("nas")
    assert "waits for host nas" in look(world, long)[0][0]


def test_it_stands_while_it_is_true_and_keeps_since_when(world: World) -> None:
    watch, long = Watch(world.home), now() - HALF - 60
    host = {"name": "titan", "state": "idle", "idle_since": long}
    status = {"state": "idle", "global_step": 10, "hosts": [host]}
    (first,) = watch.look(world.state, status)
    (again,) = watch.look(world.state, status)
    assert (again.rule, again.since_time) == ("host_idle", first.since_time)
    busy = {**host, "state": "busy", "idle_since": {"unknown": "it is busy"}}
    assert watch.look(world.state, {**status, "hosts": [busy]}) == ()
