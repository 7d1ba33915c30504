"""The table of evaluation jobs, and which jobs the store asks for: no engine, no process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.judging import wanted
from queue_store import config, jobs, journal, records
from queue_store.config import Config, Host
from queue_store.database import State, now, open_state
from queue_store.errors import NotFound, Refused
from queue_store.items import Priority
from queue_store.jobs import Job, JobState, Reason
from snapshots import labels, retention, upkeep, versions
from snapshots.retention import Rules
from tests.store_world import World
from tests.test_evaluate import write_set


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "home")
    write_set(world.home, "sums", "1 + 1?", "2 + 2?")
    yield world
    world.close()


@pytest.fixture
def state(world: World) -> State:
    return world.state


def settings(hosts: bool = True, **evaluation: object) -> Config:
    """The defaults, with one host, and [evaluation] as given."""
    made = config.default()
    rules = msgspec.structs.replace(made.evaluation, **evaluation)
    named = {"titan": Host(ssh="titan")} if hosts else {}
    return msgspec.structs.replace(made, evaluation=rules, hosts=named)


ONLY = {"after_item": False, "checkpoint_steps": 0, "versions": False, "baseline": False}


def add(state: State, model: str, reason: Reason = Reason.CHECKPOINT, **more: object) -> Job:
    values = {"digest": f"{hash(model) & 0xFFFF:064x}", "step": 1, "branch": 1, "sets": ["sums"]}
    return jobs.add(state, model=model, reason=reason, **{**values, **more})  # type: ignore[arg-type]


def states(state: State) -> dict[str, str]:
    found = [*jobs.unfinished(state), *jobs.ended(state, 100)]
    return {job.model: str(job.state) for job in found}


def kinds(state: State, job: Job) -> list[str]:
    events = journal.events(state, 0, 5000)
    return [e.kind.split(".")[1] for e in events if e.data.get("job") == job.id]


# -- the table ---------------------------------------------------------------------------------


def test_every_move_is_an_event_and_what_has_ended_moves_no_more(state: State) -> None:
    job = add(state, "a")
    claimed = jobs.claim(state, job.id, "titan")
    assert (claimed.state, claimed.host, claimed.tries) == (JobState.SHIPPING, "titan", 1)
    jobs.running(state, job.id, 10, 0)
    again = jobs.again(state, job.id, "the link broke", after=4, failures=1, answered=3)
    assert (again.state, again.error, again.answered) == (JobState.WAITING, "the link broke", 3)
    assert again.next_try > now() + 3 and again.started == claimed.started
    jobs.claim(state, job.id, "titan")
    done = jobs.done(state, job.id, 10, 9, 1)
    assert (done.error, done.tries, done.errors) == ("", 2, 1) and done.ended
    assert kinds(state, job) == ["waiting", "shipping", "running", "waiting", "shipping", "done"]
    before = journal.last_seq(state)
    for act in (
        lambda: jobs.cancel(state, job.id),
        lambda: jobs.claim(state, job.id, "titan"),
        lambda: jobs.again(state, job.id, "no"),
        lambda: jobs.fail(state, job.id, "no"),
    ):
        with pytest.raises(Refused, match="is done"):
            act()
    assert journal.last_seq(state) == before and jobs.get(state, job.id) == done
    with pytest.raises(NotFound):
        jobs.cancel(state, 99)


def test_turns_are_by_priority_and_then_by_age(state: State) -> None:
    add(state, "low", Reason.DEMAND, priority=Priority.LOW)
    add(state, "first", Reason.DEMAND)
    add(state, "second", Reason.DEMAND)
    add(state, "high", Reason.DEMAND, priority=Priority.HIGH)
    order = [job.model for job in jobs.unfinished(state)]
    assert order == ["high", "first", "second", "low"]


def test_the_newest_wins_but_not_over_what_is_pinned_asked_for_or_running(world: World) -> None:
    state = world.state
    world.train(world.add())
    pinned = versions.create(state, pinned=True, verified=False).name
    free = versions.create(state, verified=False).name
    runs = add(state, "runs")
    jobs.claim(state, runs.id, "titan")
    add(state, "item", Reason.ITEM)
    add(state, "demand", Reason.DEMAND)
    add(state, "base", Reason.BASELINE)
    add(state, pinned, Reason.VERSION)
    add(state, "newer")
    assert states(state)["item"] == "superseded"
    add(state, free, Reason.VERSION)
    add(state, "newest")
    assert states(state) == {
        **{"runs": "shipping", "item": "superseded", "newer": "superseded", "newest": "waiting"},
        **{"demand": "waiting", "base": "waiting", pinned: "waiting", free: "waiting"},
    }
    # A version waits for no checkpoint, but gives way to a newer version.
    add(state, "v999", Reason.VERSION)
    assert states(state)[free] == "superseded" and states(state)[pinned] == "waiting"
    (gone,) = [job for job in jobs.ended(state, 9) if job.model == free]
    assert gone.error == "v999 is newer"


def test_the_same_question_is_one_job_and_the_higher_priority_counts(state: State) -> None:
    first = add(state, "a", priority=Priority.LOW)
    same = add(state, "a", Reason.DEMAND, priority=Priority.HIGH)
    assert same.id == first.id
    assert (same.priority, same.reason) == (Priority.HIGH, Reason.DEMAND)
    weaker = add(state, "a")
    assert (weaker.priority, weaker.reason) == (Priority.HIGH, Reason.DEMAND)
    assert add(state, "a", sets=["sums", "more"]).id != first.id
    assert add(state, "a", Reason.DEMAND, host="titan").id != first.id
    jobs.cancel(state, first.id)
    assert add(state, "a").id != first.id, "what has ended is asked anew"


def test_deadlines_end_what_waits_and_say_what_was_in_the_way(state: State) -> None:
    job = add(state, "a", deadline=now() - 1)
    later = add(state, "b", Reason.DEMAND, deadline=now() + 100)
    jobs.postpone(state, job.id, "no host is reached", 5)
    (late,) = jobs.expire(state)
    assert late.id == job.id and late.state is JobState.FAILED
    assert late.error.endswith("last: no host is reached")
    assert jobs.get(state, later.id).state is JobState.WAITING


def test_what_no_process_holds_waits_again(state: State) -> None:
    held, lost = add(state, "a"), add(state, "b", Reason.DEMAND)
    for job in (held, lost):
        jobs.claim(state, job.id, "titan")
    assert [job.id for job in jobs.recover(state, {held.id})] == [lost.id]
    assert states(state) == {"a": "shipping", "b": "waiting"}


# -- what keeps a model ------------------------------------------------------------------------


def test_no_rule_takes_the_model_of_an_open_job(world: World) -> None:
    state = world.state
    for step in range(1, 7):
        world.step = step
        world.save()
        versions.create(state)
    rules = Rules(last=1, daily=0, weekly=0, best=0, branch_days=0)
    names = [c.name for c in records.checkpoints(state) if c.kind != "base"]
    job = add(state, "v001", Reason.DEMAND)
    other = add(state, names[0], Reason.DEMAND)
    assert retention.kept_because(state, rules)["v001"] == ["an evaluation job needs it"]
    removed = [c.name for c in upkeep.prune_checkpoints(state, keep=1)]
    assert names[0] not in removed and names[1] in removed
    retention.prune(state, rules)
    assert "v001" in [v.name for v in versions.versions(state)]
    for one in (job, other):
        jobs.cancel(state, one.id)
    assert not retention.kept_because(state, rules)["v001"]
    assert [c.name for c in upkeep.prune_checkpoints(state, keep=1)] == [names[0]]


# -- which jobs are made -----------------------------------------------------------------------


def made(state: State, of: Config) -> list[tuple[str, str]]:
    return [(str(job.reason), job.model) for job in wanted.look(state, of)]


def test_a_finished_item_asks_for_the_checkpoint_that_has_it_once(world: World) -> None:
    of = settings(**{**ONLY, "after_item": True})
    assert made(world.state, of) == []
    first = world.train(world.add("a.jsonl"))
    assert made(world.state, of) == [("item", first.name)]
    assert made(world.state, of) == []
    world.train(world.add("b.jsonl"))
    last = world.train(world.add("c.jsonl"))
    assert made(world.state, of) == [("item", last.name)]
    assert states(world.state) == {first.name: "superseded", last.name: "waiting"}
    (job,) = jobs.unfinished(world.state)
    assert job.digest == last.weights_digest and job.sets == ("sums",)
    assert job.deadline is not None and 0 < job.deadline - now() <= 60 * 1440


def test_every_so_many_steps_where_there_is_a_host(world: World) -> None:
    of = settings(**{**ONLY, "checkpoint_steps": 10})
    here = settings(hosts=False, **{**ONLY, "checkpoint_steps": 10})
    item, seen = world.add(), []
    for cursor in (4, 9):
        world.train(item, cursor)
        seen += made(world.state, of)
    assert seen == []
    assert made(world.state, of) == []
    at = world.train(item, 10)
    assert made(world.state, of) == [("checkpoint", at.name)]
    assert jobs.unfinished(world.state)[0].priority is Priority.LOW
    world.train(world.add("b.jsonl"))
    assert made(world.state, here) == [], "a laptop is not asked for every checkpoint"
    world.train(world.add("c.jsonl"))
    assert made(world.state, settings(**ONLY)) == []


def test_a_version_is_asked_once_it_is_verified(world: World) -> None:
    of = settings(**{**ONLY, "versions": True})
    for name in ("a.jsonl", "b.jsonl"):
        world.train(world.add(name))
        versions.create(world.state, verified=False)
    assert made(world.state, of) == []
    versions.verify(world.state, "v002")
    assert made(world.state, of) == [], "in their order"
    versions.verify(world.state, "v001")
    assert made(world.state, of) == [("version", "v001"), ("version", "v002")]
    assert states(world.state) == {"v001": "superseded", "v002": "waiting"}
    labels.pin(world.state, "v002", True)
    world.train(world.add("c.jsonl"))
    versions.create(world.state)
    assert made(world.state, of) == [("version", "v003")]
    assert states(world.state)["v002"] == "waiting"


def test_the_base_is_asked_once_and_again_where_the_sets_change(world: World) -> None:
    of = settings(**{**ONLY, "baseline": True})
    assert made(world.state, of) == [("baseline", "base")]
    assert made(world.state, of) == []
    write_set(world.home, "more", "3 + 3?")
    (again,) = wanted.look(world.state, of)
    assert again.sets == ("more", "sums")


def test_nothing_is_asked_without_a_set_or_a_place(world: World) -> None:
    everything = settings(checkpoint_steps=1)
    world.train(world.add())
    versions.create(world.state)
    nowhere = settings(hosts=False, local="")
    assert made(world.state, nowhere) == []
    for path in world.home.evaluation.glob("*.jsonl"):
        path.unlink()
    world.train(world.add("b.jsonl"))
    assert made(world.state, everything) == []
    with pytest.raises(NotFound, match="no evaluation set"):
        wanted.order(world.state, everything, "v001")


def test_what_a_home_held_before_it_had_jobs_asks_for_none(world: World) -> None:
    world.train(world.add())
    versions.create(world.state)
    db = world.state.db
    db.execute("DROP TABLE jobs"), db.execute("DELETE FROM meta WHERE key = 'jobs.marks'")
    db.execute("PRAGMA user_version = 3")
    home = world.home
    world.close()
    world.state = open_state(home)
    of = settings(checkpoint_steps=1)
    assert made(world.state, of) == [("baseline", "base")]
    at = world.train(world.add("b.jsonl"))
    assert made(world.state, of) == [("item", at.name)]


def test_an_order_says_what_is_wrong_with_it(world: World) -> None:
    state = world.state
    world.train(world.add())
    versions.create(state)
    for words, says in (
        ({"model": "v009"}, "no model v009"),
        ({"model": "v001", "sets": ["sum"]}, "no evaluation set 'sum'"),
        ({"model": "v001", "host": "nas"}, "no host nas"),
    ):
        with pytest.raises(NotFound, match=says):
            wanted.order(state, settings(), **words)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="nowhere to evaluate"):
        wanted.order(state, settings(hosts=False, local=""), "v001")
    job = wanted.order(state, settings(), "v001", host="titan")
    assert (job.wanted, job.priority, job.reason) == ("titan", Priority.HIGH, Reason.DEMAND)
    assert json.loads(json.dumps(dataclasses.asdict(job)))["model"] == "v001"


def test_a_checkpoint_that_becomes_a_version_is_that_versions_job(world: World) -> None:
    of = settings(**{**ONLY, "after_item": True, "versions": True})
    at = world.train(world.add())
    assert made(world.state, of) == [("item", at.name)]
    versions.create(world.state, pinned=True)
    assert made(world.state, of) == [("version", "v001")]
    later = world.train(world.add("b.jsonl"))
    assert made(world.state, of) == [("item", later.name)]
    assert states(world.state) == {"v001": "waiting", later.name: "waiting"}
