"""The list of every model on the host: what is the same model has the same digest."""

from __future__ import annotations

import json

from snapshots import versions
from snapshots.models import models
from tests.store_world import World, write_safetensors


def base(world: World, name: str, value: int):
    folder = world.home.models / name
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    path = folder / "model.safetensors"
    write_safetensors(path, {"w": ("F32", (4,), bytes([value]) * 16)})
    return path


def test_base_models_checkpoints_versions_and_copies_are_in_one_list(tmp_path) -> None:
    world = World(tmp_path)
    base(world, "one", 1)
    saved = world.train(world.add())
    version = versions.create(world.state)
    with world.state.transaction() as db:
        db.execute(
            "INSERT INTO copies(version, target, state, created, verified_at, manifest_digest)"
            " VALUES(?, 'nas', 'verified', 1.0, 2.0, ?)",
            (version.id, version.manifest_digest),
        )
    found = models(world.state)
    assert [(m["name"], m["kind"]) for m in found] == [
        ("one", "base"),
        (saved.name, "checkpoint"),
        ("v001", "version"),
        ("v001", "copy"),
    ]
    assert len({m["weights_digest"] for m in found[1:]}) == 1
    assert found[1]["use"] == "head" and found[3]["target"] == "nas"
    world.close()


def test_a_base_models_digest_is_read_once_and_again_when_its_file_changes(
    tmp_path, monkeypatch
) -> None:
    world = World(tmp_path)
    path = base(world, "one", 1)
    first = models(world.state)[0]["weights_digest"]
    monkeypatch.setattr("snapshots.models.weights_digest", lambda _: "read again")
    assert models(world.state)[0]["weights_digest"] == first
    path.unlink()
    write_safetensors(path, {"w": ("F32", (4,), bytes(16))})
    assert models(world.state)[0]["weights_digest"] == "read again"
    world.close()


def test_a_damaged_base_model_says_why_its_digest_is_unknown(tmp_path, trainctl) -> None:
    world = World(tmp_path)
    world.home.config.write_text("")
    base(world, "torn", 1).write_bytes(b"torn")
    world.close()
    done = trainctl("models", "--json", home=world.home)
    assert done.code == 0, done.err
    assert "cut" in json.loads(done.out)[0]["weights_digest"]["unknown"]
    assert trainctl("models", home=world.home).out.startswith("name")
