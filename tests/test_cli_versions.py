"""Versions from the command line with no engine: made, verified, pinned, gone back to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import database, records
from queue_store.lock import EngineLock
from tests.store_world import World, flip

VERSION = {
    *("name", "branch", "step", "created", "description", "size_bytes", "verified_at", "kind"),
    *("pinned", "tags", "kept_because", "loss", "val_loss", "scores", "weights_digest"),
}
CHECKPOINT = {
    *("id", "name", "branch", "step", "item", "cursor", "created", "size_bytes", "loss"),
    *("val_loss", "complete"),
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two items, trained and saved: steps 10 and 20."""
    world = World(tmp_path / "home")
    world.home.config.write_text("")
    for name in ("a.jsonl", "b.jsonl"):
        world.train(world.add(name), val_loss=0.5)
    yield world
    world.close()


def versions(trainctl, world) -> list[dict]:
    return json.loads(trainctl("versions", "--json", home=world.home).out)


def test_checkpoints_and_versions_have_the_promised_fields(world, trainctl) -> None:
    assert trainctl("snapshot", "-m", "first", "--pin", home=world.home).code == 0
    found = versions(trainctl, world)
    assert [row["name"] for row in found] == ["v001"] and set(found[0]) >= VERSION
    assert found[0]["description"] == "first" and found[0]["pinned"] is True
    assert isinstance(found[0]["verified_at"], float) and found[0]["step"] == 20
    rows = json.loads(trainctl("checkpoints", "--json", home=world.home).out)
    assert set(rows[-1]) >= CHECKPOINT and rows[-1]["complete"] and rows[-1]["step"] == 20
    for words in (["versions"], ["checkpoints"]):
        assert trainctl(*words, home=world.home).code == 0


def test_pin_and_its_off(world, trainctl) -> None:
    trainctl("snapshot", home=world.home)
    for words, expected in ((["pin", "v001"], True), (["pin", "v001", "--off"], False)):
        done = trainctl(*words, "--json", home=world.home)
        assert done.code == 0 and json.loads(done.out)["pinned"] is expected
    done = trainctl("pin", "v009", home=world.home)
    assert done.code == 1 and "v009" in done.err and done.err.count("\n") == 1


def test_a_snapshot_of_the_weights_holds_no_optimizer(world, trainctl) -> None:
    whole = json.loads(trainctl("snapshot", "--json", home=world.home).out)
    weights = json.loads(trainctl("snapshot", "--weights-only", "--json", home=world.home).out)
    assert weights["size_bytes"] < whole["size_bytes"]
    assert weights["weights_digest"] == whole["weights_digest"]
    assert not (world.home.versions / weights["name"] / "optimizer.safetensors").exists()


def test_verify_reads_every_byte_and_exits_4_for_one_that_changed(world, trainctl) -> None:
    trainctl("snapshot", home=world.home)
    assert trainctl("verify", home=world.home).code == 0
    flip(world.home.versions / "v001" / "optimizer.safetensors")
    done = trainctl("verify", "v001", "--json", home=world.home)
    assert done.code == 4 and done.err.count("\n") == 1 and "v001" in done.err
    assert json.loads(done.out)[0]["ok"] is False
    back = trainctl("rollback", "v001", "--yes", "v001", home=world.home)
    assert back.code in (1, 4) and "damaged" in back.err


def go_back(world, trainctl) -> str:
    """A version at step 20, and the head at step 30."""
    trainctl("snapshot", "-m", "keep", home=world.home)
    world.train(world.add("c.jsonl"))
    return "v001"


@pytest.mark.parametrize("verb", ["restore", "rollback"])
def test_going_back_wants_the_name_and_keeps_what_was(world, trainctl, verb) -> None:
    name = go_back(world, trainctl)
    refused = trainctl(verb, name, home=world.home)
    assert refused.code == 1 and f"--yes {name}" in refused.err
    wrong = trainctl(verb, name, "--yes", "v007", home=world.home)
    assert wrong.code == 2 and name in wrong.err
    with database.open_state(world.home) as state:
        before = records.head(state)
    assert before is not None and before.checkpoint.step == 30

    done = trainctl(verb, name, "--yes", name, "--json", home=world.home)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["target"] == name and result["step"] == 20
    with database.open_state(world.home) as state:
        after = records.head(state)
    assert after is not None and after.branch == result["branch"] != before.branch
    saved = {row["name"]: row for row in versions(trainctl, world)}[result["version"]]
    assert saved["step"] == 30 and isinstance(saved["verified_at"], float)
    listed = json.loads(trainctl("queue", "--json", home=world.home).out)
    states = {item["name"]: item["state"] for item in listed}
    assert states == {"a.jsonl": "done", "b.jsonl": "done", "c.jsonl": "skipped"}


def test_rollback_without_a_name_takes_the_newest_earlier_version(world, trainctl) -> None:
    go_back(world, trainctl)
    done = trainctl("rollback", "--yes", "v001", "--json", home=world.home)
    assert done.code == 0 and json.loads(done.out)["target"] == "v001"
    nothing = trainctl("rollback", "--yes", "v001", home=world.home)
    assert nothing.code == 1 and nothing.err.count("\n") == 1


def test_a_home_that_is_in_use_is_not_moved(world, trainctl) -> None:
    name = go_back(world, trainctl)
    with EngineLock.acquire(world.home, "console"):
        for words in (["rollback", name, "--yes", name], ["snapshot"], ["verify"]):
            done = trainctl(*words, home=world.home)
            assert done.code == 1 and "runs an engine" in done.err
        assert trainctl("pin", name, home=world.home).code == 0
        assert trainctl("versions", name, home=world.home).code == 0


def test_nothing_trained_means_nothing_to_keep(home, trainctl) -> None:
    for words in (["snapshot"], ["rollback", "--yes", "v001"], ["restore", "v001"], ["pin", "v1"]):
        done = trainctl(*words, home=home)
        assert done.code == 1 and done.err.count("\n") == 1 and "Traceback" not in done.err
    assert trainctl("verify", home=home).code == 0
