"""What a folder target keeps and lets go by rule, and how a version comes back from it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import config, journal, programs
from snapshots import backup, copies, labels, targets, versions
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


# -- retention ---------------------------------------------------------------------------------


def backdate(world: World, name: str, days: float) -> None:
    version = versions.get(world.state, name)
    with world.state.transaction() as db:
        then = time.time() - days * 86400
        db.execute("UPDATE versions SET created = ? WHERE id = ?", (then, version.id))
        db.execute("UPDATE copies SET created = ? WHERE version = ?", (then, version.id))


def keep_two(world: World) -> None:
    rules = "keep_last = 1\nkeep_daily = 0\nkeep_weekly = 0\n"
    configure(world, world.home.config.read_text() + rules)


def test_only_what_no_rule_keeps_goes_and_its_event_is_first(world: World, place: Path) -> None:
    make_versions(world, 2)
    labels.pin(world.state, "v001")
    keep_two(world)
    run(world)
    make_versions(world, 2)
    before = journal.last_seq(world.state)
    done = run(world)[0]
    assert done["removed"] == ["v002"] and sorted(done["copied"]) == ["v003", "v004"]
    assert states(world) == dict.fromkeys(("v001", "v003", "v004"), "verified")
    assert sorted(p.name for p in place.iterdir()) == [MARKER, "v001", "v003", "v004"]
    assert "backup.removed" in kinds(world, before)
    again = run(world)[0]
    assert not again["copied"] and not again["removed"], "what a rule removed is not copied again"
    rows = copies.listing(world.state, config.load(world.home.config).backups)
    assert [row["kept_because"][0] for row in rows] == ["pinned", "latest 2", "latest 2"]


@pytest.mark.parametrize("point", ["backup.deleting", "backup.gone", "backup.discarded"])
def test_a_kill_inside_a_removal_is_finished_by_the_next_run(
    world: World, place: Path, point: str
) -> None:
    make_versions(world, 3)
    run(world)
    keep_two(world)
    run_killed(RUN, world.home.root, point)
    assert "backup.removed" in kinds(world)
    run(world)
    assert states(world) == {"v002": "verified", "v003": "verified"}
    assert sorted(p.name for p in place.iterdir()) == [MARKER, "v002", "v003"]


def test_no_copy_goes_while_no_newer_one_was_read_back_lately(world: World, place: Path) -> None:
    make_versions(world, 3)
    run(world)
    keep_two(world)
    with world.state.transaction() as db:
        db.execute("UPDATE copies SET verified_at = verified_at - 100000")
    assert run(world)[0]["removed"] == []
    run(world, action="verify")
    assert run(world)[0]["removed"] == ["v001"]


def test_days_and_weeks_are_counted_by_when_a_version_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = config.default().backups
    assert rules == {}
    disk = config.Backup(target="/x", keep_last=1, keep_daily=2, keep_weekly=2)
    # A Wednesday: yesterday is of the same week, and eight days ago of the one before.
    now, day = time.mktime((2026, 11, 25, 12, 0, 0, 0, 0, -1)), 86400.0
    monkeypatch.setattr(time, "time", lambda: now)
    moments = [(1, now - 15 * day), (2, now - 8 * day), (3, now - day), (4, now), (5, now + day)]
    why = copies.kept(moments, disk, {1})
    assert why[1] == ["pinned"] and "weekly" in why[2]
    assert "daily" in why[3] and "daily" in why[4]
    assert why[5] == ["latest 2", "last 1"], "a time in the future counts for no day"


# -- back from a target ------------------------------------------------------------------------


def test_a_damaged_or_missing_version_comes_back_from_its_copy(world: World, place: Path) -> None:
    make_versions(world, 2)
    run(world)
    good = tree(world.home.versions / "v001")
    flip(world.home.versions / "v001" / "model.safetensors")
    assert run(world, name="disk", action="fetch", version="v001")[0]["fetched"] == ["v001"]
    assert tree(world.home.versions / "v001") == good
    assert (world.home.quarantine / "v001").is_dir()
    shutil.rmtree(world.home.versions / "v002")
    assert run(world, name="disk", action="fetch", version="2")[0]["fetched"] == ["v002"]
    assert versions.get(world.state, "v002").state == "verified"
    assert "backup.fetched" in kinds(world)


def test_a_version_deleted_here_stays_at_the_target_and_comes_back(
    world: World, place: Path
) -> None:
    make_versions(world, 2)
    before = versions.get(world.state, "v001")
    run(world)
    with world.state.transaction() as db:
        db.execute("DELETE FROM versions WHERE name = 'v001'")
    shutil.rmtree(world.home.versions / "v001")
    rows = copies.listing(world.state, config.load(world.home.config).backups)
    assert [(row["version"], row["here"]) for row in rows] == [("v001", False), ("v002", True)]
    assert run(world, action="verify")[0]["verified"] == ["v001", "v002"]
    run(world, action="fetch", version="v001")
    after = versions.get(world.state, "v001")
    assert (after.step, after.weights_digest, after.created, after.state) == (
        *(before.step, before.weights_digest, before.created),
        "verified",
    )


def test_a_damaged_copy_never_comes_back(world: World, place: Path) -> None:
    make_versions(world, 1)
    run(world)
    flip(place / "v001" / "model.safetensors")
    shutil.rmtree(world.home.versions / "v001")
    done = run(world, action="fetch", version="v001")[0]
    assert "differs" in done["error"] and done["damaged"]
    assert not (world.home.versions / "v001").exists() and not list(world.home.tmp.iterdir())


FETCH = """
from queue_store import config
from snapshots import backup
backup.run(world.state, config.load(world.home.config), action="fetch", version="v001")
"""


@pytest.mark.parametrize(
    "point",
    [
        *("fetch.copied", "fetch.journaled", "fetch.apart", "publish.renamed"),
        *("fetch.published", "fetch.committed"),
    ],
)
def test_a_kill_inside_a_fetch_loses_nothing(world: World, place: Path, point: str) -> None:
    make_versions(world, 1)
    run(world)
    good = tree(place / "v001")
    flip(world.home.versions / "v001" / "model.safetensors")
    run_killed(FETCH, world.home.root, point)
    assert tree(place / "v001") == good
    run(world, action="fetch", version="v001")
    assert tree(world.home.versions / "v001") == good
    assert versions.verify(world.state, "v001").state == "verified"


@pytest.mark.parametrize("point", ["", "fetch.checkpoint", "fetch.published", "fetch.committed:2"])
def test_a_new_home_is_filled_again_from_a_target(
    world: World, place: Path, tmp_path: Path, point: str
) -> None:
    names = make_versions(world, 3)
    run(world)
    lost = {row.name: row for row in versions.versions(world.state)}
    text = world.home.config.read_text()
    world.close()
    shutil.rmtree(world.home.root)

    new = World(tmp_path / "new")
    configure(new, text)
    if point:
        code = FETCH.replace(', version="v001"', "")
        run_killed(code, new.home.root, point)
    done = run(new, action="fetch")[0]
    assert done["fetched"] == names and not done["error"]
    for name in names:
        found = versions.get(new.state, name)
        assert (found.weights_digest, found.step, found.state) == (
            *(lost[name].weights_digest, lost[name].step),
            "verified",
        )
    assert states(new) == dict.fromkeys(names, "verified")
    # It goes on as the lost home: new numbers follow, new copies go to the same target.
    new.step = 9
    new.save()
    assert versions.create(new.state).name == "v004"
    assert run(new)[0]["copied"] == ["v004"]
    # And training can stand on what came back.
    from snapshots import rollback

    made = rollback.plan(new.state, "v002")
    assert rollback.apply(new.state, made).head.checkpoint.step == lost["v002"].step
    new.close()


# -- the keeper's part, the facts, the verbs ---------------------------------------------------


def test_the_keeper_copies_reads_back_and_forgets_no_day(world: World, place: Path) -> None:
    make_versions(world, 1)
    settings = config.load(world.home.config)
    assert backup.look_after(world.state, settings, programs.never) == []
    assert states(world) == {"v001": "verified"}
    with world.state.transaction() as db:
        db.execute("UPDATE copies SET verified_at = verified_at - 31 * 86400")
    flip(place / "v001" / "model.safetensors")
    backup.look_after(world.state, settings, programs.never)
    assert states(world) == {"v001": "damaged"}
    backup.look_after(world.state, settings, programs.never)
    assert states(world) == {"v001": "verified"}, "made anew from the good one here"

    configure(world, world.home.config.read_text() + 'when = "daily"\n')
    settings = config.load(world.home.config)
    make_versions(world, 1)
    backup.look_after(world.state, settings, programs.never)
    assert "v002" in states(world)
    make_versions(world, 1)
    backup.look_after(world.state, settings, programs.never)
    assert "v003" not in states(world), "once a day"
    configure(world, world.home.config.read_text().replace('"daily"', '"manual"'))
    targets.remember(world.state, "disk", copied_on="")
    backup.look_after(world.state, config.load(world.home.config), programs.never)
    assert "v003" not in states(world), "only by hand"


def test_versions_say_where_their_copies_are(world: World, place: Path, trainctl) -> None:
    make_versions(world, 1)

    def row() -> dict:
        return json.loads(trainctl("versions", "--json", home=world.home).out)[0]

    assert row()["copies"] == [] and row()["mirror_verified_at"] == {"unknown": "not copied yet"}
    told = trainctl("versions", home=world.home).out
    assert "not a second copy" in told
    done = trainctl("backup", "--json", home=world.home)
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["copied"] == ["v001"]
    found = row()
    assert isinstance(found["mirror_verified_at"], float)
    assert found["copies"][0]["target"] == "disk" and found["copies"][0]["state"] == "verified"
    told = trainctl("versions", home=world.home).out
    assert "disk" in told and "not a second copy" not in told
    configure(world, "")
    with world.state.transaction() as db:
        db.execute("DELETE FROM copies")
    assert "no backup target" in row()["mirror_verified_at"]["unknown"]


def test_the_verb_tells_lists_verifies_and_exits_honestly(
    world: World, place: Path, trainctl
) -> None:
    make_versions(world, 2)
    home = world.home
    told = trainctl("backup", home=home)
    assert told.code == 0 and "copied and read back" in told.out and "same disk" in told.out
    rows = json.loads(trainctl("backup", "--list", "--json", home=home).out)
    assert {"version", "target", "state", "verified_at", "kept_because", "here"} <= set(rows[0])
    assert trainctl("backup", "disk", "--verify", home=home).code == 0
    flip(place / "v001" / "model.safetensors")
    bad = trainctl("backup", "--verify", "--json", home=home)
    assert bad.code == 4 and bad.err.count("\n") == 1 and "v001" in bad.err
    assert json.loads(bad.out)[0]["damaged"][0]["version"] == "v001"
    assert trainctl("backup", "--version", "v001", home=home).code == 0
    assert trainctl("backup", "nas", home=home).code == 1
    assert trainctl("backup", "--fetch", home=home).code == 2
    shutil.rmtree(place)
    place.mkdir()
    gone = trainctl("backup", home=home)
    assert gone.code == 1 and gone.err.count("\n") == 1 and "mounted?" in gone.err
    assert "Traceback" not in gone.err


def test_restore_names_the_target_that_has_a_copy_and_takes_it(
    world: World, place: Path, trainctl
) -> None:
    make_versions(world, 2)
    run(world)
    shutil.rmtree(world.home.versions / "v001")
    lost = trainctl("restore", "v001", "--yes", "v001", home=world.home)
    assert lost.code in (1, 4) and "trainctl restore v001 --from disk" in lost.err
    done = trainctl("restore", "v001", "--from", "disk", "--yes", "v001", "--json", home=world.home)
    assert done.code == 0, done.err
    assert json.loads(done.out)["target"] == "v001"
