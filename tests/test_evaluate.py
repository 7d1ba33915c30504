"""trainctl evaluate: real versions of a real home, asked here and on hosts, and then compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.judging.evaluating import Evaluating, model
from evaluation.host.choice import on_first_free
from evaluation.host.errors import HostFailure
from evaluation.host.machine import Machine, local
from evaluation.host.session import Session
from evaluation.sets import load_sets
from queue_store import config
from queue_store.database import open_state
from queue_store.errors import NotFound, Refused
from queue_store.home import Home
from queue_store.results import Result, Results
from snapshots import versions
from tests.conftest import ROOT
from tests.engine_kit import add, make_home, train_all
from tests.host_kit import Stub, make_stub, table
from tests.sshd_kit import make_host, needs_sshd
from tests.waiting import wait_until


def write_set(home: Home, name: str, *prompts: str) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": "4"},
            ],
            "metadata": {"tier": "easy" if n % 2 else "hard"},
        }
        for n, prompt in enumerate(prompts)
    ]
    home.evaluation.mkdir(exist_ok=True)
    (home.evaluation / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with v001 to v003, and sets of six rows; one more of sums fits no context."""
    home = make_home(tmp_path_factory.mktemp("evaluate") / "home", samples={"max_tokens": 8})
    for name in ("few", "more"):
        write_set(home, name, *(f"What is {n} + {name}?" for n in range(6)))
    write_set(home, "sums", *(f"What is {n} + 1?" for n in range(6)), "9 " * 6_000)
    for seed in (1, 2, 3):
        add(home, f"{seed}.jsonl", rows=4, seed=seed)
        train_all(home)
        with open_state(home) as state:
            versions.create(state)
    return home


@pytest.fixture
def home(world: Home) -> Iterator[Home]:
    """That home, its configuration as it was afterwards."""
    before = world.config.read_text()
    yield world
    world.config.write_text(before)


@contextmanager
def asking(home: Home, name: str | None, *sets: str, **more: Any) -> Iterator[Evaluating]:
    settings = config.load(home.config)
    with (
        open_state(home) as state,
        Evaluating(
            state, settings, model(state, settings, name), load_sets(home, sets), **more
        ) as made,
    ):
        yield made


def stored(home: Home, set_name: str) -> int:
    with Results(home) as results:
        return sum(one.complete for one in results.evaluations(set_name=set_name))


def test_two_versions_are_asked_here_and_then_compared(home: Home, trainctl) -> None:
    first = trainctl("evaluate", "v001", "--set", "sums", "--json", home=home)
    asked = json.loads(first.out)
    (one,) = asked["sets"]
    assert (asked["asked"], asked["host"], asked["interrupted"]) == (7, "local", False)
    assert (one["items"], one["answered"], one["missing"]) == (7, 6, 0)
    # What does not fit the model's context is no wrong answer.
    assert one["errors"] == {"refused": 1} and first.code == 1
    assert one["accuracy"]["total"] == 6 and one["accuracy"]["hits"] == one["right"]
    assert {tier: rate["total"] for tier, rate in one["tiers"].items()} == {"easy": 3, "hard": 3}
    assert one["speed"][0]["backend"] == "plain" and one["speed"][0]["hosts"] == ["local"]
    assert asked["settings"]["max_tokens"] == 8 and asked["settings"]["temperature"] == 0
    # It is judged at once; what it is compared with first was never asked.
    assert asked["verdict"]["against"] == "base" and asked["deployed"] == []
    assert "base has no results" in asked["verdict"]["best"]["why"]
    with open_state(home) as state, Results(home) as results:
        (kept,) = results.evaluations(set_name="sums")
        assert kept.model == versions.get(state, "v001").weights_digest == asked["model"]["digest"]
    refused = trainctl("compare", "v001", "v002", home=home)
    assert refused.code == 1 and "trainctl evaluate v002)" in refused.err

    # The second time nobody is asked; and the command itself never has torch.
    code = (
        "import sys; from trainctl.__main__ import main; code = main(sys.argv[1:]);"
        " assert not {'torch', 'transformers'} & set(sys.modules); sys.exit(code + 40)"
    )
    words = ["evaluate", "v001", "--set", "sums", "--home", str(home.root)]
    again = subprocess.run(
        [sys.executable, "-P", "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 41, again.stderr
    assert "nothing was missing" in again.stdout and "v001 (step 1" in again.stdout
    assert "1 item without an answer that counts: refused 1" in again.stdout

    with asking(home, "v002", "sums", max_tokens=9) as made:
        (another,) = made.standing()
        assert made.waiting == 7 and another["config"] != one["config"]
    with Results(home) as results:
        (begun,) = results.evaluations(model=made.model.digest)
        results.put(begun.id, [Result("line 1", error_kind="timeout")])
    differs = trainctl("compare", "v001", "v002", home=home)
    assert differs.code == 1 and "different generation settings: max_tokens 8 and 9" in differs.err

    # The other one is interrupted: what has no answer yet is all that is asked the next time.
    with asking(home, "v002", "sums", limit=6) as made:
        assert made.waiting == 6
        made.ask(local(threads=1), cancelled=lambda: made.waiting <= 4, batch=1)
        (cut,) = made.standing()
    assert (cut["answered"], cut["missing"]) == (2, 5)
    told: list[int] = []
    with asking(home, "v002", "sums") as made:
        made.ask(local(threads=1), told=told.append)
    assert told == [5, 4, 3, 2, 1, 0]
    compared = json.loads(trainctl("compare", "v001", "v002", "--json", home=home).out)
    assert compared["sets"][0]["accuracy"]["n"] == 6
    assert compared["sets"][0]["errors"] == {"a": {"refused": 1}, "b": {"refused": 1}}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("v009",), "no model v009"),
        (("v001", "--set", "sum"), "did you mean sums?"),
        (("v001", "--host", "titan"), "no host titan (in config.toml: none is configured)"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(home: Home, trainctl, words, says) -> None:
    done = trainctl("evaluate", *words, home=home)
    assert done.code == 1 and says in done.err and done.err.count("\n") == 1, done.err


def test_a_model_is_the_newest_verified_one_and_never_another(home: Home, tmp_path: Path) -> None:
    settings = config.load(home.config)
    with open_state(home) as state:
        assert model(state, settings, None).name == "v003"
        assert model(state, settings, "base").base
        state.db.execute("UPDATE versions SET state = 'corrupt' WHERE name = 'v003'")
        try:
            assert model(state, settings, None).name == "v002"
            with pytest.raises(Refused, match="v003 is corrupt"):
                model(state, settings, "v003")
        finally:
            state.db.execute("UPDATE versions SET state = 'verified' WHERE name = 'v003'")
    empty = make_home(tmp_path / "empty")
    with open_state(empty) as state, pytest.raises(NotFound, match="no verified version"):
        model(state, settings, None)


def test_a_model_that_trained_otherwise_than_it_is_asked_says_so(home: Home) -> None:
    with asking(home, "v003", "few") as made:
        assert made.notes() == []
    home.config.write_text(f'{home.config.read_text()}\n[data]\nprofile = "regime3"\n')
    with asking(home, "v003", "few") as made:
        (note,) = made.notes()
    assert note.startswith("v003 trained with profile none, and is asked with regime3")
    assert made.settings["profile"] == "regime3" and made.waiting == 6


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Stub]]:
    """Makes hosts of that name, each with a store of its own, behind one sshd."""
    host = make_host(tmp_path_factory.mktemp("sshd"), "titan")
    host.start()
    yield lambda name: make_stub(host, tmp_path_factory.mktemp(name))
    host.stop()


@needs_sshd[0]
@needs_sshd[1]
def test_the_first_free_host_is_asked(home: Home, stubs: Callable[[str], Stub], trainctl) -> None:
    first, second = stubs("first"), stubs("second")
    hosts = table("first", first) + table("second", second)
    home.config.write_text(f"{home.config.read_text()}\n{hosts}")
    words = ("evaluate", "v003", "--set", "few")
    with Session(first.machine, who="somebody else"):
        busy = trainctl(*words, "--host", "first", home=home)
        assert busy.code == 1 and "somebody else" in busy.err and "--local" in busy.err
        done = trainctl(*words, "--limit", "2", "--json", home=home)
        told = json.loads(done.out)
        assert (done.code, told["host"], told["asked"]) == (0, "second", 2)
        assert told["sets"][0]["missing"] == 4
        with Session(second.machine, who="another one"):
            none = trainctl(*words, home=home)
    assert none.code == 1 and none.err.count("\n") == 1
    for words in ("no host is free", "first: ", "somebody else", "second: ", "another one"):
        assert words in none.err

    def taken_meanwhile(machine: Machine) -> str:
        if machine.name == "first":
            raise HostFailure("busy", "taken")
        return machine.name

    found = config.load(home.config).hosts
    assert on_first_free(home, found, None, taken_meanwhile) == "second"


@needs_sshd[0]
@needs_sshd[1]
def test_ctrl_c_keeps_what_was_answered(home: Home, stubs: Callable[[str], Stub], trainctl) -> None:
    stub = stubs("interrupted")
    home.config.write_text(f"{home.config.read_text()}\n{table('titan', stub)}")
    stub.acts({"after": 2, "act": "until cancelled"})
    words = ["evaluate", "v003", "--set", "more", "--host", "titan", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "trainctl", *words, "--home", str(home.root)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: stored(home, "more") == 2, timeout=30, what="two answers")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: ssh hears it, too
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    told = json.loads(out)
    assert process.returncode == 130 and told["interrupted"] and told["asked"] == 2
    assert told["sets"][0]["missing"] == 4
    rest = json.loads(trainctl(*words, home=home).out)
    assert rest["asked"] == 4 and rest["sets"][0]["answered"] == 6
    before, after = stub.asked
    assert len(before) == 6 and set(after) == set(before[2:])
