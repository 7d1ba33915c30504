"""A deep verification finds what no digest can: files that are as written and are no model."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.training.layout import INDEX
from engine.verify import verifying
from engine.verify.deep_verify import _words, examine
from queue_store import journal, records
from queue_store.database import State, open_state
from queue_store.errors import NotFound, VerificationFailed
from queue_store.home import Home
from snapshots import child, manifest, versions
from snapshots.verify import Outcome
from tests.engine_kit import add, make_home, train_all

Damage = Callable[[Path], None]


def trained(folder: Path, method: str) -> Home:
    """A home that has trained a file, with v001 of its head: the whole state."""
    home = make_home(folder, model={"method": method}, training={"save_steps": 100})
    add(home, "a.jsonl", 8)
    train_all(home)
    with open_state(home) as state:
        versions.create(state)
        versions.create(state, scope=versions.WEIGHTS)
    return home


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return trained(tmp_path_factory.mktemp("deep") / "full", "full")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return trained(tmp_path_factory.mktemp("deep") / "lora", "lora")


@pytest.fixture
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[State]:
    """A copy of the home that the test names (`full` or `adapter`), to damage at will."""
    home: Home = request.getfixturevalue(getattr(request, "param", "full"))
    shutil.copytree(home.root, tmp_path / "home", symlinks=True)
    with open_state(Home(tmp_path / "home")) as state:
        yield state


def deep(state: State, name: str = "v001") -> dict[str, Any]:
    """In a child process, as everybody asks for it."""
    return verifying.outcome(state, name, deep=True)


def examined(state: State, name: str = "v001") -> dict[str, Any]:
    """What that child would answer, without the seconds in which it loads its libraries; and
    what is written down of it."""
    version = versions.get(state, name)
    answer = examine(_words(verifying.deep_words(state, version)))
    with contextlib.suppress(VerificationFailed):
        versions.record(state, version, Outcome.of(answer), deep=True)
    return answer


def plant(state: State, name: str, damage: Damage) -> None:
    """Damage a version's files, and write a manifest that agrees with them."""
    version = versions.get(state, name)
    folder = versions.version_folder(state.home, version)
    for path in folder.iterdir():
        path.chmod(0o600)
    damage(folder)
    (folder / manifest.MANIFEST).unlink()
    sealed = manifest.build(folder, kind="version", id=version.id, made_by="test", created="now")
    manifest.write_manifest(folder, sealed)
    state.db.execute(
        "UPDATE versions SET manifest_digest = ? WHERE id = ?", (sealed.digest, version.id)
    )


@pytest.mark.parametrize("state", ["full", "adapter"], indirect=True)
def test_a_whole_version_loads_and_computes(state: State) -> None:
    found = deep(state)
    assert found["ok"], found
    looked = {check["check"]: check["text"] for check in found["checks"]}
    assert list(looked) == [
        *("bytes", "headers", "weights", "numbers", "forward pass"),
        *("training state", "generators", "ledger", "optimizer"),
    ]
    assert "adamw took the state of" in looked["optimizer"]
    version = versions.get(state, "v001")
    assert version.deep_verified_at == version.verified_at is not None
    assert versions.untouched(state, version)
    assert journal.latest(state, 1)[0].kind == "version.deep_verified"


@pytest.mark.parametrize("state", ["full", "adapter"], indirect=True)
def test_of_weights_alone_it_says_what_it_did_not_look_at(state: State) -> None:
    found = examined(state, "v002")
    assert found["ok"], found
    last = found["checks"][-1]
    assert last["text"] == "not looked at: the version holds weights only"


def rewrite(folder: Path, file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        found = (*folder.glob("model.safetensors"), *folder.glob("adapter_model.safetensors"))
        rewrite(folder, found[0].name, change)
        # It would tell already; a version of a release before has none.
        (folder / INDEX).unlink(missing_ok=True)

    return damage


def against_the_index(folder: Path) -> None:
    rewrite(folder, "model.safetensors", missing)


def state_of(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    return lambda folder: rewrite(folder, "optimizer.safetensors", change)


def largest(tensors: dict[str, torch.Tensor]) -> str:
    return max(tensors, key=lambda name: (tensors[name].numel(), name))


def nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[largest(tensors)].view(-1)[3] = float("nan")


def missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[largest(tensors)]


def extra(tensors: dict[str, torch.Tensor]) -> None:
    tensors["nobody.knows.it"] = torch.zeros(3)


def narrow(tensors: dict[str, torch.Tensor]) -> None:
    name = largest(tensors)
    tensors[name] = tensors[name][:-1].contiguous()


def renamed(tensors: dict[str, torch.Tensor]) -> None:
    name = largest(tensors)
    tensors[f"old.{name}"] = tensors.pop(name)


def edited(name: str, key: str, value: object) -> Damage:
    def damage(folder: Path) -> None:
        raw = json.loads((folder / name).read_text())
        raw[key] = value
        (folder / name).write_text(json.dumps(raw))

    return damage


def overlap(folder: Path) -> None:
    """Two tensors that share their bytes: the file is as long as its header says."""
    path = folder / "optimizer.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    same = [n for n in names if header[n]["shape"] == header[names[0]]["shape"] != []]
    header[same[0]]["data_offsets"] = header[same[-1]]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


PLANTED: dict[str, tuple[str, Damage]] = {
    "a NaN among the weights": ("numbers", weights(nan)),
    "a missing tensor": ("weights", weights(missing)),
    "a tensor that the index alone has": ("headers", against_the_index),
    "a tensor of another name": ("weights", weights(renamed)),
    "a tensor of another shape": ("weights", weights(narrow)),
    "a tensor that the model does not have": ("weights", weights(extra)),
    "an optimizer of another shape": ("optimizer", state_of(narrow)),
    "an optimizer without a tensor": ("optimizer", state_of(missing)),
    "a NaN in the optimizer": ("optimizer", state_of(nan)),
    "tensors on top of each other": ("headers", overlap),
    "another step": ("training state", edited("training_state.json", "global_step", 10**6)),
    "an optimizer's rule of another state": ("optimizer", edited("optimizer.json", "kind", "SGD")),
    "generators without a state": ("generators", edited("rng.json", "torch", "AAAA")),
    "no training state": ("training state", lambda f: (f / "training_state.json").write_text("[")),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_the_bytes_do_not_tell_is_found_by_deep_only(name: str, state: State) -> None:
    check, damage = PLANTED[name]
    plant(state, "v001", damage)
    assert versions.verify(state, "v001").state == "verified", "the bytes are as recorded"
    found = examined(state)
    bad = [c["check"] for c in found["checks"] if not c["ok"]]
    assert not found["ok"] and check in bad, found["checks"]
    assert all("\n" not in problem["text"] for problem in found["problems"])
    assert versions.get(state, "v001").state == "corrupt"
    assert versions.get(state, "v001").deep_verified_at is None


@pytest.mark.parametrize("state", ["adapter"], indirect=True)
@pytest.mark.parametrize("change", [nan, missing, narrow, renamed])
def test_damage_of_an_adapter_is_found(change: Callable[..., None], state: State) -> None:
    plant(state, "v001", weights(change))
    assert not examined(state)["ok"]
    assert versions.get(state, "v001").state == "corrupt"


@pytest.mark.parametrize("state", ["adapter"], indirect=True)
def test_an_adapter_on_another_base_is_found_and_a_missing_base_is_no_damage(state: State) -> None:
    state.db.execute("UPDATE checkpoints SET weights_digest = ? WHERE id = 0", ("c" * 64,))
    found = examined(state)
    assert not found["ok"] and "not the one trained on" in found["problems"][0]["text"]
    state.db.execute("UPDATE versions SET state = 'verified'")
    for folder in state.home.models.iterdir():
        shutil.rmtree(folder)
    with pytest.raises(child.Unfinished, match="base model"):
        deep(state)
    assert versions.get(state, "v001").state == "verified"
    assert not list(state.home.models.iterdir()), "a verification makes and fetches nothing"


def test_a_version_of_the_base_model_is_its_folder_by_digest(state: State) -> None:
    base = records.checkpoint(state, 0)
    versions.create(state, base, description="as it came")
    found = examined(state, "v003")
    assert found["ok"], found
    assert [c["check"] for c in found["checks"]][:3] == ["bytes", "digest", "headers"]
    state.db.execute("UPDATE versions SET weights_digest = ? WHERE id = 3", ("c" * 64,))
    assert not examined(state, "v003")["ok"]


def test_a_changed_byte_is_found_before_anything_is_loaded(state: State) -> None:
    path = state.home.versions / "v001" / "model.safetensors"
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = examined(state)
    assert not found["ok"] and [c["check"] for c in found["checks"]] == ["bytes"]


def test_a_version_that_was_deleted_meanwhile_is_not_called_damaged(state: State) -> None:
    version = versions.get(state, "v001")
    state.db.execute("UPDATE versions SET state = 'deleting' WHERE id = 1")
    for problems in ([], [manifest.Problem("missing", "x", "x is missing")]):
        with pytest.raises(NotFound, match="being deleted"):
            versions.record(state, version, Outcome(problems, "", []))
    assert versions.get(state, "v001").state == "deleting"
    state.db.execute("DELETE FROM versions WHERE id = 1")
    problem = manifest.Problem("missing", "x", "x is missing")
    before = journal.last_seq(state)
    with pytest.raises(NotFound):
        versions.record(state, version, Outcome([problem], "", []))
    assert journal.last_seq(state) == before
    with pytest.raises((NotFound, VerificationFailed)):
        deep(state)
