"""A backup on a host: a real sshd on loopback, real rsync, real sha256sum, and what breaks them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import config, programs
from snapshots import backup, copies, manifest, targets, versions
from snapshots.remote import MARKER
from tests.backup_kit import configure, kinds, make_versions, run, tree
from tests.sshd_kit import Host, key, make_host, needs_sshd
from tests.store_world import World, flip, run_killed

pytestmark = needs_sshd


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = make_host(tmp_path_factory.mktemp("sshd"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A path there with spaces and what a shell would act on."""
    return tmp_path / "nas dir's $(touch pwned); ü"


@pytest.fixture
def world(tmp_path: Path, place: Path, host: Host) -> Iterator[World]:
    made = World(tmp_path / "home")
    configure(made, table(place, host))
    yield made
    made.close()


def table(place: Path, host: Host) -> str:
    target = json.dumps(f"nas:{place}")
    return f"[backups.nas]\ntarget = {target}\nssh_config = {json.dumps(str(host.config))}\n"


def states(world: World) -> dict[str, str]:
    return {copy.name: copy.state for copy in copies.copies(world.state)}


def test_a_version_is_copied_to_a_host_and_read_back_there(world: World, place: Path) -> None:
    names = make_versions(world, 2)
    seen = []
    done = run(world, progress=lambda name, at, whole: seen.append((name, at, whole)))[0]
    assert not done["error"], done
    assert sorted(done["copied"]) == names and not done["same_disk"]
    for name in names:
        assert tree(place / name) == tree(world.home.versions / name)
    assert sorted(p.name for p in place.iterdir()) == [MARKER, *names]
    assert states(world) == {"v001": "verified", "v002": "verified"}
    assert seen and seen[-1][1] == seen[-1][2]
    assert not run(world)[0]["copied"]
    assert (place / "v001/config.json").stat().st_ino == (place / "v002/config.json").stat().st_ino
    assert not list(place.parent.rglob("pwned")), "a path is never a script"


def test_a_path_relative_to_the_login_folder_and_quotes_work(
    world: World, host: Host, tmp_path: Path
) -> None:
    name = f'trainctl test {os.getpid()} "q"'
    text = json.dumps(f"nas:{name}")
    configure(
        world,
        f"[backups.nas]\ntarget = {text}\nssh_config = {json.dumps(str(host.config))}\n",
    )
    make_versions(world, 1)
    there = Path("~").expanduser() / name
    try:
        assert run(world)[0]["copied"] == ["v001"]
        assert not manifest.check(there / "v001", deep=True)
    finally:
        shutil.rmtree(there, ignore_errors=True)


@pytest.mark.slow
def test_damage_at_the_host_is_found_and_made_anew(world: World, place: Path) -> None:
    make_versions(world, 2)
    run(world)
    flip(place / "v001" / "optimizer.safetensors")
    (place / "v002" / "extra").write_text("not ours")
    done = run(world, action="verify")[0]
    assert {d["version"] for d in done["damaged"]} == {"v001", "v002"}
    assert "differs" in done["damaged"][0]["problem"]
    assert sorted(run(world)[0]["copied"]) == ["v001", "v002"]
    assert run(world, action="verify")[0]["verified"] == ["v001", "v002"]
    assert not (place / "v002" / "extra").exists()
    (place / "v001" / "rng.json").unlink()
    assert "missing" in run(world, action="verify")[0]["damaged"][0]["problem"]


@pytest.mark.slow
def test_a_byte_that_changes_on_its_way_is_sent_again(
    world: World, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_versions(world, 1)
    target = targets.open_target(config.load(world.home.config), "nas")
    send, sent = type(target).send, []

    def bad_cable(self, source, part, *others) -> None:
        send(self, source, part, *others)
        sent.append(part)
        if len(sent) == 1:
            flip(place / part / "model.safetensors")

    monkeypatch.setattr(type(target), "send", bad_cable)
    assert run(world)[0]["copied"] == ["v001"] and len(sent) == 2
    assert not manifest.check(place / "v001", deep=True)


RUN = """
from queue_store import config
from snapshots import backup
backup.run(world.state, config.load(world.home.config))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["backup.linked", "backup.sent", "backup.verified", "backup.published"]
)
def test_a_kill_at_any_point_is_gone_on_with(world: World, place: Path, point: str) -> None:
    make_versions(world, 1)
    run_killed(RUN, world.home.root, point)
    assert states(world) == {}
    if (place / "v001").exists():
        assert not manifest.check(place / "v001", deep=True)
    assert run(world)[0]["copied"] == ["v001"]
    assert states(world) == {"v001": "verified"}
    assert tree(place / "v001") == tree(world.home.versions / "v001")
    assert sorted(p.name for p in place.iterdir()) == [MARKER, "v001"]


def test_a_host_that_is_down_holds_nothing_up_and_is_tried_again(world: World, host: Host) -> None:
    make_versions(world, 1)
    host.stop()
    settings = config.load(world.home.config)
    hints = backup.look_after(world.state, settings, programs.never)
    assert hints and "not reached" in hints[0] and kinds(world).count("backup.failed") == 1
    assert targets.remembered(world.state, "nas")["next"] > 0
    checks = {c[0]: c for c in targets.check_targets(world.home, settings)}
    assert not checks["backup nas"][1] and checks["rsync"][1]
    host.start()
    assert run(world)[0]["copied"] == ["v001"]
    assert kinds(world)[-1] == "backup.back"
    assert backup.hints(world.state, settings) == []
    checks = {c[0]: c for c in targets.check_targets(world.home, settings)}
    assert checks["backup nas"][1], checks


def test_a_host_with_another_key_gets_nothing(world: World, host: Host, place: Path) -> None:
    make_versions(world, 1)
    known = host.folder / "known"
    other = key(host.folder / "other")
    known.write_text(f"[127.0.0.1]:{host.port} {other}\n")
    done = run(world)[0]
    assert "key is not the one known" in done["error"] and not place.exists()
    known.write_text("")  # nobody has ever seen it: nobody is asked, and it is not accepted
    assert "key is not the one known" in run(world)[0]["error"] and not place.exists()


def test_a_key_that_is_not_accepted_is_said(world: World, host: Host) -> None:
    make_versions(world, 1)
    (host.folder / "authorized").write_text("")
    done = run(world)[0]
    assert "without a password" in done["error"] and "authorized_keys" in done["error"]


@pytest.mark.slow
def test_a_marker_lost_or_foreign_is_refused(
    world: World, place: Path, host: Host, tmp_path: Path
) -> None:
    make_versions(world, 1)
    run(world)
    other = World(tmp_path / "other")
    configure(other, table(place, host))
    make_versions(other, 1)
    assert "another home" in run(other)[0]["error"]
    other.close()
    (place / MARKER).unlink()
    make_versions(world, 1)
    assert "lost its" in run(world)[0]["error"] and not (place / "v002").exists()


@pytest.mark.slow
def test_rules_remove_at_the_host_and_nothing_else(world: World, place: Path) -> None:
    make_versions(world, 3)
    run(world)
    (place / "mine").write_text("a person's own file")
    text = world.home.config.read_text()
    configure(world, text + "keep_last = 1\nkeep_daily = 0\nkeep_weekly = 0\n")
    assert run(world)[0]["removed"] == ["v001"]
    assert sorted(p.name for p in place.iterdir()) == ["mine", MARKER, "v002", "v003"]


@pytest.mark.slow
def test_a_lost_version_and_a_lost_home_come_back_from_a_host(
    world: World, place: Path, host: Host, tmp_path: Path, trainctl
) -> None:
    names = make_versions(world, 2)
    run(world)
    good = tree(world.home.versions / "v001")
    shutil.rmtree(world.home.versions / "v001")
    done = trainctl("restore", "v001", "--from", "nas", "--yes", "v001", home=world.home)
    assert done.code == 0, done.err
    assert tree(world.home.versions / "v001") == good

    new = World(tmp_path / "new")
    configure(new, table(place, host))
    assert run(new, action="fetch")[0]["fetched"] == names
    assert [v.state for v in versions.versions(new.state)] == ["verified", "verified"]
    assert run(new, action="verify")[0]["verified"] == names
    new.close()


def test_ending_the_engine_ends_the_children_too(world: World, host: Host) -> None:
    """A host that stops to answer in the middle: breaking off takes a moment, not minutes."""
    make_versions(world, 1)
    assert host.process is not None
    host.process.send_signal(signal.SIGSTOP)
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 5

    try:
        target = targets.open_target(config.load(world.home.config), "nas")
        with pytest.raises(programs.BrokenOff):
            target.fetch("v001", world.home.tmp, lambda done: None, cancelled)
    finally:
        host.process.send_signal(signal.SIGCONT)
