"""Evaluation jobs of a real engine: made, run beside training by real processes, and ended.

One test has the real worker with the real model; the others have the worker of stub_worker.py
behind a real sshd, which can die, hang and be busy when a test wants it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.judging import wanted
from engine.sessions.dispatch import Dispatcher
from evaluation.host.session import Session
from queue_store import config, jobs, journal
from queue_store.database import open_state
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.jobs import Job, JobState
from queue_store.results import Results
from snapshots import versions
from tests import engine_kit as kit
from tests.conftest import ROOT
from tests.host_kit import Stub, make_stub, table
from tests.sshd_kit import make_host, needs_sshd
from tests.test_evaluate import write_set
from tests.waiting import wait_until
from trainctl.commands.status import plain

CHILD = "engine.judging.job"
ITEMS = 6


def make(folder: Path, **evaluation: Any) -> Home:
    home = kit.make_home(folder, samples={"max_tokens": 8}, evaluation=evaluation)
    write_set(home, "sums", *(f"What is {n} + 1?" for n in range(ITEMS)))
    return home


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with v001 and v002, which asks for no job by itself."""
    off = {"after_item": False, "versions": False, "baseline": False}
    home = make(tmp_path_factory.mktemp("jobs") / "home", **off)
    for seed in (1, 2):
        kit.add(home, f"{seed}.jsonl", rows=4, seed=seed)
        kit.train_all(home)
        with open_state(home) as state:
            versions.create(state)
    return home


@pytest.fixture
def home(trained: Home, tmp_path: Path) -> Home:
    """A copy of that home."""
    shutil.copytree(trained.root, tmp_path / "home", symlinks=True)
    return Home(tmp_path / "home")


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Stub]]:
    """Makes hosts of that name, each with a store of its own, behind one sshd."""
    host = make_host(tmp_path_factory.mktemp("sshd"), "titan")
    host.start()
    yield lambda name: make_stub(host, tmp_path_factory.mktemp(name))
    host.stop()


def name_hosts(home: Home, **hosts: Stub) -> None:
    tables = "\n".join(table(name, stub) for name, stub in hosts.items())
    home.config.write_text(f"{home.config.read_text()}\n{tables}")


def listed(home: Home) -> list[Job]:
    with open_state(home) as state:
        found = [*jobs.unfinished(state), *jobs.ended(state, 100)]
    return sorted(found, key=lambda job: job.id)


def one(home: Home, number: int) -> Job:
    return next(job for job in listed(home) if job.id == number)


def wait_for(home: Home, number: int, *states: JobState) -> Job:
    def there() -> Job | None:
        job = one(home, number)
        return job if job.state in states else None

    return wait_until(there, timeout=60, what=f"job {number} {states}, {one(home, number)}")


def all_ended(home: Home, count: int) -> list[Job]:
    def ended() -> list[Job]:
        found = listed(home)
        return found if len(found) >= count and all(j.ended for j in found) else []

    return wait_until(ended, timeout=120, what="the jobs' end")


def answered(home: Home) -> int:
    with Results(home) as results:
        return sum(one.complete for one in results.evaluations())


def told(home: Home, number: int) -> list[str]:
    """The states that the journal tells of a job."""
    with open_state(home) as state:
        events = journal.events(state, 0, 5000)
        kinds = [e.kind for e in events if e.data.get("job") == number]
    return [kind.removeprefix("evaluation.") for kind in kinds]


def ask(running: kit.Running, command: str, **arguments: Any) -> Any:
    """A command as a session sends it."""
    dispatcher = Dispatcher(running.engine)
    try:
        return dispatcher.begin(command, arguments).result(60)
    finally:
        dispatcher.close()


def children() -> list[psutil.Process]:
    """The processes of jobs and looks."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if CHILD in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_an_item_a_version_and_the_base_are_asked_here(tmp_path: Path) -> None:
    home = make(tmp_path / "home", after_item=True, versions=True, baseline=True)
    kit.add(home, "a.jsonl", 8, 1)
    with kit.Running(home) as running:
        running.wait_trained()
        all_ended(home, 2)
        version = ask(running, "snapshot_version")["name"]
        found = all_ended(home, 3)
        listing, status = ask(running, "jobs"), running.status
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
    assert {row["id"] for row in listing["jobs"]} == {job.id for job in found}
    (host,) = listing["hosts"]
    assert (host["name"], host["state"]) == ("local", "idle")
    assert status["evaluation"] == {"waiting": 0, "running": []}
    with kit.Running(home):  # a restart asks for nothing again
        wait_until(lambda: not children(), timeout=30)
        assert len(listed(home)) == 3


@needs_sshd[0]
@needs_sshd[1]
def test_a_worker_that_is_killed_is_tried_again_and_only_what_is_missing_is_asked(
    home: Home, stubs: Callable[[str], Stub]
) -> None:
    stub = stubs("killed")
    name_hosts(home, titan=stub)
    # The look at the host, three sessions of the first try, and the second try.
    stub.acts(None, {"after": 2, "act": "killed"}, *[{"after": 0, "act": "killed"}] * 3)
    with kit.Running(home) as running:
        made = ask(running, "evaluate", model="v002")
        assert (made["state"], made["reason"], made["priority"]) == ("waiting", "demand", "high")
        job = wait_for(home, made["id"], JobState.DONE)
        (host,) = ask(running, "jobs")["hosts"]
    assert (job.answered, job.items, job.tries, job.host) == (ITEMS, ITEMS, 2, "titan")
    assert "waiting" in told(home, job.id)[1:] and job.error == ""
    asked = stub.asked
    assert len(asked[0]) == ITEMS and set(asked[-1]) == set(asked[0][2:])
    assert host["state"] == "idle" and host["ram"]["total"] > 0 and host["seen"] > 0


@needs_sshd[0]
@needs_sshd[1]
def test_an_engine_that_is_killed_leaves_no_process_and_the_job_goes_on(
    home: Home, stubs: Callable[[str], Stub]
) -> None:
    stub = stubs("engine")
    name_hosts(home, titan=stub)
    stub.acts(None, {"after": 2, "act": "until cancelled"})
    with open_state(home) as state:
        number = wanted.order(state, config.load(home.config), "v001").id
    engine = subprocess.Popen(
        [sys.executable, "-m", "tests.engine_process", str(home.root), "stay"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        wait_until(lambda: answered(home) == 2, timeout=90, what="two answers")
        wait_for(home, number, JobState.RUNNING)
        below = psutil.Process(engine.pid).children(recursive=True)
        assert any(CHILD in process.cmdline() for process in below)
    finally:
        engine.kill()
        engine.wait()
    wait_until(lambda: not any(p.is_running() for p in below), what="their end")
    assert one(home, number).state is JobState.RUNNING
    with kit.Running(home):
        job = wait_for(home, number, JobState.DONE)
    assert (job.answered, job.tries) == (ITEMS, 2)
    first, second = stub.asked
    assert len(first) == ITEMS and set(second) == set(first[2:])


@needs_sshd[0]
@needs_sshd[1]
def test_a_running_job_is_cancelled_and_keeps_what_it_was_answered(
    home: Home, stubs: Callable[[str], Stub], trainctl
) -> None:
    stub = stubs("cancelled")
    name_hosts(home, titan=stub)
    stub.acts(None, {"after": 3, "act": "until cancelled"})
    with kit.Running(home) as running:
        number = ask(running, "evaluate", model="v001")["id"]
        wait_until(lambda: answered(home) == 3, timeout=60, what="three answers")
        wait_until(lambda: ask(running, "jobs")["jobs"][0]["answered"] == 3)
        (row,) = ask(running, "jobs")["jobs"]
        assert (row["state"], row["items"]) == ("running", ITEMS)
        (host,) = running.status["hosts"]
        assert (host["state"], host["job"]) == ("busy", number)
        page = plain(running.status)
        assert f"v001 on titan, 3 of {ITEMS}" in page and "titan busy" in page
        done = trainctl("jobs", "cancel", str(number), home=home)
        assert done.code == 0, done.err
        wait_until(lambda: not children(), timeout=30, what="the end of its process")
        wait_until(lambda: running.status["hosts"][0]["state"] == "idle", timeout=10)
        with pytest.raises(Refused, match="is cancelled already"):
            ask(running, "cancel_job", job=number)
    job = one(home, number)
    assert job.state is JobState.CANCELLED and told(home, number)[-1] == "cancelled"
    assert answered(home) == 3


@needs_sshd[0]
@needs_sshd[1]
def test_a_deadline_ends_a_job_in_the_middle(home: Home, stubs: Callable[[str], Stub]) -> None:
    stub = stubs("late")
    name_hosts(home, titan=stub)
    stub.acts(None, {"after": 1, "act": "until cancelled"})
    with kit.Running(home) as running:
        number = ask(running, "evaluate", model="v001")["id"]
        with open_state(home) as state, state.transaction() as db:
            db.execute("UPDATE jobs SET deadline = created + 6")
        job = wait_for(home, number, JobState.FAILED)
    assert "evaluation.deadline_minutes" in job.error and job.ended is not None
    assert job.ended - job.created >= 6


@needs_sshd[0]
@needs_sshd[1]
def test_two_hosts_have_two_jobs_at_once_and_a_busy_one_passes_its_on(
    home: Home, stubs: Callable[[str], Stub]
) -> None:
    first, second = stubs("one"), stubs("two")
    name_hosts(home, one=first, two=second)
    for stub in (first, second):
        stub.acts(None, {"after": 1, "act": "until cancelled"})
    with kit.Running(home) as running:
        numbers = [ask(running, "evaluate", model=f"v00{n}")["id"] for n in (1, 2)]
        wait_until(lambda: answered(home) == 2, timeout=60, what="an answer of each")
        rows = ask(running, "jobs")
        assert {row["host"] for row in rows["jobs"]} == {"one", "two"}
        assert {host["job"] for host in rows["hosts"]} == set(numbers)
        for number in numbers:
            ask(running, "cancel_job", job=number)
        wait_until(lambda: not children(), timeout=30)
        # The first host is somebody else's now: the job goes to the second.
        first.acts(), second.acts()
        with Session(first.machine, who="somebody else"):
            number = ask(running, "evaluate", model="v001")["id"]
            job = wait_for(home, number, JobState.DONE)
            hosts = {host["name"]: host for host in ask(running, "jobs")["hosts"]}
        assert job.host == "two" and hosts["one"]["state"] == "busy"
        assert "somebody else" in hosts["one"]["error"]


@needs_sshd[0]
@needs_sshd[1]
def test_the_process_of_a_job_is_killed_and_it_is_tried_again(
    home: Home, stubs: Callable[[str], Stub]
) -> None:
    stub = stubs("process")
    name_hosts(home, titan=stub)
    stub.acts(None, {"after": 2, "act": "until cancelled"})
    with kit.Running(home) as running:
        number = ask(running, "evaluate", model="v001")["id"]
        wait_until(lambda: answered(home) == 2, timeout=60, what="two answers")
        (process,) = children()
        process.send_signal(signal.SIGKILL)
        job = wait_for(home, number, JobState.DONE)
    assert (job.tries, job.answered) == (2, ITEMS)
    assert set(stub.asked[1]) == set(stub.asked[0][2:])


def test_training_is_bit_identical_with_jobs_beside_it(tmp_path: Path) -> None:
    plain, judged = make(tmp_path / "plain"), make(tmp_path / "judged", after_item=True)
    for home in (plain, judged):
        kit.add(home, "a.jsonl", 60, 1)
    expected = kit.train_all(plain)
    with kit.Running(judged) as running:
        running.pause_at(4)
        running.ask("save")
        ask(running, "evaluate", model="base")
        wait_until(children, timeout=30, what="the process of a job")
        running.ask("resume")
        running.wait_trained()
        wait_until(lambda: len(listed(judged)) == 2, what="the one for the item")
    assert kit.head(judged).weights_digest == expected


def test_the_words_of_the_command_line(home: Home, trainctl) -> None:
    none = trainctl("jobs", home=home)
    assert none.code == 0 and "no evaluation job yet" in none.out
    made = trainctl("evaluate", "v001", "--queue", "--priority", "low", "--json", home=home)
    job = json.loads(made.out)
    assert (made.code, job["model"], job["priority"], job["state"]) == (0, "v001", "low", "waiting")
    assert job["sets"] == ["sums"] and job["host"] == {"unknown": "no host has had it yet"}
    said = trainctl("evaluate", "v002", "--queue", "--host", "nas", home=home)
    assert said.code == 1 and "no host nas" in said.err
    for words in (("--priority", "low"), ("--queue", "--limit", "2")):
        wrong = trainctl("evaluate", "v001", *words, home=home)
        assert wrong.code == 2 and "--queue" in wrong.err
    with open_state(home) as state:
        jobs.claim(state, job["id"], "titan")
    told = json.loads(trainctl("jobs", "--json", home=home).out)
    assert told["hosts"] == {"unknown": "no engine is running"}
    assert [row["state"] for row in told["jobs"]] == ["waiting"], "nobody has it"
    page = trainctl("jobs", home=home).out
    assert "v001" in page and "demand" in page and "titan" in page
    assert trainctl("jobs", "cancel", "1", home=home).code == 0
    again = trainctl("jobs", "cancel", "1", home=home)
    assert again.code == 1 and "is cancelled already" in again.err and again.err.count("\n") == 1
    assert trainctl("jobs", "cancel", "7", home=home).code == 1


def test_a_model_that_went_ends_its_job_with_the_reason(home: Home) -> None:
    with open_state(home) as state:
        job = wanted.order(state, config.load(home.config), "v001")
        state.db.execute("UPDATE jobs SET model = 'v009', digest = ?", ("0" * 64,))
    with kit.Running(home):
        ended = wait_for(home, job.id, JobState.SUPERSEDED)
    assert "000000000000" in ended.error


def test_where_the_budget_is_nothing_jobs_run_here_only_while_nothing_trains(
    tmp_path: Path,
) -> None:
    home = make(tmp_path / "home")
    home.config.write_text(
        home.config.read_text().replace("[training]", "[training]\nmonitoring_budget = 0.0")
    )
    kit.add(home, "a.jsonl", 4000, 1)
    with kit.Running(home) as running:
        running.pause_at(3)
        number = ask(running, "evaluate", model="base")["id"]
        wait_until(children, timeout=30, what="the process of a job")
        running.ask("resume")
        wait_for(home, number, JobState.WAITING)
        wait_until(lambda: not children(), timeout=30)
        job = one(home, number)
        assert "monitoring_budget is 0" in job.error and job.failures == 0
        (host,) = ask(running, "jobs")["hosts"]
        assert host["state"] == "idle"
        running.ask("pause")
        wait_for(home, number, JobState.SHIPPING)


def test_a_host_that_cannot_be_reached_rests_and_says_why(home: Home) -> None:
    home.config.write_text(
        home.config.read_text() + '\n[hosts.titan]\nssh = "titan.invalid"\npython = "python3"\n'
    )
    with kit.Running(home) as running:
        number = ask(running, "evaluate", model="v001", host="titan")["id"]
        other = ask(running, "evaluate", model="v002", host="titan")["id"]
        wait_until(lambda: running.status["hosts"][0]["state"] == "unreachable", timeout=60)
        (host,) = ask(running, "jobs")["hosts"]
        assert host["error"] and host["seen"] == {
            "unknown": "never reached since the engine started"
        }
        settings = home.config.read_text()
        home.config.write_text(settings[: settings.index("[hosts.titan]")])
        wait_until(lambda: "no host titan in config.toml" in one(home, other).error, timeout=20)
    job = one(home, number)
    assert (job.state, job.tries) == (JobState.WAITING, 0), "a host that is down costs no try"
