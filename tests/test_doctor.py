"""doctor: finds what is wrong, says what to do, and changes nothing."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import time
from pathlib import Path

import pytest

from queue_store import database, dbbackup, intake, journal, records, transitions
from queue_store.home import Home
from queue_store.items import ItemState
from queue_store.metrics import Metrics
from snapshots import versions
from tests.small_disk import small_disk
from tests.store_world import LINE, World, flip
from tests.test_rebuild import Story
from trainctl.commands import doctor
from trainctl.doctor import gpu, outside, packages, places
from trainctl.doctor.check import Check

GPUS = gpu.gpus

ROW = '{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}\n'


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one test asks torch itself: that takes seconds."""
    monkeypatch.setattr(gpu, "gpus", lambda: iter(()))


def checks(home: Home, *, quick: bool = False) -> dict[str, Check]:
    from trainctl.context import Context

    return {check.name: check for check in doctor.checks(Context(str(home.root)), quick=quick)}


@pytest.fixture
def world(tmp_path: Path):
    """A home with two checkpoints, a version, and metrics of every step."""
    world = Story(tmp_path / "home")
    world.home.config.write_text("")
    world.train(world.add())
    versions.create(world.state)
    world.train(world.add("b.jsonl"), 4)
    transitions.suspend(world.state, 2, "stopped", "stopped")
    yield world
    world.close()


def files(home: Home) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(home.root)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in home.root.rglob("*")
        if p.is_file()
    }


def test_it_writes_nothing_and_finds_a_trained_home_well(world: Story) -> None:
    world.close()
    before = files(world.home)
    found = checks(world.home)
    assert files(world.home) == before
    wrong = [check for check in found.values() if not check.ok and check.name != "filesystem"]
    assert not wrong
    assert "every byte" in found["digests of the head"].found
    assert found["rows trained once"].found == "2 items on the head's line"
    assert found["versions"].found == "1 verified"
    quick = checks(world.home, quick=True)
    assert "digests of the head" not in quick and "rows trained once" not in quick


def test_a_running_writer_is_not_disturbed(world: Story) -> None:
    with world.state.transaction():
        journal.record(world.state, "note", "held open")
        assert checks(world.home)["state.db"].ok
    assert journal.events(world.state, kinds=["note"])


def test_a_lost_database_is_found_with_the_verb_that_mends_it(world: Story) -> None:
    world.close()
    for path in world.home.store.glob("state.db*"):
        path.unlink()
    found = checks(world.home)["state.db"]
    assert not found.ok and "2 checkpoints" in found.found and "trainctl rebuild" in found.advice
    assert not world.home.state_db.exists()


def test_a_flipped_byte_of_the_head_is_found_unless_quick(world: Story) -> None:
    head = records.head(world.state)
    assert head is not None
    flip(world.home.checkpoints / head.checkpoint.name / "optimizer.safetensors")
    found = checks(world.home)
    assert found["head"].ok, "its length is right"
    assert not found["digests of the head"].ok
    assert "optimizer.safetensors" in found["digests of the head"].found
    assert all(c.ok for c in checks(world.home, quick=True).values() if c.name != "filesystem")


def test_another_digest_of_a_waiting_item_is_found(world: Story) -> None:
    item = world.add("c.jsonl")
    flip(world.home.items / item.file)
    found = checks(world.home)["digests of items"]
    assert not found.ok and str(item.id) in found.found and found.advice


def test_what_has_no_row_and_what_was_left_in_tmp_are_found(world: Story) -> None:
    (world.home.checkpoints / "checkpoint-9-20260101-0000").mkdir()
    (world.home.tmp / "checkpoint-1-x").mkdir()
    (world.home.items / "1-1.99-x.jsonl").write_text(LINE)
    found = checks(world.home)["leftovers"]
    assert not found.ok and "start the engine" in found.advice
    for name in ("checkpoint-9", "1-1.99-x", "tmp/"):
        assert name in found.found, found
    assert (world.home.tmp / "checkpoint-1-x").exists()


def test_a_version_without_a_file_is_found(world: Story) -> None:
    folder = world.home.versions / "v001"
    (folder / "model.safetensors").unlink()
    found = checks(world.home)["versions"]
    assert not found.ok and "model.safetensors is missing" in found.found


def test_an_item_that_was_training_when_all_died_is_found(world: Story) -> None:
    transitions.move_state(world.state, 2, ItemState.PREPARING, "prepares")
    transitions.training(world.state, 2, "trains")
    found = checks(world.home)["attempts"]
    assert not found.ok and "item 2" in found.found


def test_a_row_that_trained_twice_is_found(world: Story) -> None:
    metrics = Metrics(world.home)
    metrics.db.execute("UPDATE steps SET cursor_from = 3 WHERE item = 1 AND cursor_from = 5")
    metrics.close()
    found = checks(world.home)["rows trained once"]
    assert not found.ok and "item 1: row 5, then row 3" in found.found


def test_a_journal_that_could_be_altered_is_found(world: Story) -> None:
    world.state.db.execute("DROP TRIGGER events_stay")
    assert not checks(world.home)["journal"].ok


def test_times_of_the_future_are_found(world: Story) -> None:
    later = time.time() + 90_000
    world.state.db.execute("UPDATE versions SET created = ?", (later,))
    found = checks(world.home)["clock"]
    assert not found.ok and "ahead" in found.found and found.advice


def test_old_and_damaged_copies_of_the_database_are_found(world: Story) -> None:
    assert checks(world.home)["copies of state.db"].ok
    made = dbbackup.copy(world.home, world.home.state_db)
    assert checks(world.home)["copies of state.db"].ok
    os.utime(made.path, (0, time.time() - 5 * dbbackup.DAY))
    for _ in range(3):
        with world.state.transaction():
            journal.record(world.state, "note", "since")
    assert not checks(world.home)["copies of state.db"].ok
    made.path.write_bytes(made.path.read_bytes()[:8000])
    found = checks(world.home)["copies of state.db"]
    assert not found.ok and "damaged" in found.found


def test_room_is_measured_against_the_settings(world: Story) -> None:
    world.home.config.write_text('[snapshots]\nstop_free = "900 TB"\nwarn_free = "901 TB"\n')
    found = checks(world.home)["disk"]
    assert not found.ok and "stop_free" in found.advice
    world.home.config.write_text('[snapshots]\nwarn_free = "901 TB"\n')
    assert "warn_free" in checks(world.home)["disk"].advice


def test_a_filesystem_in_memory_is_found(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as place:
        home = Home(place / "home")
        home.create()
        found = places.filesystem(home)
        assert not found.ok and "tmpfs" in found.found and "boot" in found.advice


def test_a_unit_that_ends_with_the_login_is_found(world: Story, monkeypatch, tmp_path) -> None:
    from trainctl.commands.service import unit_path

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(outside, "LINGER", tmp_path / "linger")
    assert outside.systemd(world.home).ok
    unit = unit_path(world.home)
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")
    found = outside.systemd(world.home)
    assert not found.ok and "enable-linger" in found.advice
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / getpass.getuser()).touch()
    assert outside.systemd(world.home).ok


def test_a_kernel_that_cannot_be_imported_is_found(monkeypatch) -> None:
    told = {
        "cuda": False,
        "built_for": "",
        "gpus": [],
        "bf16": False,
        "kernels": {"flash_attn": "ImportError: undefined symbol", "liger_kernel": ""},
        "architectures": ["llama", "qwen3"],
    }
    monkeypatch.setattr(gpu, "ASK_TORCH", f"print({json.dumps(json.dumps(told))})")
    found = {check.name: check for check in GPUS()}
    assert (
        not found["flash_attn kernels"].ok
        and "undefined symbol" in found["flash_attn kernels"].found
    )
    assert found["liger_kernel kernels"].ok
    assert found["liger_kernel kernels"].found == "can be imported, for 2 kinds of model"


def test_a_sound_home_is_well(home, trainctl) -> None:
    done = trainctl("doctor", "--json", home=home)
    report = json.loads(done.out)
    assert done.code == 0 and report["ok"], report
    names = {check["name"] for check in report["checks"]}
    assert {"python", "torch", "textual", "nvidia driver", "permissions", "disk"} <= names
    assert all(check["ok"] and check["found"] for check in report["checks"])
    bits = next(c for c in report["checks"] if c["name"] == "bitsandbytes kernels")
    assert bits["found"].startswith(importlib.metadata.version("bitsandbytes"))
    assert "quantizes on the" in bits["found"]
    assert {"reserve", "filesystem", "systemd", "backup targets", "settings"} <= names


def test_without_a_home_it_checks_the_machine(tmp_path, monkeypatch) -> None:
    from trainctl.context import Context

    monkeypatch.chdir(tmp_path)
    found = {check.name: check for check in doctor.checks(Context())}
    assert found["home"].ok and "trainctl init" in found["home"].advice


def test_a_store_that_others_can_read_is_found(home) -> None:
    home.store.chmod(0o755)
    found = checks(home)["permissions"]
    assert not found.ok and f"chmod 700 {home.store}" in found.advice


def test_wrong_settings_are_found(home) -> None:
    home.config.write_text("[training]\nseeed = 1\n")
    found = checks(home)["settings"]
    assert not found.ok and "did you mean training.seed?" in found.found


def test_a_damaged_database_is_found_and_left_alone(home) -> None:
    with database.open_state(home):
        pass
    data = bytearray(home.state_db.read_bytes())
    data[:16] = b"not a database  "
    home.state_db.write_bytes(data)
    assert not checks(home)["state.db"].ok
    assert home.state_db.read_bytes() == data


def test_an_item_without_its_file_is_found(home, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text(ROW)
    with database.open_state(home) as state:
        item = intake.add_file(state, tmp_path / "a.jsonl")
    assert checks(home)["item files"].ok
    (home.items / item.file).unlink()
    found = checks(home)["item files"]
    assert not found.ok and "1" in found.found and found.advice


def test_a_head_that_was_cut_is_found(tmp_path: Path) -> None:
    world = World(tmp_path / "home")
    world.home.config.write_text("")
    point = world.train(world.add())
    assert checks(world.home)["head"].ok
    weights = world.home.checkpoints / point.name / "model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1])
    found = checks(world.home)["head"]
    assert not found.ok and "model.safetensors" in found.found and "rollback" in found.advice
    world.close()


def test_a_missing_and_an_old_package_are_found(monkeypatch) -> None:
    monkeypatch.setattr(
        packages, "required", lambda: [("no-such-package-here", ">=1"), ("orjson", ">=999")]
    )
    found = {check.name: check for check in packages.packages()}
    assert not found["no-such-package-here"].ok
    assert found["no-such-package-here"].advice == "pip install 'no-such-package-here>=1'"
    assert not found["orjson"].ok and ">=999" in found["orjson"].advice
    assert found["liger-kernel"].ok


def test_every_requirement_is_parsed(monkeypatch) -> None:
    found = dict(packages.required())
    # A build backend may write the clauses of a requirement in another order.
    assert found["textual"].startswith("==")
    assert set(found["torch"].split(",")) == {">=2.9", "<2.14"}
    assert "pytest" not in found and "liger-kernel" not in found
