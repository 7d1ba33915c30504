"""tag, describe, diff, verify and the forms of versions, with an engine and without."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.sessions.dispatch import Dispatcher
from engine.sessions.server import Server
from queue_store import journal
from queue_store.database import open_state
from queue_store.home import Home
from snapshots import labels, versions
from tests.engine_kit import Running, add, make_home
from tests.store_world import ROOT, World, flip, write_safetensors
from tests.test_cli_versions import VERSION
from tests.waiting import wait_until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two versions: of step 10 and of step 20."""
    world = World(tmp_path / "home")
    world.home.config.write_text("")
    for name in ("a.jsonl", "b.jsonl"):
        world.train(world.add(name), val_loss=0.5)
        versions.create(world.state, description=f"after {name}")
    yield world
    world.close()


def out(done) -> object:
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_tag_names_a_version_until_it_is_taken_off(world, trainctl) -> None:
    made = out(trainctl("tag", "v001", "good", "--json", home=world.home))
    assert made["tags"] == ["good"] and set(made) >= VERSION
    assert out(trainctl("versions", "good", "--json", home=world.home))["name"] == "v001"
    taken = trainctl("tag", "v002", "good", home=world.home)
    assert taken.code == 1 and "v001" in taken.err and "--off" in taken.err
    assert trainctl("tag", "v002", "v003", home=world.home).code == 2
    assert out(trainctl("tag", "good", "good", "--off", "--json", home=world.home))["tags"] == []
    again = trainctl("tag", "v001", "good", "--off", home=world.home)
    assert again.code == 1 and again.err.count("\n") == 1
    kinds = [event.kind for event in journal.latest(world.state, 2)]
    assert kinds == ["version.tagged", "version.tagged"]


def test_a_description_can_be_changed_and_the_files_stay(world, trainctl) -> None:
    file = world.home.versions / "v001" / "version.json"
    before = file.read_bytes()
    made = out(trainctl("describe", "1", "the good one", "--json", home=world.home))
    assert made["description"] == "the good one" and file.read_bytes() == before
    event = journal.latest(world.state, 1)[0]
    assert event.kind == "version.described" and event.data["before"] == "after a.jsonl"
    assert trainctl("verify", "v001", home=world.home).code == 0
    assert trainctl("describe", "v001", "x" * 4001, home=world.home).code == 2
    assert trainctl("describe", "v009", "x", home=world.home).code == 1
    assert out(trainctl("describe", "v001", "", "--json", home=world.home))["description"] == ""
    shown = trainctl("describe", "v001", "a\x1b]52;c;x\x07b", home=world.home)
    assert shown.code == 0 and "\x1b" not in shown.out


def test_versions_as_a_tree_and_one_in_full(world, trainctl) -> None:
    done = trainctl("rollback", "v001", "--yes", "v001", home=world.home)
    assert done.code == 0, done.err
    tree = trainctl("versions", "--tree", home=world.home)
    lines = tree.out.splitlines()
    assert lines[0] == "base model" and lines[1].startswith("v001  step 10")
    assert "training stands here" in lines[1]
    assert [line.split()[:2] for line in lines[2:]] == [["|-", "v002"], ["|-", "v003"]]
    assert all("rolled back" in line for line in lines[2:])
    rows = out(trainctl("versions", "--tree", "--json", home=world.home))
    assert [row["parent"] for row in rows][1:] == ["v001", "v001"]
    assert [row["rolled_back"] for row in rows] == [False, True, True]

    found = out(trainctl("versions", "v002", "--json", home=world.home))
    assert set(found) >= VERSION | {"files", "items", "line", "own_bytes", "shared_bytes"}
    shown = trainctl("versions", "v002", home=world.home)
    assert "one copy under two names" in shown.out and "only here" in shown.out
    assert "model.safetensors" in shown.out and "b.jsonl" in shown.out
    assert trainctl("versions", "v009", home=world.home).code == 1
    assert trainctl("versions", "v002", "--tree", home=world.home).code == 2


def test_versions_of_a_home_without_any(home, trainctl) -> None:
    for words in (["versions"], ["versions", "--tree"]):
        done = trainctl(*words, home=home)
        assert done.code == 0 and "no version yet" in done.out
    assert trainctl("versions", "v001", home=home).code == 1
    assert trainctl("diff", "v001", "v002", home=home).code == 1


def test_diff_tells_rows_files_and_how_far_the_weights_moved(world, trainctl) -> None:
    for number, values in ((1, (1.0, 2.0, 4.0)), (2, (1.0, 2.5, 4.0))):
        path = world.home.versions / f"v{number:03}" / "model.safetensors"
        path.chmod(0o600)
        same = ("F32", (2,), struct.pack("<2f", 1, 2))
        moved = ("F32", (3,), struct.pack("<3f", *values))
        write_safetensors(path, {"same": same, "moved": moved})
    found = out(trainctl("diff", "v001", "v002", "--json", home=world.home))
    assert found["steps"] == {"a": 0, "b": 10}
    assert [item["name"] for item in found["items"]] == ["b.jsonl"]
    (tensor,) = found["tensors"]["tensors"]
    assert found["tensors"]["equal"] == 1 and tensor["name"] == "moved"
    assert tensor["max_abs"] == 0.5 and tensor["mean_abs"] == pytest.approx(0.5 / 3)
    shown = trainctl("diff", "v001", "v002", home=world.home)
    assert shown.code == 0 and "1 tensors differ" in shown.out and "b.jsonl" in shown.out
    quick = out(trainctl("diff", "v001", "v002", "--no-tensors", "--json", home=world.home))
    assert quick["tensors"] == {"unknown": "not asked for"}
    same_one = trainctl("diff", "v001", "v001", home=world.home)
    assert "the same, bit for bit" in same_one.out


def test_diff_of_damaged_weights_is_one_line(world, trainctl) -> None:
    path = world.home.versions / "v001" / "model.safetensors"
    path.chmod(0o600)
    path.write_bytes(b"\xff" * 40)
    done = trainctl("diff", "v001", "v002", home=world.home)
    assert done.code == 4 and done.err.count("\n") == 1 and "Traceback" not in done.err


def test_verify_deep_of_what_is_no_model_exits_4(world, trainctl) -> None:
    assert trainctl("verify", "v001", home=world.home).code == 0
    done = trainctl("verify", "v001", "--deep", "--json", home=world.home)
    assert done.code == 4 and "cannot be trained on" in done.err and done.err.count("\n") == 1
    (row,) = json.loads(done.out)
    assert row["ok"] is False and row["deep"] is True
    bad = [check["check"] for check in row["checks"] if not check["ok"]]
    assert "weights" in bad and "bytes" not in bad


def test_a_reading_that_does_not_finish_is_not_called_damage(world, trainctl, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'snapshots.verify' in sys.orig_argv and sys.orig_argv[-2].endswith('v001'):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = trainctl("verify", "--json", home=world.home, PYTHONPATH=f"{broken}:{ROOT}")
    assert done.code == 4 and "did not finish" in done.err and "v001" in done.err
    first, second = json.loads(done.out)
    assert first["unfinished"] and not first["ok"] and second["ok"], "the others are read"
    assert "killed by signal 9" in first["problem"]
    rows = out(trainctl("versions", "--json", home=world.home))
    assert [row["state"] for row in rows] == ["verified", "verified"]


def test_after_a_rollback_a_damaged_state_that_was_left_is_told(world, trainctl) -> None:
    world.train(world.add("c.jsonl"))
    (newest,) = [p for p in world.home.checkpoints.iterdir() if "-30-" in p.name]
    flip(newest / "optimizer.safetensors")
    done = trainctl("rollback", "v002", "--yes", "v002", home=world.home)
    assert done.code == 4 and done.err.count("\n") == 1
    assert "training stands on v002" in done.err and "v003" in done.err
    rows = out(trainctl("versions", "--json", home=world.home))
    assert rows[2]["state"] == "corrupt" and isinstance(rows[1]["verified_at"], float)


def test_going_back_is_refused_where_config_names_another_model(world, trainctl) -> None:
    locked = {
        "model.base": "builtin:tiny",
        "model.method": "full",
        "model.name": "x",
        "training.max_length": 1,
    }
    world.state.meta_set("locked", locked)
    done = trainctl("restore", "v001", "--yes", "v001", home=world.home)
    assert done.code == 2 and "model." in done.err and done.err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a small filesystem, so root")
def test_a_full_disk_makes_no_version_and_leaves_nothing(world, trainctl, tmp_path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=False
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        small = World(place / "home")
        small.home.config.write_text("")
        small.step = 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("snapshots.checkpoints.MARGIN", 0)
            small.save()
        filler = place / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"\0" * 4096):
                    pass
            except OSError:
                pass
        with pytest.raises(Exception) as failed:
            versions.create(small.state)
        assert "full" in str(failed.value) or "space" in str(failed.value)
        filler.unlink()
        assert versions.versions(small.state) == []
        assert not list(small.home.versions.iterdir()) and not list(small.home.tmp.iterdir())
        assert versions.create(small.state).state == "verified"
        small.close()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


# -- with an engine --------------------------------------------------------------------------


@contextlib.contextmanager
def served(home: Home) -> Iterator[Running]:
    """An engine that has trained its queue, behind its socket."""
    with Running(home) as running:
        running.unpause()
        running.wait_trained()
        dispatcher = Dispatcher(running.engine)
        server = Server(home, dispatcher)
        server.start()
        try:
            yield running
        finally:
            server.stop()
            dispatcher.close()


@pytest.mark.parametrize(
    ("name", "why"), [("best", "moves by a paired test alone"), ("base", "the base model")]
)
def test_a_name_with_a_meaning_of_its_own_is_no_tag_to_give(world, trainctl, name, why) -> None:
    refused = trainctl("tag", "v001", name, home=world.home)
    assert refused.code == 1 and why in refused.err and refused.err.count("\n") == 1
    assert versions.get(world.state, "v001").tags == ()
    labels.move_best(world.state, "v001", "a paired test", {})
    # Also where it is there already: what a person gets told does not depend on it.
    assert trainctl("tag", "v001", name, home=world.home).code == 1
    assert trainctl("tag", "v001", "best", "--off", home=world.home).code == 0
    assert versions.get(world.state, "v001").tags == ()


@pytest.mark.slow
def test_a_running_engine_verifies_labels_and_goes_back(tmp_path, trainctl) -> None:
    home = make_home(tmp_path / "home", training={"save_steps": 2})
    add(home, "a.jsonl", 8)
    with served(home) as running:
        assert trainctl("snapshot", "-m", "one", home=home).code == 0
        assert out(trainctl("tag", "v001", "good", "--json", home=home))["tags"] == ["good"]
        said = out(trainctl("describe", "good", "other words", "--json", home=home))
        assert said["description"] == "other words"
        (row,) = out(trainctl("verify", "good", "--json", home=home))
        assert row["ok"] and row["name"] == "v001" and row["problem"] == ""
        add(home, "b.jsonl", 8, seed=2)
        running.engine.wake()
        running.wait_trained()
        done = out(trainctl("restore", "good", "--yes", "v001", "--json", home=home))
        assert done["target"] == "v001" and done["version"] == "v002"
        # The version of what was left is read back meanwhile.
        with open_state(home) as state:
            wait_until(lambda: versions.get(state, "v002").state == "verified", 30)
        flip(home.versions / "v002" / "optimizer.safetensors")
        refused = trainctl("restore", "v002", "--yes", "v002", home=home)
        assert refused.code == 4 and "optimizer.safetensors" in refused.err
        assert running.status["global_step"] == done["step"]
        bad = trainctl("verify", "v002", "--json", home=home)
        assert bad.code == 4 and json.loads(bad.out)[0]["ok"] is False


@pytest.mark.slow
def test_a_running_engine_verifies_deep(tmp_path, trainctl) -> None:
    home = make_home(tmp_path / "home", training={"save_steps": 2})
    add(home, "a.jsonl", 8)
    with served(home):
        assert trainctl("snapshot", home=home).code == 0
        (row,) = out(trainctl("verify", "v001", "--deep", "--json", home=home))
        assert row["ok"] and isinstance(row["deep_verified_at"], float)
        assert "optimizer" in [check["check"] for check in row["checks"]]
