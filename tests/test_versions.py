"""A version costs no disk, is read-only, and is called verified only after every byte was read."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import journal, records
from queue_store.errors import NotFound, Refused, UsageError, VerificationFailed
from snapshots import labels, upkeep, versions
from snapshots.checkpoints import folder_of
from snapshots.listing import checkpoints_json, versions_json
from snapshots.retention import Rules, kept_because
from tests.store_world import ROOT, World, flip, run_killed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.step = 3
    made.save(val_loss=0.4)
    yield made
    made.close()


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_version_of_the_head_is_linked_verified_and_read_only(world: World) -> None:
    head = records.head(world.state)
    assert head
    version = versions.create(world.state, description="the first", pinned=True)
    assert (version.name, version.state, version.step) == ("v001", "verified", 3)
    assert version.verified_at and version.pinned and version.val_loss == 0.4
    folder = versions.version_folder(world.home, version)
    source = folder_of(world.home, head.checkpoint)
    for name in ("model.safetensors", "optimizer.safetensors", "rng.json", ".ledger.json"):
        assert inode(folder / name) == inode(source / name)
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o222 == 0
    info = json.loads((folder / "version.json").read_text())
    assert info["description"] == "the first" and info["checkpoint"] == head.checkpoint.id
    assert version.weights_digest == head.checkpoint.weights_digest
    kinds = [event.kind for event in journal.latest(world.state)]
    assert kinds[-2:] == ["version", "version.verified"]
    assert not list(world.home.tmp.iterdir())


def test_a_version_survives_the_removal_of_its_checkpoint(world: World) -> None:
    version = versions.create(world.state)
    for step in (4, 5):
        world.step = step
        world.save()
    upkeep.prune_checkpoints(world.state, keep=1)
    with pytest.raises(NotFound):
        versions.create(world.state, records.checkpoint(world.state, version.checkpoint))
    assert versions.verify(world.state, "v001").state == "verified"


def test_a_version_of_the_weights_leaves_the_training_state_out(world: World) -> None:
    version = versions.create(world.state, scope=versions.WEIGHTS)
    folder = versions.version_folder(world.home, version)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "manifest.json", "model.safetensors", "version.json"]
    assert version.state == "verified"


def test_the_base_model_becomes_a_version_by_its_digest(tmp_path: Path) -> None:
    world = World(tmp_path / "fresh")
    version = versions.create(world.state)
    assert (version.scope, version.state, version.step) == ("base", "verified", 0)
    assert version.weights_digest == "b" * 64
    with pytest.raises(Refused):
        versions.create(world.state, scope=versions.WEIGHTS)
    world.close()


@pytest.mark.parametrize("file", ["model.safetensors", "rng.json", "version.json", "manifest.json"])
def test_damage_is_found_told_and_remembered(file: str, world: World) -> None:
    version = versions.create(world.state)
    flip(versions.version_folder(world.home, version) / file)
    with pytest.raises(VerificationFailed) as failure:
        versions.verify(world.state, "v001")
    assert failure.value.exit_code == 4 and "\n" not in str(failure.value)
    assert versions.get(world.state, "v001").state == "corrupt"
    event = journal.latest(world.state, 1)[0]
    assert event.kind == "version.corrupt" and event.data["problems"]


def test_a_version_made_of_a_damaged_checkpoint_is_never_called_verified(world: World) -> None:
    head = records.head(world.state)
    assert head
    flip(folder_of(world.home, head.checkpoint) / "optimizer.safetensors")
    with pytest.raises(VerificationFailed):
        versions.create(world.state)
    assert [v.state for v in versions.versions(world.state)] == ["corrupt"]


def test_a_verification_that_is_killed_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    versions.create(world.state, verified=False)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(VerificationFailed, match="did not finish"):
        versions.verify(world.state, "v001")
    monkeypatch.delenv("PYTHONPATH")
    assert versions.get(world.state, "v001").state == "unverified"
    assert versions.verify(world.state, "v001").state == "verified"


def test_the_verifier_runs_from_any_folder_and_says_what_it_found(
    world: World, tmp_path: Path
) -> None:
    folder = versions.version_folder(world.home, versions.create(world.state))
    elsewhere = tmp_path / "elsewhere" / "snapshots"
    elsewhere.mkdir(parents=True)
    (elsewhere / "__init__.py").write_text("raise SystemExit('the wrong one')")
    before = Path.cwd()
    os.chdir(elsewhere.parent)
    try:
        assert versions.verify(world.state, "v001").state == "verified"
    finally:
        os.chdir(before)
    flip(folder / "rng.json")
    done = subprocess.run(
        [sys.executable, "-m", "snapshots.verify", str(folder)],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    answer = json.loads(done.stdout)
    assert done.returncode == 4 and not answer["ok"]
    assert [p["name"] for p in answer["problems"]] == ["rng.json"]


def test_numbers_are_never_given_twice(world: World) -> None:
    versions.create(world.state, verified=False)
    run_killed(
        "from snapshots import versions\nversions.create(world.state)",
        world.home.root,
        "version.sealed",
    )
    upkeep.recover(world.state)
    assert versions.recover_versions(world.state) == []
    assert versions.create(world.state, verified=False).name == "v003"


@pytest.mark.parametrize(
    ("point", "state"),
    [
        ("publish.renamed", "unverified"),
        ("version.committed", "unverified"),
        ("version.verified", "verified"),
    ],
)
def test_a_kill_while_a_version_is_made_loses_no_complete_one(
    point: str, state: str, world: World
) -> None:
    code = "from snapshots import versions\nversions.create(world.state, description='mine')"
    run_killed(code, world.home.root, point)
    upkeep.recover(world.state)
    told = versions.recover_versions(world.state)
    assert len(told) == (1 if point == "publish.renamed" else 0)
    (version,) = versions.versions(world.state)
    assert (version.state, version.description) == (state, "mine")
    assert versions.recover_versions(world.state) == []
    assert versions.verify(world.state, "v001").state == "verified"


def test_half_a_version_folder_is_set_apart(world: World) -> None:
    code = "from snapshots import versions\nversions.create(world.state)"
    run_killed(code, world.home.root, "publish.renamed")
    (world.home.versions / "v001" / "rng.json").unlink()
    (told,) = versions.recover_versions(world.state)
    assert "set apart" in told and not versions.versions(world.state)
    assert (world.home.quarantine / "v001").is_dir()


def test_versions_are_found_by_name_number_and_tag(world: World) -> None:
    versions.create(world.state, verified=False)
    versions.create(world.state, verified=False)
    labels.tag(world.state, "v002", "good-one")
    labels.tag(world.state, "2", "other")
    for name in ("v002", "2", "good-one", "other"):
        assert versions.get(world.state, name).name == "v002"
    assert versions.get(world.state, "v002").tags == ("good-one", "other")
    with pytest.raises(NotFound, match="no version v009"):
        versions.get(world.state, "v009")
    with pytest.raises(Refused, match="v002"):
        labels.tag(world.state, "v001", "good-one")
    for wrong in ("v003", "17", "a b", "", "../x"):
        with pytest.raises(UsageError):
            labels.tag(world.state, "v001", wrong)


def test_the_list_has_the_promised_fields_and_says_why_each_is_kept(world: World) -> None:
    versions.create(world.state, description="one")
    world.step = 9
    world.save()
    versions.create(world.state, verified=False)
    labels.pin(world.state, "v001")
    first, second = versions_json(world.state)
    promised = (
        "name branch step created description size_bytes verified_at kind pinned tags "
        "kept_because loss val_loss weights_digest"
    )
    assert set(promised.split()) <= first.keys()
    assert first["pinned"] and "pinned" in first["kept_because"]
    assert "latest 2 verified" in first["kept_because"]
    assert first["size_bytes"] > 4000 and len(first["weights_digest"]) == 64
    assert second["verified_at"] == {"unknown": "it is unverified"}
    assert (
        second["kept_because"] == ["head", "not verified yet"] and "unknown" in second["val_loss"]
    )
    labels.pin(world.state, "v001", pinned=False)
    assert not versions.get(world.state, "v001").pinned
    json.dumps(versions_json(world.state))


def test_rules_count_verified_versions_in_the_order_of_their_ids(world: World) -> None:
    for _ in range(4):
        versions.create(world.state, verified=False)
    world.state.db.execute("UPDATE versions SET state = 'verified' WHERE id <> 4")
    world.state.db.execute("UPDATE versions SET created = created - 86400 * 40 WHERE id = 3")
    world.state.db.execute("UPDATE versions SET created = created + 86400 * 40 WHERE id = 2")
    reasons = kept_because(world.state, Rules(last=1, daily=2, weekly=0))
    assert "last 1" in reasons["v003"] and "latest 2 verified" in reasons["v002"]
    assert "daily, 2 days" in reasons["v001"] and "daily, 2 days" in reasons["v003"]
    assert "daily, 2 days" not in reasons["v002"]  # from the future
    assert reasons["v004"] == ["head", "not verified yet"]


def test_checkpoints_are_listed_with_the_promised_fields(world: World) -> None:
    base, saved = checkpoints_json(world.state)
    promised = "id name branch step item cursor created size_bytes loss val_loss complete"
    assert set(promised.split()) <= saved.keys()
    assert base["kind"] == "base" and saved["complete"] and saved["val_loss"] == 0.4
    json.dumps([base, saved])


def test_a_version_whose_row_cannot_be_written_leaves_no_folder(world: World) -> None:
    world.state.db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON versions"
        " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    )
    with pytest.raises(sqlite3.Error, match="full"):
        versions.create(world.state)
    world.state.db.execute("DROP TRIGGER full")
    assert not list(world.home.versions.iterdir()) and not list(world.home.tmp.iterdir())
    assert versions.recover_versions(world.state) == []
    assert versions.create(world.state).name == "v002", "the number is used up"
