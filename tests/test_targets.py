"""A backup at a folder target: read back by digest, resumed after any kill, removed by rule."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import config, journal, programs
from queue_store.errors import ConfigError, NotFound
from snapshots import backup, copies, inuse, manifest, targets, transfer, versions
from snapshots.remote import MARKER
from tests.backup_kit import RUN, configure, folder_table, kinds, make_versions, run, tree
from tests.store_world import World, flip, run_killed


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A target whose name has what breaks careless quoting."""
    return tmp_path / 'the disk\'s "copies" $HOME; ü'


@pytest.fixture
def world(tmp_path: Path, place: Path) -> Iterator[World]:
    made = World(tmp_path / "home")
    configure(made, folder_table("disk", place).replace(str(place), json.dumps(str(place))[1:-1]))
    yield made
    made.close()


def states(world: World) -> dict[str, str]:
    return {copy.name: copy.state for copy in copies.copies(world.state)}


# -- what stands in config.toml ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("copies", "backups.disk.target"),
        ("/mnt/../etc", "backups.disk.target"),
        ("-oProxyCommand=x:copies", "backups.disk.target"),
        ("me@-nas:copies", "backups.disk.target"),
        ("nas:-rf", "backups.disk.target"),
        ("nas:", "backups.disk.target"),
        ("nas:../up", "backups.disk.target"),
        ("nas:~other/x", "backups.disk.target"),
        ("me me@nas:x", "backups.disk.target"),
        ("nas:a\\nb", "backups.disk.target"),
    ],
)
def test_a_target_that_could_be_misread_is_an_error_that_names_the_key(
    world: World, target: str, key: str
) -> None:
    configure(world, f'[backups.disk]\ntarget = "{target}"\n')
    with pytest.raises(ConfigError, match=re.escape(key)) as error:
        config.load(world.home.config)
    assert error.value.mend and "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["/mnt/x y", "nas:copies", "me@nas.lan:/a b/c", "u@[::1]:x"])
def test_folders_and_hosts_are_understood(world: World, target: str) -> None:
    configure(world, f'[backups.disk]\ntarget = "{target}"\n')
    assert str(targets.open_target(config.load(world.home.config), "disk")) == target


def test_a_name_that_is_an_option_and_a_policy_that_keeps_nothing_are_refused(
    world: World,
) -> None:
    configure(world, '[backups."-x"]\ntarget = "/mnt/x"\n')
    with pytest.raises(ConfigError, match="no name for a target"):
        config.load(world.home.config)
    none = "keep_last = 0\nkeep_daily = 0\nkeep_weekly = 0"
    configure(world, folder_table("disk", Path("/mnt/x"), none))
    with pytest.raises(ConfigError, match="keeps nothing"):
        config.load(world.home.config)


def test_a_target_that_is_not_configured_is_named(world: World) -> None:
    with pytest.raises(NotFound, match="no backup target nas"):
        run(world, name="nas")
    configure(world, "")
    with pytest.raises(NotFound, match="no backup target is configured"):
        run(world)


# -- copies ------------------------------------------------------------------------------------


def test_every_verified_version_is_copied_whole_and_read_back(world: World, place: Path) -> None:
    names = make_versions(world, 2)
    done = run(world)[0]
    assert sorted(done["copied"]) == names and not done["error"] and done["same_disk"]
    for name in names:
        assert tree(place / name) == tree(world.home.versions / name)
        assert not manifest.check(place / name, deep=True)
        for path in (place / name).iterdir():
            assert path.stat().st_mode & 0o222 == 0
            assert path.stat().st_ino != (world.home.versions / name / path.name).stat().st_ino
    assert states(world) == {"v001": "verified", "v002": "verified"}
    assert "backup.copied" in kinds(world) and "backup.target" in kinds(world)
    assert sorted(p.name for p in place.iterdir()) == [MARKER, *names]
    assert not list(world.home.tmp.iterdir())
    again = run(world)[0]
    assert not again["copied"] and not again["error"]


def test_files_of_equal_digest_are_links_at_the_target_and_others_never(
    world: World, place: Path
) -> None:
    make_versions(world, 2)
    run(world)
    one, two = place / "v001", place / "v002"
    assert (one / "config.json").stat().st_ino == (two / "config.json").stat().st_ino
    assert (one / "model.safetensors").stat().st_ino != (two / "model.safetensors").stat().st_ino


def test_weights_alone_are_copied_where_that_is_asked(world: World, place: Path) -> None:
    table = folder_table("disk", place, 'what = "weights"')
    configure(world, table.replace(str(place), json.dumps(str(place))[1:-1]))
    make_versions(world, 1)
    assert run(world)[0]["copied"] == ["v001"]
    names = sorted(p.name for p in (place / "v001").iterdir())
    assert names == ["config.json", "manifest.json", "model.safetensors", "version.json"]
    assert json.loads((place / "v001" / "version.json").read_text())["scope"] == "weights"
    assert run(world, action="verify")[0]["verified"] == ["v001"]
    assert not list(world.home.tmp.iterdir())
    shutil.rmtree(world.home.versions / "v001")
    failed = run(world, name="disk", action="fetch", version="v001")[0]
    assert "weights only" in failed["error"]


def test_an_unverified_version_is_not_copied(world: World, place: Path) -> None:
    world.step += 1
    world.save()
    versions.create(world.state, verified=False)
    assert run(world)[0]["copied"] == []
    assert "only verified" in run(world, version="v001")[0]["error"]


def test_a_damaged_original_is_found_before_it_passes_for_a_copy(world: World, place: Path) -> None:
    make_versions(world, 2)
    flip(world.home.versions / "v001" / "model.safetensors")
    done = run(world)[0]
    assert done["copied"] == ["v002"] and done["damaged"][0]["version"] == "v001"
    assert not (place / "v001").exists() and not (place / ".part-v001").exists()
    assert states(world) == {"v001": "failed", "v002": "verified"}


def test_a_byte_that_changed_on_its_way_is_sent_again(
    world: World, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_versions(world, 1)
    target = targets.open_target(config.load(world.home.config), "disk")
    send, sent = type(target).send, []

    def bad_cable(self, source, part, names, progress, cancelled) -> None:
        send(self, source, part, names, progress, cancelled)
        sent.append(part)
        if len(sent) == 1:
            flip(self.root / part / "optimizer.safetensors")

    monkeypatch.setattr(type(target), "send", bad_cable)
    assert run(world)[0]["copied"] == ["v001"] and len(sent) == 2
    assert not manifest.check(place / "v001", deep=True)


def test_a_byte_that_rots_at_the_target_is_found_and_the_copy_made_anew(
    world: World, place: Path
) -> None:
    make_versions(world, 3)
    run(world)
    flip(place / "v002" / "model.safetensors")
    done = run(world, action="verify")[0]
    assert done["verified"] == ["v001", "v003"]
    assert done["damaged"][0]["version"] == "v002"
    assert states(world)["v002"] == "damaged"
    before = journal.last_seq(world.state)
    assert run(world)[0]["copied"] == ["v002"]
    assert kinds(world, before)[:2] == ["backup.replaced", "backup.copied"]
    assert tree(place / "v002") == tree(world.home.versions / "v002")
    assert sorted(p.name for p in place.iterdir()) == [MARKER, "v001", "v002", "v003"]


def test_the_engine_can_break_a_copy_off_and_it_goes_on_later(world: World, place: Path) -> None:
    make_versions(world, 1)
    done = run(world, cancelled=lambda: True)[0]
    assert "broken off" in done["error"] and "backup.failed" not in kinds(world)
    assert run(world)[0]["copied"] == ["v001"]


def test_a_copy_goes_on_where_a_killed_one_stopped(tmp_path: Path) -> None:
    from snapshots import copying
    from snapshots.digest import BLOCK

    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir(), target.mkdir()
    data = os.urandom(2 * BLOCK + 77)
    (source / "big").write_bytes(data)
    # The first block is left alone: that it differs here shows that it was not sent again.
    (target / "big").write_bytes(b"x" * BLOCK + b"cut")
    copying.copy(source, target, ["big"])
    assert (target / "big").read_bytes() == b"x" * BLOCK + data[BLOCK:]


POINTS = (
    *("backup.linked", "backup.sent", "backup.verified", "publish.synced", "publish.renamed"),
    *("backup.published", "backup.committed"),
)


@pytest.mark.parametrize("point", [*POINTS, "backup.sent:2", "backup.published:2"])
def test_a_kill_at_any_point_leaves_no_false_copy_and_the_next_try_finishes(
    world: World, place: Path, point: str
) -> None:
    names = make_versions(world, 2)
    run_killed(RUN, world.home.root, point)
    for name in names:  # whatever bears a version's name is good, and a row tells the truth
        if (place / name).exists():
            assert not manifest.check(place / name, deep=True)
    for copy in copies.copies(world.state):
        assert copy.state != "verified" or (place / copy.name).is_dir()
    assert not run(world)[0]["error"]
    assert states(world) == {"v001": "verified", "v002": "verified"}
    assert sorted(p.name for p in place.iterdir()) == [MARKER, *names]
    for name in names:
        assert tree(place / name) == tree(world.home.versions / name)
    assert kinds(world).count("backup.copied") == 2


@pytest.mark.parametrize("point", ["backup.replacing", "backup.retired", "backup.again"])
def test_a_kill_while_a_damaged_copy_is_replaced_ends_with_a_good_one(
    world: World, place: Path, point: str
) -> None:
    make_versions(world, 1)
    if point == "backup.again":  # what a killed try left is not what it should be
        (place / ".part-v001").mkdir(parents=True)
        real = world.home.versions / "v001" / "model.safetensors"
        (place / ".part-v001" / real.name).write_bytes(bytes(real.stat().st_size))
    else:
        run(world)
        flip(place / "v001" / "model.safetensors")
        assert run(world, action="verify")[0]["damaged"]
    run_killed(RUN, world.home.root, point)
    assert not run(world)[0]["error"]
    assert states(world) == {"v001": "verified"}
    assert tree(place / "v001") == tree(world.home.versions / "v001")
    assert sorted(p.name for p in place.iterdir()) == [MARKER, "v001"]


def test_a_version_is_guarded_while_it_is_copied(world: World, place: Path) -> None:
    make_versions(world, 1)
    version, seen = versions.get(world.state, "v001"), []

    def look(name: str, done: int, whole: int) -> None:
        with inuse.claimed(version.name) as free:
            seen.append(free)

    run(world, progress=look)
    assert seen and not any(seen)
    with inuse.claimed(version.name) as free:
        assert free


# -- whose target, and is it there -------------------------------------------------------------


def test_a_disk_that_is_not_mounted_is_not_filled_silently(world: World, place: Path) -> None:
    make_versions(world, 1)
    run(world)
    away = place.with_name("away")
    place.rename(away)
    place.mkdir()  # the empty mount point
    make_versions(world, 1)
    done = run(world)[0]
    assert "is the disk mounted?" in done["error"] and not list(place.iterdir())
    assert kinds(world).count("backup.failed") == 1
    run(world)
    assert kinds(world).count("backup.failed") == 1, "a reason is told once"
    place.rmdir()
    away.rename(place)
    assert run(world)[0]["copied"] == ["v002"] and kinds(world)[-1] == "backup.back"


def test_a_folder_that_is_gone_is_down_and_tried_later(world: World, place: Path) -> None:
    make_versions(world, 1)
    configure(world, folder_table("disk", place.parent / "no" / "where"))
    settings = config.load(world.home.config)
    hints = backup.look_after(world.state, settings, programs.never)
    assert hints and "disk" in hints[0]
    known = targets.remembered(world.state, "disk")
    assert known["failures"] == 1 and known["next"] > time.time() + 30
    backup.look_after(world.state, settings, programs.never)
    assert targets.remembered(world.state, "disk")["failures"] == 1, "not before its time"


def test_two_homes_do_not_share_a_target(world: World, place: Path, tmp_path: Path) -> None:
    make_versions(world, 1)
    run(world)
    other = World(tmp_path / "other")
    configure(other, world.home.config.read_text())
    make_versions(other, 1)
    before = tree(place)
    assert "another home" in run(other)[0]["error"]
    assert "has versions of its own" in run(other, action="fetch")[0]["error"]
    assert tree(place) == before
    other.close()


def test_two_names_for_one_place_are_refused(world: World, place: Path) -> None:
    make_versions(world, 1)
    run(world)
    text = world.home.config.read_text()
    configure(world, text + text.replace("backups.disk", "backups.more"))
    assert "is the target disk of this home" in run(world, name="more")[0]["error"]


def test_a_target_in_the_store_is_refused(world: World) -> None:
    configure(world, folder_table("disk", world.home.store / "copies"))
    make_versions(world, 1)
    assert "outside of the store" in run(world)[0]["error"]
    assert not (world.home.store / "copies").exists()


def test_the_same_disk_is_said_and_another_is_not(world: World, place: Path) -> None:
    make_versions(world, 1)
    results = run(world)
    assert any("same disk" in note for note in backup.notes(results, world.state))
    assert any("same disk" in e.text for e in journal.latest(world.state))
    found = targets.check_targets(world.home, config.load(world.home.config))
    assert found[0][1] and "same disk" in found[0][2] and found[0][3]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_target_is_told_and_goes_on_when_there_is_room(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(mount)], check=False
    )
    if done.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        configure(world, folder_table("disk", mount / "copies"))
        (mount / "filler").write_bytes(bytes(40960))
        make_versions(world, 1)
        result = run(world)[0]
        assert "not enough room" in result["error"] and not result["same_disk"]
        monkeypatch.setattr(transfer, "MARGIN", -(1 << 30))  # the room went away meanwhile
        result = run(world)[0]
        assert "No space left" in result["error"] and "free some" in result["error"]
        assert not (mount / "copies" / "v001").exists()
        (mount / "filler").unlink()
        assert run(world)[0]["copied"] == ["v001"]
        assert not manifest.check(mount / "copies" / "v001", deep=True)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_one_run_a_target_at_a_time(world: World, place: Path) -> None:
    make_versions(world, 2)
    from queue_store.database import open_state

    results = []

    def other() -> None:
        with open_state(world.home) as state:
            results.append(backup.run(state, config.load(world.home.config)))

    thread = threading.Thread(target=other)
    thread.start()
    mine = run(world)[0]
    thread.join()
    copied = [*mine["copied"], *results[0][0]["copied"]]
    assert sorted(copied) == ["v001", "v002"], "nothing is copied twice"
