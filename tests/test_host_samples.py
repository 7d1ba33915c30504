"""Samples where a host answers: a real engine, a real sshd, and the worker of stub_worker.py; and
what becomes of answers that are there, without any.

Training asks no example; the answers of the jobs stand at the steps of their checkpoints.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.judging import job
from engine.judging.evaluating import REFUSED, Evaluating, model
from engine.reading.views import Views
from engine.training import looking
from evaluation.sets import load_sets
from queue_store import config as configuration
from queue_store.database import open_metrics, open_state
from queue_store.home import Home
from queue_store.jobs import JobState
from queue_store.metrics import Example, Metrics, Sample, set_example
from queue_store.results import Result, Results
from tests import engine_kit as kit
from tests.jobs_kit import HANGS, ITEMS, Engine, Set, all_ended, children, listed, wait_for
from tests.sshd_kit import Host, make_host, needs_sshd
from tests.test_evaluate import write_set
from tests.waiting import wait_until

COUNT = 4
"""Fixed examples, of the ITEMS of the set."""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = make_host(tmp_path_factory.mktemp("sshd"), "titan")
    host.start()
    yield host
    host.stop()


def make(folder: Path, where: str) -> Home:
    return kit.make_home(
        folder,
        training={"sample_steps": 2, "monitoring_budget": 1.0},
        samples={"count": COUNT, "item_count": 2, "schedule": [0, 1], "where": where},
        evaluation={"after_item": True},
    )


def expecting(home: Home, answer: str) -> None:
    """The set's expected answers."""
    path = home.evaluation / "sums.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["messages"][-1]["content"] = answer
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each sample tick of the training process asked."""
    found: list[int] = []
    real = looking.answer

    def answer(of: Any, tokenizer: Any, prompts: Any, **more: Any) -> Any:
        found.append(len(prompts))
        return real(of, tokenizer, prompts, **more)

    monkeypatch.setattr(looking, "answer", answer)
    return found


def told(home: Home) -> list[dict[str, Any]]:
    with Views(home) as views:
        return [e for e in views.latest_events(500)["events"] if e["kind"] == "samples"]


def rows(home: Home) -> list[tuple[int, str]]:
    """(step, example) of every row on record, of whatever run."""
    with Views(home) as views:
        found = views.metrics.execute("SELECT step, example FROM samples").fetchall()
    return [tuple(row) for row in found]


@needs_sshd[0]
@needs_sshd[1]
def test_the_answers_of_jobs_are_the_samples_and_training_asks_none(
    tmp_path: Path, sshd: Host, trainctl: Any, asked: list[int]
) -> None:
    home = make(tmp_path / "home", "auto")
    own = Set(home, "sums", sshd, tmp_path)
    expecting(home, "said 4")
    stub = own.host("titan", {"after": 0, "act": "right"})
    kit.add(home, "a.jsonl", rows=8)
    with Engine(home) as running:
        running.wait_trained()
        all_ended(home, 1)
        first = kit.head(home).step
        wait_until(lambda: running.engine.board.samples_step == first, what="the tick is shown")
        assert asked == [] and "unknown" in running.status["samples_due"]
        # The model that it began from: at step 0 it knew the second example.
        stub.acts({"after": 1, "act": "right"})
        wait_for(home, running.tell("evaluate", model="base")["id"], JobState.DONE)
        # A version has the checkpoint's weights: nobody is asked again, and nothing added.
        running.tell("snapshot_version")
        before = len(stub.asked)
        wait_for(home, running.tell("evaluate", model="v001")["id"], JobState.DONE)
        assert len(stub.asked) == before
        # Another checkpoint; the process of its job is killed in the middle.
        stub.acts({"after": 2, "act": HANGS})
        kit.add(home, "b.jsonl", rows=8, seed=2)
        running.engine.wake()
        wait_until(lambda: listed(home)[-1].state is JobState.RUNNING, timeout=120)
        wait_until(lambda: running_answers(home) == 2, timeout=60, what="two answers are kept")
        process = next(p for p in children() if p.is_running())
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: listed(home)[-1].state is JobState.DONE, timeout=120)
        second = kit.head(home).step
        wait_until(lambda: running.engine.board.samples_step == second)
    assert asked == [], "the training process answered"
    assert listed(home)[-1].tries == 2

    data = json.loads(trainctl("samples", "--json", home=home).out)
    assert data["steps"] == [0, first, second] and data["step"] == second > first > 0
    assert (data["exact"], data["total"], data["item_total"]) == (0, COUNT, 0)
    assert data["changes"] == {"improving": 0, "regressing": 1, "stable": 3, "new": 0}
    assert {row["host"] for row in data["samples"]} == {"titan"}
    one, two, *others = data["samples"]
    assert one["answer"].startswith("said ") and "What is 0 + sums?" in one["answer"]
    assert (one["learned"], one["lost"]) == (first, second)
    assert (two["learned"], two["lost"]) == (0, first)
    assert all("unknown" in row["learned"] for row in others)
    assert {row["expected_loss"]["unknown"] for row in data["samples"]} == {"titan measures none"}
    assert "answered by  titan" in trainctl("samples", home=home).out
    assert len(rows(home)) == len(set(rows(home))) == 3 * COUNT, "each once"
    words = [(event["step"], event["text"]) for event in told(home)]
    assert words == [
        (first, f"samples exact: sums 1/{COUNT}, answered by titan"),
        (0, f"samples exact: sums 1/{COUNT}, answered by titan"),
        (second, f"samples exact: sums 0/{COUNT}, answered by titan"),
    ]


def running_answers(home: Home) -> int:
    """Answers to the head's weights."""
    with Results(home) as results:
        return sum(one.complete for one in results.evaluations(model=kit.head(home).weights_digest))


# -- answers that are there, without an engine ----------------------------------------------------

HOST = '\n[hosts.titan]\nssh = "titan"\n'


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that trained without a tick and without a set."""
    home = kit.make_home(tmp_path_factory.mktemp("trained") / "home")
    kit.add(home, "a.jsonl", rows=4)
    kit.train_all(home)
    return home


@pytest.fixture
def home(trained: Home) -> Iterator[Home]:
    before = trained.config.read_text()
    text = before.replace("count = 0", f"count = {COUNT}", 1)
    trained.config.write_text(text + HOST)
    write_set(trained, "sums", *(f"What is {n}?" for n in range(ITEMS)))
    yield trained
    trained.config.write_text(before)
    with closing(open_metrics(trained)) as db:
        for table in ("samples", "scores", "answers", "evaluations", "evaluation_items"):
            db.execute(f"DELETE FROM {table}")


def answered(home: Home, name: str, *answers: str) -> None:
    """Have a model's answers to the first items of the set stored, the others refused; then have
    a job that finds nothing to ask."""
    config = configuration.load(home.config)
    sets = load_sets(home)
    with open_state(home) as state:
        of = model(state, config, name)
        with Evaluating(state, config, of, sets):
            pass
        with Results(home) as results:
            evaluation = results.evaluations(model=of.digest)[-1].id
            told = {"finish": "stop", "tokens": 3, "ms": 250.0, "backend": "plain", "host": "titan"}
            for n, example in enumerate(sets[0].examples):
                right = n < len(answers)
                bad = {"error_kind": REFUSED, "error": "too long"}
                one = Result(example.id, answers[n], **told) if right else Result(example.id, **bad)
                results.put(evaluation, [one])
        order = {"model": of.name, "digest": of.digest, "sets": ["sums"]}
        outcome = job.evaluate(state, config, order, None)  # type: ignore[arg-type]
    assert outcome.kind == "done", outcome


def shown(home: Home, step: int | None = None) -> dict[str, tuple[str, str]]:
    """Who answered what, by example, at the newest step."""
    with Views(home) as views:
        found = views.samples(step=step)["samples"]
    return {
        one["example"].split("/", 2)[-1]: (one["host"], one["answer"])
        if isinstance(one["host"], str)
        else ("", one["answer"])
        for one in found
    }


def test_what_is_on_record_is_left_alone_and_a_refused_item_is_no_answer(home: Home) -> None:
    (of,) = load_sets(home)
    at = kit.head(home)
    assert at.run is not None
    name = set_example("sums", of.digest, "line 1")
    with closing(Metrics(home)) as metrics:
        metrics.set_examples([Example(name, "sums", 0, "What is 0?", "4", "", None)])
        tick = Sample(at.branch, at.step, name, "of a tick", False, 0.1, 1, 0.1)
        metrics.add_samples(at.run, [tick])
    answered(home, at.name, "4", "four", "4")
    expected = {"line 1": ("", "of a tick"), "line 2": ("titan", "four"), "line 3": ("titan", "4")}
    assert shown(home) == expected
    with Views(home) as views:
        three = views.samples()["samples"][2]
    assert (three["exact"], three["similarity"], three["seconds"]) == (True, 1.0, 0.25)
    assert (three["tokens"], three["set"], three["position"]) == (3, "sums", 2)
    events = len(told(home))
    answered(home, at.name, "4", "four", "4")
    assert len(rows(home)) == 3 and len(told(home)) == events, "judged again, nothing is added"
    # An edited set is another one: this step was asked the one of before.
    write_set(home, "sums", *(f"What is {n} now?" for n in range(ITEMS)))
    answered(home, at.name, "4", "4", "4", "4")
    assert shown(home) == expected


def test_the_base_models_answers_stand_where_training_began(home: Home) -> None:
    answered(home, "base", "4", "4", "4", "4", "4", "4")
    assert sorted(rows(home)) == sorted((0, name) for _, name in rows(home))
    assert len(shown(home, step=0)) == COUNT
    with Views(home) as views:
        assert views.samples()["step"] == 0


def test_where_the_training_process_answers_a_job_adds_nothing(home: Home) -> None:
    home.config.write_text(
        home.config.read_text().replace("[samples]\n", '[samples]\nwhere = "local"\n')
    )
    answered(home, kit.head(home).name, "4", "4", "4", "4")
    assert rows(home) == []


def test_with_local_training_asks_though_there_is_a_host(tmp_path: Path, asked: list[int]) -> None:
    home = make(tmp_path / "home", "local")
    write_set(home, "sums", *(f"What is {n}?" for n in range(ITEMS)))
    home.config.write_text(home.config.read_text() + '\n[hosts.nas]\nssh = "nas.invalid"\n')
    kit.add(home, "a.jsonl", rows=4)
    kit.train_all(home)
    assert asked and asked[0] == COUNT + 2, "those of the set, and rows of the item"
