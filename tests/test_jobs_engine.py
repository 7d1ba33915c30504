"""Evaluation jobs of a real engine: made, run beside training by real processes, and ended.

Some have the real worker with the real model, at the lowest priority on this machine; the others
the worker of stub_worker.py behind a real sshd, which can die, hang and be busy.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.judging import verdicts, wanted
from evaluation.host.session import Session
from queue_store import config, jobs
from queue_store.database import now, open_state
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.jobs import JobState
from queue_store.results import Results
from snapshots import versions
from tests import engine_kit as kit
from tests.engine_process import EngineProcess
from tests.jobs_kit import (
    CHILD,
    HANGS,
    ITEMS,
    Engine,
    Set,
    all_ended,
    children,
    listed,
    make,
    one,
    told,
    wait_for,
)
from tests.sshd_kit import Host, make_host, needs_sshd
from tests.store_world import World
from tests.test_evaluate import write_set
from tests.waiting import wait_until
from trainctl.commands.status import plain


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with v001, that has trained and asks for no job by itself; for all tests that
    bring a host and a set of their own."""
    home = make(tmp_path_factory.mktemp("jobs") / "home")
    kit.add(home, "a.jsonl", rows=4)
    with Engine(home) as engine:
        engine.wait_trained()
        engine.tell("snapshot_version")
        yield engine


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = make_host(tmp_path_factory.mktemp("sshd"), "titan")
    host.start()
    yield host
    host.stop()


@pytest.fixture
def own(running: Engine, sshd: Host, tmp_path: Path) -> Iterator[Set]:
    before = running.home.config.read_text()
    yield Set(running.home, tmp_path.name.replace("_", "-")[-40:], sshd, tmp_path)
    running.home.config.write_text(before)


# -- one engine, hosts with a worker that dies, hangs and is busy when a test wants it -----------


@needs_sshd[0]
@needs_sshd[1]
def test_a_worker_that_is_killed_is_tried_again_and_only_what_is_missing_is_asked(
    running: Engine, own: Set
) -> None:
    # Three sessions of the first try, and the second try.
    killed = [{"after": 2, "act": "killed"}, *[{"after": 0, "act": "killed"}] * 3]
    stub = own.host("sturdy", *killed)
    made = running.tell("evaluate", model="v001", sets=[own.name])
    assert (made["state"], made["reason"], made["priority"]) == ("waiting", "demand", "high")
    job = wait_for(own.home, made["id"], JobState.DONE)
    assert (job.answered, job.items, job.tries, job.host) == (ITEMS, ITEMS, 2, "sturdy")
    assert "waiting" in told(own.home, job.id)[1:] and job.error == ""
    first, *_, last = stub.asked
    assert len(first) == ITEMS and set(last) == set(first[2:])
    wait_until(lambda: running.host("sturdy")["state"] == "idle")
    host = running.host("sturdy")
    assert host["ram"]["total"] > 0 and host["seen"] > 0 and isinstance(host["gpus"], list)


@needs_sshd[0]
@needs_sshd[1]
def test_a_running_job_is_shown_and_cancelled_and_keeps_what_it_was_answered(
    running: Engine, own: Set, trainctl
) -> None:
    own.host("shown", {"after": 3, "act": HANGS})
    number = own.order(running, "shown")
    own.until_answered(3)

    def row() -> dict[str, Any]:
        return next(job for job in running.tell("jobs")["jobs"] if job["id"] == number)

    wait_until(lambda: row()["answered"] == 3)
    assert (row()["state"], row()["items"], row()["host"]) == ("running", ITEMS, "shown")
    host = running.host("shown")
    assert (host["state"], host["job"]) == ("busy", number)
    page = plain(running.status)
    assert f"v001 on shown, 3 of {ITEMS}" in page and "shown busy" in page
    done = trainctl("jobs", "cancel", str(number), home=own.home)
    assert done.code == 0, done.err
    wait_until(lambda: not children(), timeout=30, what="the end of its process")
    wait_until(lambda: running.host("shown")["state"] == "idle", timeout=10)
    with pytest.raises(Refused, match="is cancelled already"):
        running.tell("cancel_job", job=number)
    assert one(own.home, number).state is JobState.CANCELLED
    assert told(own.home, number)[-1] == "cancelled" and own.answered() == 3


@needs_sshd[0]
@needs_sshd[1]
def test_a_deadline_ends_a_job_in_the_middle(running: Engine, own: Set) -> None:
    own.host("late", {"after": 1, "act": HANGS})
    number = own.order(running, "late")
    own.until_answered(1)
    wait_for(own.home, number, JobState.RUNNING)
    with open_state(own.home) as state, state.transaction() as db:
        db.execute("UPDATE jobs SET deadline = ? WHERE id = ?", (now() - 1, number))
    job = wait_for(own.home, number, JobState.FAILED)
    assert "evaluation.deadline_minutes" in job.error and own.answered() == 1
    assert told(own.home, number)[-2:] == ["running", "failed"]


@needs_sshd[0]
@needs_sshd[1]
def test_two_hosts_have_two_jobs_at_once_and_a_busy_one_passes_its_on(
    running: Engine, own: Set
) -> None:
    first = own.host("one", {"after": 1, "act": HANGS})
    own.host("two", {"after": 1, "act": HANGS})
    numbers = [
        running.tell("evaluate", model=model, sets=[own.name])["id"] for model in ("v001", "base")
    ]
    own.until_answered(2)
    hosts = [running.host(name) for name in ("one", "two")]
    assert {host["job"] for host in hosts} == set(numbers)
    for number in numbers:
        running.tell("cancel_job", job=number)
    wait_until(lambda: not children(), timeout=30)
    # The first host is somebody else's now: the job goes to the second.
    with Session(first.machine, who="somebody else"):
        number = running.tell("evaluate", model="v001", sets=[own.name])["id"]
        job = wait_for(own.home, number, JobState.DONE)
        host = running.host("one")
    assert job.host == "two" and host["state"] == "busy" and "somebody else" in host["error"]


@needs_sshd[0]
@needs_sshd[1]
def test_the_process_of_a_job_is_killed_and_it_is_tried_again(running: Engine, own: Set) -> None:
    stub = own.host("lost", {"after": 2, "act": HANGS})
    number = own.order(running, "lost")
    own.until_answered(2)
    (process,) = children()
    process.send_signal(signal.SIGKILL)
    job = wait_for(own.home, number, JobState.DONE)
    assert (job.tries, job.answered) == (2, ITEMS)
    assert set(stub.asked[1]) == set(stub.asked[0][2:])


def test_a_host_that_cannot_be_reached_rests_and_costs_no_try(running: Engine) -> None:
    home = running.home
    before = home.config.read_text()
    home.config.write_text(before + '\n[hosts.nas]\nssh = "nas.invalid"\npython = "python3"\n')
    number = running.tell("evaluate", model="v001", host="nas")["id"]
    wait_until(lambda: running.host("nas")["state"] == "unreachable", timeout=60)
    host = running.host("nas")
    assert host["error"] and host["seen"] == {"unknown": "never reached since the engine started"}
    home.config.write_text(before)
    wait_until(lambda: "no host nas in config.toml" in one(home, number).error, timeout=20)
    job = one(home, number)
    assert (job.state, job.tries) == (JobState.WAITING, 0)
    running.tell("cancel_job", job=number)


def test_a_model_that_went_ends_its_job_with_the_reason(running: Engine) -> None:
    with open_state(running.home) as state:
        job = jobs.add(
            state,
            model="v009",
            digest="0" * 64,
            step=1,
            branch=1,
            sets=["sums"],
            reason=jobs.Reason.VERSION,
        )
    ended = wait_for(running.home, job.id, JobState.SUPERSEDED)
    assert "000000000000" in ended.error


# -- engines of their own -----------------------------------------------------------------------


def test_an_item_a_version_and_the_base_are_asked_here(tmp_path: Path) -> None:
    on = {"after_item": True, "versions": True, "baseline": True}
    home = make(tmp_path / "home", evaluation=on)
    kit.add(home, "a.jsonl", 8, 1)
    with Engine(home) as running:
        running.wait_trained()
        all_ended(home, 2)
        version = running.tell("snapshot_version")["name"]
        found = all_ended(home, 3)
        wait_until(lambda: running.host("local")["state"] == "idle")
        quiet = {"waiting": 0, "running": []}
        wait_until(lambda: running.status["evaluation"] == quiet, what="nothing waits or runs")
        listing = running.tell("jobs")
    by = {str(job.reason): job for job in found}
    assert set(by) == {"item", "baseline", "version"}
    assert {job.state for job in found} == {JobState.DONE}
    for job in found:
        assert (job.items, job.answered, job.errors, job.host) == (ITEMS, ITEMS, 0, "local")
        assert job.started and job.started >= job.created and job.tries == 1
        assert told(home, job.id)[0] == "waiting" and told(home, job.id)[-1] == "done"
    assert by["version"].model == version
    # Every answer is kept under the digest of the model that gave it; the version's are the item's.
    with Results(home) as results:
        asked = {one.model: one.complete for one in results.evaluations()}
    assert asked == {by["item"].digest: ITEMS, by["baseline"].digest: ITEMS}
    assert by["version"].digest == by["item"].digest != by["baseline"].digest
    with open_state(home) as state:  # judged as soon as it was answered
        verdict = verdicts.of(state, by["version"].digest)
    assert verdict is not None and (verdict["n"], verdict["against"]) == (ITEMS, "base")
    assert {row["id"] for row in listing["jobs"]} == {job.id for job in found}


@needs_sshd[0]
@needs_sshd[1]
def test_an_engine_that_is_killed_leaves_no_process_and_the_job_goes_on(
    running: Engine, sshd: Host, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    copied(running.home, home)
    own = Set(home, "killed", sshd, tmp_path)
    stub = own.host("titan", {"after": 2, "act": HANGS})
    with open_state(home) as state:
        settings = config.load(home.config)
        number = wanted.order(state, settings, "v001", ["killed"]).id
    engine = EngineProcess(home, {}, stay=True)
    try:
        own.until_answered(2)
        wait_for(home, number, JobState.RUNNING)
        below = psutil.Process(engine.pid).children(recursive=True)
        assert any(CHILD in process.cmdline() for process in below)
    finally:
        engine.send_signal(signal.SIGKILL)
        engine.wait(60)
    wait_until(lambda: not any(p.is_running() for p in below), what="their end")
    assert one(home, number).state is JobState.RUNNING
    with Engine(home):
        job = wait_for(home, number, JobState.DONE)
    assert (job.answered, job.tries) == (ITEMS, 2)
    first, second = stub.asked
    assert len(first) == ITEMS and set(second) == set(first[2:])


def copied(home: Home, to: Home) -> None:
    """A copy of a home whose engine stands idle: the databases by their own means."""
    ignored = shutil.ignore_patterns("*.db*", "engine.*", "status.json")
    shutil.copytree(home.root, to.root, symlinks=True, ignore=ignored)
    for name in ("state.db", "metrics.db"):
        with (
            closing(sqlite3.connect(home.store / name)) as source,
            closing(sqlite3.connect(to.store / name)) as target,
        ):
            source.backup(target)


def test_training_is_bit_identical_with_jobs_beside_it(tmp_path: Path) -> None:
    plain, judged = (
        make(tmp_path / name, evaluation={"after_item": name == "judged"})
        for name in ("plain", "judged")
    )
    for home in (plain, judged):
        kit.add(home, "a.jsonl", 60, 1)
    expected = kit.train_all(plain)
    with Engine(judged) as running:
        running.pause_at(4)
        running.tell("evaluate", model="base")
        wait_until(children, timeout=30, what="the process of a job")
        running.ask("resume")
        running.wait_trained()
        wait_until(lambda: len(listed(judged)) == 2, what="the one for the item")
    assert kit.head(judged).weights_digest == expected


@pytest.mark.slow
def test_where_the_budget_is_nothing_jobs_run_here_only_while_nothing_trains(
    tmp_path: Path,
) -> None:
    home = make(tmp_path / "home", training={"monitoring_budget": 0.0})
    kit.add(home, "a.jsonl", 4000, 1)
    with Engine(home) as running:
        running.pause_at(3)
        number = running.tell("evaluate", model="base")["id"]
        wait_until(children, timeout=30, what="the process of a job")
        running.ask("resume")
        wait_for(home, number, JobState.WAITING)
        wait_until(lambda: not children(), timeout=30)
        job = one(home, number)
        assert "monitoring_budget is 0" in job.error and job.failures == 0
        running.ask("pause")
        wait_for(home, number, JobState.SHIPPING)


# -- without an engine --------------------------------------------------------------------------


def test_the_words_of_the_command_line(tmp_path: Path, trainctl) -> None:
    world = World(tmp_path / "home")
    home = world.home
    home.config.write_text("")
    write_set(home, "sums", "1 + 1?")
    world.train(world.add())
    versions.create(world.state)
    world.close()
    none = trainctl("jobs", home=home)
    assert none.code == 0 and "no evaluation job yet" in none.out
    made = trainctl("evaluate", "v001", "--queue", "--priority", "low", "--json", home=home)
    job = json.loads(made.out)
    assert (made.code, job["model"], job["priority"], job["state"]) == (0, "v001", "low", "waiting")
    assert job["sets"] == ["sums"] and job["host"] == {"unknown": "no host has had it yet"}
    said = trainctl("evaluate", "v001", "--queue", "--host", "nas", home=home)
    assert said.code == 1 and "no host nas" in said.err
    for words in (("--priority", "low"), ("--queue", "--limit", "2")):
        wrong = trainctl("evaluate", "v001", *words, home=home)
        assert wrong.code == 2 and "--queue" in wrong.err
    with open_state(home) as state:
        jobs.claim(state, job["id"], "titan")
    listing = json.loads(trainctl("jobs", "--json", home=home).out)
    assert listing["hosts"] == {"unknown": "no engine is running"}
    assert [row["state"] for row in listing["jobs"]] == ["waiting"], "nobody has it"
    page = trainctl("jobs", home=home).out
    assert "v001" in page and "demand" in page and "titan" in page
    assert trainctl("jobs", "cancel", "1", home=home).code == 0
    again = trainctl("jobs", "cancel", "1", home=home)
    assert again.code == 1 and "is cancelled already" in again.err and again.err.count("\n") == 1
    assert trainctl("jobs", "cancel", "7", home=home).code == 1
