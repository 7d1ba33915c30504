"""What was removed comes back whole until its time is over, and a kill loses nothing on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import intake, journal, queue
from queue_store import trash as rows
from queue_store.errors import NotFound, Refused
from queue_store.items import ItemState
from snapshots import labels, removal, trash, upkeep, versions
from tests.store_world import World, run_killed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """v001 in the trash, tagged; v002 and v003 verified; the head beyond."""
    made = World(tmp_path)
    for step in range(1, 4):
        made.step = step
        made.save()
        versions.create(made.state)
    for step in (5, 6):
        made.step = step
        made.save()
    labels.tag(made.state, "v001", "good")
    removal.delete(made.state, "v001", why="test", days=7)
    yield made
    made.close()


def recover(world: World) -> list[str]:
    return [
        *upkeep.recover(world.state),
        *intake.recover_files(world.state),
        *removal.recover(world.state),
        *trash.recover(world.state),
        *versions.recover_versions(world.state),
        *(item.name for item in intake.adopt_orphans(world.state)),
    ]


def names(world: World) -> list[str]:
    return [version.name for version in versions.versions(world.state)]


def test_a_version_comes_back_with_its_tag_and_is_verified_anew(world: World) -> None:
    trash.restore(world.state, "v001")
    found = versions.get(world.state, "good")
    assert (found.name, found.state, found.verified_at) == ("v001", "unverified", None)
    assert versions.verify(world.state, "v001").state == "verified"
    assert trash.listed(world.state) == [] and recover(world) == []


def test_a_tag_given_away_meanwhile_stays_where_it_is(world: World) -> None:
    labels.tag(world.state, "v002", "good")
    trash.restore(world.state, "v001")
    assert versions.get(world.state, "good").name == "v002"
    assert versions.get(world.state, "v001").tags == ()


def test_restore_never_replaces_what_has_the_name(world: World) -> None:
    (world.home.versions / "v001").mkdir()
    with pytest.raises(FileExistsError):
        trash.restore(world.state, "v001")
    assert (world.home.trash / "v001" / "model.safetensors").is_file()
    with pytest.raises(NotFound):
        trash.restore(world.state, "v009")


def test_only_what_has_expired_goes_by_itself(world: World) -> None:
    assert trash.empty(world.state, expired_only=True) == []
    world.state.db.execute("UPDATE trash SET expires = deleted")
    (gone,) = trash.empty(world.state, expired_only=True)
    assert gone["name"] == "v001" and not (world.home.trash / "v001").exists()
    assert journal.latest(world.state, 1)[0].kind == "trash.emptied"


@pytest.mark.parametrize("point", ["untrash.journaled", "untrash.moved", "untrash.before_commit"])
def test_a_kill_while_a_version_comes_back_leaves_it_here_or_there(
    point: str, world: World
) -> None:
    code = "from snapshots import trash\ntrash.restore(world.state, 'v001')"
    run_killed(code, world.home.root, point)
    recover(world)
    back = point != "untrash.journaled"
    assert ("v001" in names(world)) is back
    assert (world.home.versions / "v001").is_dir() is back
    assert [row["name"] for row in trash.listed(world.state)] == ([] if back else ["v001"])
    if back:
        assert versions.get(world.state, "v001").tags == ("good",)
    assert recover(world) == []


@pytest.mark.parametrize("point", ["empty.journaled", "empty.unlinked"])
def test_emptying_that_was_cut_off_is_finished_and_not_restored(point: str, world: World) -> None:
    code = "from snapshots import trash\ntrash.empty(world.state)"
    run_killed(code, world.home.root, point)
    assert journal.events(world.state, kinds=["trash.emptied"])
    with pytest.raises(NotFound):
        trash.restore(world.state, "v001")
    recover(world)
    trash.empty(world.state, expired_only=True)
    assert not (world.home.trash / "v001").exists() and rows.listed(world.state) == []


def test_a_removed_item_comes_back_under_its_number(world: World) -> None:
    item = world.add("mine.jsonl")
    intake.remove(world.state, item.id)
    assert (world.home.trash / item.file).is_file()
    trash.restore(world.state, "mine.jsonl")
    found = queue.get(world.state, item.id)
    assert (found.state, found.file, found.digest) == (ItemState.QUEUED, item.file, item.digest)
    assert (world.home.items / item.file).is_file() and recover(world) == []


REMOVE = "from queue_store import intake\nintake.remove(world.state, 1)"
RESTORE = "from snapshots import trash\ntrash.restore(world.state, 'mine.jsonl')"


@pytest.mark.parametrize("sidecar", [False, True])
@pytest.mark.parametrize("point", ["move.renamed", "take.renamed", "remove.moved"])
def test_a_kill_while_an_item_is_removed_keeps_row_file_and_sidecar_together(
    point: str, sidecar: bool, world: World
) -> None:
    item = world.add("mine.jsonl")
    if sidecar:
        intake.sidecar_of(world.home.items / item.file).write_text("{}")
    elif point == "move.renamed":
        return  # it is the sidecar's move
    run_killed(REMOVE, world.home.root, point)
    recover(world)
    assert queue.get(world.state, item.id).file == item.file
    assert (world.home.items / item.file).is_file()
    assert intake.sidecar_of(world.home.items / item.file).is_file() is sidecar
    assert recover(world) == [] and len(queue.items(world.state)) == 1


@pytest.mark.parametrize("point", ["take.renamed", "untrash.item_moved"])
def test_a_kill_while_an_item_comes_back_leaves_it_in_the_trash(point: str, world: World) -> None:
    item = world.add("mine.jsonl")
    intake.remove(world.state, item.id)
    run_killed(RESTORE, world.home.root, point)
    recover(world)
    assert queue.items(world.state) == [] and (world.home.trash / item.file).is_file()
    trash.restore(world.state, "mine.jsonl")
    assert queue.get(world.state, item.id).state is ItemState.QUEUED


def test_a_version_that_has_the_number_is_not_overwritten(world: World) -> None:
    world.state.db.execute(
        "UPDATE versions SET name = 'v001' WHERE id = (SELECT MAX(id) FROM versions)"
    )
    with pytest.raises(Refused, match="v001"):
        trash.restore(world.state, "v001")
