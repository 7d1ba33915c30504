"""A version goes only where that loses nothing; a kill inside leaves it here or in the trash."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import durable, journal
from queue_store.errors import NotFound, Refused
from snapshots import inuse, removal, trash, upkeep, versions
from tests.store_world import World, flip, run_killed

DELETE = "from snapshots import removal\nremoval.delete(world.state, 'v001', why='test', days=7)"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """v001 to v004, verified, made by hand; the head is two checkpoints beyond them."""
    made = World(tmp_path)
    for step in range(1, 5):
        made.step = step
        made.save()
        versions.create(made.state)
    for step in (5, 6):
        made.step = step
        made.save()
    yield made
    made.close()


def names(world: World) -> list[str]:
    return [version.name for version in versions.versions(world.state)]


def delete(world: World, name: str = "v001") -> None:
    removal.delete(world.state, name, why="test", days=7)


def recover(world: World) -> list[str]:
    return [
        *upkeep.recover(world.state),
        *removal.recover(world.state),
        *trash.recover(world.state),
        *versions.recover_versions(world.state),
    ]


def kind(world: World, name: str, to: str) -> None:
    world.state.db.execute("UPDATE versions SET kind = ? WHERE name = ?", (to, name))


def test_a_deleted_version_is_in_the_trash_after_an_event(world: World) -> None:
    plan = removal.plan(world.state, "v001", days=7)
    assert not plan.refused and (world.home.versions / "v001").is_dir()
    delete(world)
    assert names(world) == ["v002", "v003", "v004"]
    assert not (world.home.versions / "v001").exists()
    assert (world.home.trash / "v001" / "model.safetensors").is_file()
    kinds = [event.kind for event in journal.latest(world.state)]
    assert kinds.index("version.deleting") < kinds.index("version.deleted")
    assert recover(world) == []


def test_freed_bytes_count_only_what_no_other_name_holds(world: World) -> None:
    shared = removal.plan(world.state, "v001", days=7)
    assert len(shared.shares) == 1 and shared.shares[0].startswith("checkpoint-1-")
    upkeep.prune_checkpoints(world.state, keep=1)
    alone = removal.plan(world.state, "v001", days=7)
    assert alone.shares == [] and alone.freed_bytes > shared.freed_bytes
    delete(world)
    (gone,) = trash.empty(world.state)
    assert gone["freed_bytes"] == alone.freed_bytes


def test_numbers_are_not_given_again(world: World) -> None:
    delete(world)
    trash.empty(world.state)
    assert versions.create(world.state, verified=False).name == "v005"


def test_the_head_its_parent_and_what_is_pinned_stay(world: World) -> None:
    versions.create(world.state)
    with pytest.raises(Refused, match="training stands on it"):
        delete(world, "v005")
    world.step = 7
    world.save()
    with pytest.raises(Refused, match="head came from"):
        delete(world, "v005")
    world.state.db.execute("UPDATE versions SET pinned = 1 WHERE name = 'v001'")
    with pytest.raises(Refused, match="pinned"):
        delete(world)
    assert names(world) == ["v001", "v002", "v003", "v004", "v005"]


@pytest.mark.parametrize("name", ["v003", "v004"])
def test_the_last_two_verified_stay(name: str, world: World) -> None:
    with pytest.raises(Refused, match="last 2"):
        delete(world, name)


def test_automatic_versions_do_not_stand_in_for_those_of_a_person(world: World) -> None:
    kind(world, "v003", "daily")
    kind(world, "v004", "before_rollback")
    for name in ("v001", "v002"):
        with pytest.raises(Refused, match="somebody made"):
            delete(world, name)


def test_the_only_good_copy_is_refused(world: World) -> None:
    flip(world.home.versions / "v003" / "model.safetensors")
    with pytest.raises(Refused, match=r"v003.*damaged"):
        delete(world)
    assert versions.get(world.state, "v003").state == "corrupt" and "v001" in names(world)


def test_survivors_of_a_persons_version_are_those_that_a_person_made(world: World) -> None:
    """Newer automatic ones are whole; the two that stand in for v001 are read back all the same."""
    for step in (7, 8):
        world.step = step
        world.save()
        versions.create(world.state, kind="daily")
    for step in (9, 10):
        world.step = step
        world.save()
    flip(world.home.versions / "v004" / "model.safetensors")
    with pytest.raises(Refused, match=r"v004.*damaged"):
        delete(world)
    assert "v001" in names(world)


def test_survivors_that_nothing_touched_within_a_day_are_not_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    original = versions.verify

    def verify(state: object, name: str, **others: object) -> object:
        read.append(name)
        return original(state, name, **others)  # type: ignore[arg-type]

    for name in ("v003", "v004"):
        versions.verify(world.state, name)
    monkeypatch.setattr(versions, "verify", verify)
    delete(world)
    assert read == []
    world.state.db.execute("UPDATE versions SET verified_at = ?", (time.time() - 90_000,))
    with pytest.raises(Refused):
        delete(world, "v003")
    versions.create(world.state, verified=False)
    original(world.state, "v005")
    delete(world, "v002")
    assert read == ["v004"] or read == ["v003", "v004"]


def test_a_damaged_version_goes_to_the_quarantine_and_is_never_unlinked(world: World) -> None:
    flip(world.home.versions / "v001" / "rng.json")
    with pytest.raises(Exception, match="differs"):
        versions.verify(world.state, "v001")
    delete(world)
    assert "v001" not in names(world) and trash.listed(world.state) == []
    trash.empty(world.state)
    assert (world.home.quarantine / "v001" / "model.safetensors").is_file()


def test_a_version_in_use_is_not_removed(world: World) -> None:
    with inuse.reading("v001", None, None), pytest.raises(Refused, match="being read"):
        delete(world)
    delete(world)


def test_a_verification_that_ends_late_does_not_bring_a_version_back(world: World) -> None:
    """`trainctl verify` in another process read it while it went."""
    version = versions.get(world.state, "v001")
    from snapshots.verify import read_back

    outcome = read_back(versions.version_folder(world.home, version), version.manifest_digest)
    world.state.db.execute("UPDATE versions SET state = 'deleting' WHERE name = 'v001'")
    with pytest.raises(NotFound):
        versions.record(world.state, version, outcome)
    assert versions.get(world.state, "v001").state == "deleting"


POINTS = {
    "delete.before_mark": "here",
    "delete.marked": "here",
    "move.renamed": "trash",
    "delete.moved": "trash",
    "delete.committed": "trash",
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_version_in_the_list_or_in_the_trash(point: str, world: World) -> None:
    run_killed(DELETE, world.home.root, point)
    recover(world)
    thrown = [row["name"] for row in trash.listed(world.state)]
    if POINTS[point] == "here":
        assert "v001" in names(world) and thrown == []
        assert versions.verify(world.state, "v001").state == "verified"
    else:
        assert "v001" not in names(world) and thrown == ["v001"]
        assert (world.home.trash / "v001").is_dir()
    assert recover(world) == []
    folders = {path.name for path in world.home.versions.iterdir()}
    assert folders == set(names(world))
    good = [v for v in versions.versions(world.state) if v.state == "verified"]
    assert len(good) >= 2


@pytest.mark.parametrize("point", ["apart.marked", "apart.version_moved"])
def test_a_kill_while_a_damaged_one_is_set_apart_ends_in_quarantine(
    point: str, world: World
) -> None:
    flip(world.home.versions / "v001" / "rng.json")
    with pytest.raises(Exception, match="differs"):
        versions.verify(world.state, "v001")
    run_killed(DELETE, world.home.root, point)
    recover(world)
    assert "v001" not in names(world) and (world.home.quarantine / "v001").is_dir()
    assert recover(world) == []


def test_a_failed_move_leaves_the_version_to_the_next_recovery(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(source: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "move_tree", fails)
    with pytest.raises(OSError):
        delete(world)
    monkeypatch.undo()
    recover(world)
    assert "v001" in names(world) and (world.home.versions / "v001").is_dir()
