"""trainctl merge: a real adapter's version becomes a full model; what breaks it leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from engine.adapters import merging
from engine.adapters import write as writing
from engine.sessions.dispatch import Dispatcher
from engine.sessions.session import LocalSession
from queue_store import config, durable, records
from queue_store.database import State, open_state
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.home import Home
from snapshots import child, merged, removal, retention, rollback, tree, verify, versions
from snapshots.retention import Rules
from snapshots.verify import Outcome
from tests import engine_kit as kit
from tests.conftest import ROOT
from tests.small_disk import fill, small_disk
from tests.store_world import flip
from tests.test_evaluate import write_set

LORA = {"method": "lora", "lora": {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that trained an adapter, with v001, the whole state of its head."""
    home = kit.make_home(
        tmp_path_factory.mktemp("merge") / "home", model=LORA, samples={"max_tokens": 4}
    )
    write_set(home, "few", *(f"What is {n} + 2?" for n in range(3)))
    kit.add(home, "a.jsonl", 12)
    kit.train_all(home)
    with open_state(home) as state:
        versions.create(state)
    return home


@pytest.fixture
def home(trained: Home, tmp_path: Path) -> Home:
    shutil.copytree(trained.root, tmp_path / "home", symlinks=True)
    return Home(tmp_path / "home")


@pytest.fixture
def state(home: Home) -> Iterator[State]:
    with open_state(home) as state:
        yield state


def merge(state: State, name: str = "v001", **words: Any) -> versions.Version:
    return merging.merge(state, config.load(state.home.config), name, **words)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the child does, in this process: without the seconds in which it loads libraries."""

    def run(module: str, *_: Any, stdin: bytes, **__: Any) -> dict[str, Any]:
        assert module == writing.__name__
        return writing.write(json.loads(stdin))

    monkeypatch.setattr(child, "run", run)
    monkeypatch.setattr(
        versions, "read_back", lambda folder, *_, **__: Outcome.of(verify.verify(folder))
    )


def base_of(home: Home) -> Path:
    return next(home.models.iterdir())


def assert_nothing_left(home: Home, names: tuple[str, ...] = ("v001",)) -> None:
    assert list(home.tmp.iterdir()) == []
    assert sorted(p.name for p in home.versions.iterdir()) == list(names)
    with open_state(home) as state:
        assert tuple(v.name for v in versions.versions(state)) == names


def test_the_full_model_is_what_peft_makes_and_training_goes_on_from_the_adapter(
    home: Home, trainctl: Callable[..., Any]
) -> None:
    before = kit.head(home)
    done = trainctl("merge", "v001", "-m", "to take along", "--json", home=home)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["name"], told["kind"], told["scope"]) == ("v002", "merged", "weights")
    assert told["verified_at"] and told["description"] == "to take along"
    assert told["parent"] == "v001" and "merged by hand" in told["kept_because"]
    folder = Path(told["folder"])
    models: Any = transformers.AutoModelForCausalLM
    ours = models.from_pretrained(folder, dtype="auto")
    base = models.from_pretrained(base_of(home), dtype="auto")
    untouched = {name: value.clone() for name, value in base.state_dict().items()}
    theirs: Any = peft.PeftModel.from_pretrained(base, str(home.versions / "v001"))
    theirs = theirs.merge_and_unload().state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())
    changed = [n for n, v in untouched.items() if not torch.equal(v, ours.state_dict()[n])]
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "1"}], tokenize=False)
    assert not any(path.stat().st_mode & 0o222 for path in folder.iterdir())
    assert kit.head(home) == before

    refused = trainctl("restore", "v002", "--yes", "v002", home=home)
    assert refused.code == 1 and "merged from an adapter" in refused.err, refused.err
    assert kit.head(home) == before
    kit.add(home, "b.jsonl", 8, seed=2)
    kit.train_all(home)  # the head is the adapter, and goes on
    assert kit.head(home).step > before.step


@pytest.mark.slow
def test_both_kinds_are_verified_deep_evaluated_asked_and_compared(
    home: Home, inline: None, trainctl: Callable[..., Any]
) -> None:
    with open_state(home) as state:
        merge(state)
    answers = []
    for name in ("v001", "v002"):
        checked = trainctl("verify", name, "--deep", home=home)
        assert checked.code == 0, checked.out + checked.err
        asked = trainctl("evaluate", name, "--set", "few", home=home)
        assert asked.code == 0, asked.err
        words = ("generate", name, "--prompt", "What is 2 + 2?", "--temperature", "0", "--json")
        answer = trainctl(*words, "--max-tokens", "4", home=home)
        assert answer.code == 0, answer.err
        answers.append(json.loads(answer.out)["answer"])
    assert answers[0] == answers[1]
    assert json.loads(trainctl("versions", "v002", "--json", home=home).out)["scores"]["few"]
    differ = trainctl("diff", "v001", "v002", "--json", home=home)
    assert differ.code == 0, differ.err
    found = json.loads(differ.out)
    assert not found["same_weights"] and found["steps"] == {"a": 0, "b": 0}
    assert trainctl("doctor", "--quick", home=home).code == 0


def test_what_is_full_already_or_merged_already_or_damaged_is_refused(
    state: State, inline: None
) -> None:
    versions.create(state, records.checkpoint(state, 0))
    with pytest.raises(Refused, match="v002 is the base model"):
        merge(state, "v002")
    made = merge(state)
    with pytest.raises(Refused, match="v003 is a full model already"):
        merge(state, made.name)
    with pytest.raises(Refused, match="v001 was merged already: v003"):
        merge(state)
    with pytest.raises(NotFound):
        merge(state, "v009")
    state.db.execute("UPDATE versions SET state = 'corrupt' WHERE name = 'v001'")
    with pytest.raises(Refused, match="damaged"):
        merge(state)


def test_the_rules_leave_it_to_a_person_and_it_stands_in_for_nothing(
    state: State, inline: None
) -> None:
    versions.create(state, scope=versions.WEIGHTS)
    made = merge(state)
    assert merged.of(state, made)["version"] == "v001"
    kept = retention.kept_because(state, Rules(last=1, daily=0, weekly=0, best=0))
    assert kept["v003"] == [*kept["v003"][:1], "head"] and kept["v003"][0] == "merged by hand"
    assert "last 1" in kept["v002"]
    assert removal.refusal(state, made) == ""  # although the head is of the same checkpoint
    assert "training stands on it" in removal.refusal(state, versions.get(state, "v001"))
    assert [v.name for v in removal.alike(state, versions.get(state, "v002"))] == ["v002"]
    assert tree.grow(state, versions.versions(state)).parent["v003"] == "v002"
    with pytest.raises(Refused, match=r"home with model\.base = '/.*/v003'"):
        rollback.plan(state, "v003")
    thrown = removal.delete(state, "v003", why="not needed", days=1.0)
    assert thrown is not None and merge(state).name == "v004"


def test_a_lost_row_comes_back_as_the_kind_that_it_was(state: State, inline: None) -> None:
    merge(state)
    state.db.execute("DELETE FROM versions WHERE name = 'v002'")
    versions.recover_versions(state)
    found = versions.get(state, "v002")
    assert (found.kind, found.state) == (versions.MERGED, "unverified")
    assert versions.verify(state, "v002").state == "verified"


def test_beside_an_engine_it_is_the_engine_that_merges(home: Home) -> None:
    with kit.Running(home) as running:
        dispatcher = Dispatcher(running.engine)
        found = LocalSession(dispatcher).request("merge", version="1", description="beside")
        dispatcher.close()
    assert (found["name"], found["description"]) == ("v002", "beside")
    with open_state(home) as state:
        assert versions.get(state, "v002").state == "verified"


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("merge.tensor:5", ()),  # the child alone: the command says so
        pytest.param("merge.written", (), marks=pytest.mark.slow),
        pytest.param("made.sealed", (), marks=pytest.mark.slow),
        pytest.param("publish.synced", (), marks=pytest.mark.slow),
        ("made.published", ("v002",)),
        pytest.param("made.committed", ("v002",), marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_moment_leaves_nothing_that_counts(
    point: str, left: tuple[str, ...], home: Home
) -> None:
    words = [sys.executable, "-P", "-m", "trainctl", "merge", "v001", "--home", str(home.root)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        words, env={**environment, durable.CRASH_VARIABLE: point}, capture_output=True, check=False
    )
    if point.startswith("merge.tensor"):
        assert killed.returncode == 1 and b"did not finish: killed by signal 9" in killed.stderr
        assert_nothing_left(home)
    else:
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    with open_state(home) as state:
        assert all(v.state != "verified" for v in versions.versions(state) if v.name != "v001")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if left:  # complete before the kill: it is in the list, to be verified
        assert done.returncode == 1 and "merged already: v002" in done.stderr, done.stderr
        with open_state(home) as state:
            assert versions.verify(state, "v002").state == "verified"
    else:
        assert done.returncode == 0, done.stderr
    names = [p.name for p in sorted(home.versions.iterdir())]
    assert len(names) == 2 and names[0] == "v001"
    assert_nothing_left(home, tuple(names))


def test_without_room_nothing_begins(state: State) -> None:
    path = state.home.config
    path.write_text(path.read_text().replace("[snapshots]", '[snapshots]\nstop_free = "900 TB"'))
    with pytest.raises(Refused, match=r"not enough disk for the merge: it takes .* 900000"):
        merge(state)
    assert_nothing_left(state.home)


def test_a_disk_that_runs_full_meanwhile_leaves_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "require_room", lambda *_: None)
    with small_disk(tmp_path / "disk", 64) as disk:
        shutil.copytree(home.root, disk / "home", symlinks=True)
        with open_state(Home(disk / "home")) as state:
            held = fill(disk)
            room = base_of(state.home).joinpath("model.safetensors").stat().st_size // 2
            os.truncate(held, held.stat().st_size - room)
            with pytest.raises(Refused, match="the disk ran full"):
                merge(state)
            assert_nothing_left(state.home)


def test_another_base_and_a_damaged_adapter_are_found_before_anything_is_written(
    home: Home, trainctl: Callable[..., Any]
) -> None:
    weights = base_of(home) / "model.safetensors"
    kept = weights.read_bytes()
    flip(weights)
    done = trainctl("merge", "v001", home=home)
    assert done.code == 4 and "not the base model that the adapter was trained on" in done.err
    assert_nothing_left(home)
    weights.write_bytes(kept)
    flip(home.versions / "v001" / "adapter_model.safetensors")
    with open_state(home) as state, pytest.raises(VerificationFailed, match="adapter_model"):
        merge(state)
    assert_nothing_left(home)


def test_the_base_is_the_one_that_the_version_itself_names(state: State) -> None:
    """Brought from another home, say: this home's own base would fit its shapes."""
    path = state.home.versions / "v001" / "version.json"
    info = json.loads(path.read_text())
    assert info["model"]["base_digest"] == merged.base_digest(state, versions.get(state, "v001"))
    info["model"]["base_digest"] = "c" * 64
    path.chmod(0o600)
    path.write_text(json.dumps(info))
    assert merged.base_digest(state, versions.get(state, "v001")) == "c" * 64


def test_the_end_of_an_engine_breaks_it_off_and_leaves_nothing(state: State) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Refused, match="broken off"):
        merge(state, stop=stop)
    assert_nothing_left(state.home)


def test_without_a_base_it_says_where_it_is_looked_for(state: State) -> None:
    shutil.rmtree(base_of(state.home))
    with pytest.raises(Refused, match="builtin:tiny is not on this machine"):
        merge(state)
