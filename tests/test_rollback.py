"""Going back loses nothing: the state left is a version, and the head moves in one transaction."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_store import head as heads
from queue_store import journal, queue, records, transitions
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.items import Item, ItemState
from queue_store.metrics import Metrics, StepMetric
from snapshots import manifest, rollback, upkeep, versions
from snapshots.checkpoints import folder_of, open_checkpoint
from tests.store_world import ROWS, World, flip, run_killed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One item done; v001 in the middle of the second; the third done too."""
    made = World(tmp_path)
    first, second, third = (made.add(f"{name}.jsonl") for name in ("one", "two", "three"))
    made.train(first)
    made.train(second, 4)
    versions.create(made.state, description="middle of two")
    made.train(second)
    made.train(third)
    yield made
    made.close()


def item(world: World, number: int) -> Item:
    return queue.get(world.state, number)


def head(world: World) -> records.Head:
    found = records.head(world.state)
    assert found
    return found


def measure(world: World, run: int, first: int, last: int, seconds: float) -> None:
    metrics = Metrics(world.home)
    for step in range(first, last + 1):
        metrics.add_step(
            run, StepMetric(world.branch, step, 1, step - 1, step, 1, 1, 1, 1, seconds, 1)
        )
    metrics.close()


def test_the_plan_says_what_is_lost_before_anything_happens(world: World) -> None:
    measure(world, world.run, 1, 30, 360.0)
    before = journal.last_seq(world.state)
    made = rollback.plan(world.state)
    assert (made.version, made.target_step, made.step) == ("v001", 14, 30)
    assert made.steps_lost == 16 and made.hours_lost == 1.6
    assert made.items == (
        {"id": 2, "name": "two.jsonl", "becomes": "paused at row 4"},
        {"id": 3, "name": "three.jsonl", "becomes": "skipped (rolled back)"},
    )
    assert journal.last_seq(world.state) == before


def test_rollback_gives_the_versions_files_step_items_and_cursors(world: World) -> None:
    left = head(world)
    target = versions.get(world.state, "v001")
    done = rollback.apply(world.state, rollback.plan(world.state))
    now = head(world)
    assert done.head == now and now.checkpoint.kind == "restored"
    assert now.checkpoint.step == 14 and now.branch != left.branch
    assert now.checkpoint.weights_digest == target.weights_digest
    folder = open_checkpoint(world.state, now.checkpoint)
    assert json.loads((folder / "training_state.json").read_text()) == {"global_step": 14}
    source = versions.version_folder(world.home, target)
    for name in ("model.safetensors", "optimizer.safetensors", "rng.json"):
        assert (folder / name).stat().st_ino == (source / name).stat().st_ino
    ledger = json.loads((folder / ".ledger.json").read_text())
    assert ledger["canonical_name"] == folder.name and ledger["id"] == now.checkpoint.id
    assert not (folder / "version.json").exists()
    states = [(i.state, i.cursor) for i in (item(world, 1), item(world, 2), item(world, 3))]
    assert states == [(ItemState.DONE, ROWS), (ItemState.PAUSED, 4), (ItemState.SKIPPED, 0)]
    assert item(world, 3).reason == heads.ROLLED_BACK
    told = [e for e in journal.events(world.state) if e.text.startswith("rolled back")]
    assert [e.kind for e in told] == ["rollback"], "one act, one line"
    assert told[0].data["from_step"] == 30 and told[0].data["checkpoint"] == now.checkpoint.id


def test_the_state_that_was_left_is_a_verified_version_and_can_be_restored(world: World) -> None:
    left = head(world)
    done = rollback.apply(world.state, rollback.plan(world.state))
    assert (done.saved.name, done.saved.state) == ("v002", "unverified")
    assert versions.verify(world.state, "v002").state == "verified"
    assert done.saved.description == "before rollback to v001"
    assert done.saved.checkpoint == left.checkpoint.id
    rollback.apply(world.state, rollback.plan(world.state, "v002"))
    now = head(world)
    assert now.checkpoint.step == 30
    assert now.checkpoint.weights_digest == left.checkpoint.weights_digest
    assert now.checkpoint.progress == left.checkpoint.progress
    assert [item(world, n).state for n in (1, 2, 3)] == [ItemState.DONE] * 3
    assert [item(world, n).cursor for n in (1, 2, 3)] == [ROWS] * 3


def test_an_item_queued_again_after_a_rollback_is_done_where_the_version_contains_it(
    world: World,
) -> None:
    done = rollback.apply(world.state, rollback.plan(world.state))
    transitions.retry(world.state, 3)
    rollback.apply(world.state, rollback.plan(world.state, done.saved.name))
    assert item(world, 3).state is ItemState.DONE


def test_training_goes_on_from_the_version_on_a_branch_of_its_own(world: World) -> None:
    rollback.apply(world.state, rollback.plan(world.state))
    again = World(world.home.root)
    assert (again.step, again.branch) == (14, head(world).branch)
    restored = head(world).checkpoint
    saved = again.train(queue.get(again.state, 2))
    assert saved.step == 20 and saved.parent == restored.id
    assert saved.branch == again.branch and saved.progress.finished == {1, 2}
    again.close()


def test_without_a_name_it_is_the_newest_verified_earlier_one_of_this_line(world: World) -> None:
    versions.create(world.state, description="of the present step")
    versions.create(
        world.state,
        records.checkpoints(world.state)[1],
        description="step 10, unverified",
        verified=False,
    )
    assert rollback.plan(world.state).version == "v001"
    rollback.apply(world.state, rollback.plan(world.state, "v001"))
    with pytest.raises(NotFound, match="no verified version"):
        rollback.plan(world.state)  # those after it lie on the branch left
    versions.verify(world.state, "v003")
    assert rollback.plan(world.state).version == "v003"


def test_a_version_of_another_branch_is_never_the_default(world: World) -> None:
    rollback.apply(world.state, rollback.plan(world.state))
    other = World(world.home.root)
    other.train(queue.get(other.state, 2))
    assert versions.create(other.state, description="step 20, other branch").name == "v003"
    other.close()
    rollback.apply(world.state, rollback.plan(world.state, "v002"))
    assert head(world).checkpoint.step == 30
    assert rollback.plan(world.state).version == "v001"
    assert rollback.plan(world.state, "v003").target_step == 20  # by name it can be had


def test_a_running_engines_step_counts_not_its_last_save(world: World) -> None:
    versions.create(world.state, description="at the head's step 30")
    assert rollback.plan(world.state, live_step=33).version == "v002"
    assert rollback.plan(world.state).version == "v001"


def test_a_stale_plan_is_refused(world: World) -> None:
    made = rollback.plan(world.state)
    versions.create(world.state)
    with pytest.raises(Refused, match="look at the plan again"):
        rollback.apply(world.state, made)
    made = rollback.plan(world.state)
    rollback.apply(world.state, made)
    with pytest.raises(Refused, match="look at the plan again"):
        rollback.apply(world.state, made)


def test_a_plan_stays_good_while_the_engine_saves(world: World) -> None:
    made = rollback.plan(world.state)
    world.save()
    assert rollback.apply(world.state, made).head.checkpoint.step == 14


def test_a_forged_token_is_refused(world: World) -> None:
    made = dataclasses.replace(rollback.plan(world.state), token="0" * 16)
    with pytest.raises(Refused):
        rollback.apply(world.state, made)


def test_weights_alone_are_refused_with_what_to_do(world: World) -> None:
    versions.create(world.state, scope=versions.WEIGHTS)
    with pytest.raises(Refused) as refused:
        rollback.plan(world.state, "v002")
    assert "weights only" in str(refused.value) and refused.value.mend
    assert "\n" not in str(refused.value)


def test_a_damaged_target_changes_nothing(world: World) -> None:
    before, count = head(world), len(versions.versions(world.state))
    made = rollback.plan(world.state)
    flip(world.home.versions / "v001" / "optimizer.safetensors")
    with pytest.raises(VerificationFailed):
        rollback.apply(world.state, made)
    assert head(world) == before and len(versions.versions(world.state)) == count
    with pytest.raises(Refused, match="damaged"):
        rollback.plan(world.state, "v001")


def test_a_damaged_present_state_is_found_by_the_verification_that_follows(world: World) -> None:
    flip(folder_of(world.home, head(world).checkpoint) / "model.safetensors")
    done = rollback.apply(world.state, rollback.plan(world.state))
    with pytest.raises(VerificationFailed, match=r"model\.safetensors"):
        versions.verify(world.state, done.saved.name)
    with pytest.raises(Refused, match="damaged"):
        rollback.plan(world.state, done.saved.name)


def test_a_present_state_with_a_missing_file_moves_nothing(world: World) -> None:
    before = head(world)
    (folder_of(world.home, before.checkpoint) / "model.safetensors").unlink()
    with pytest.raises(VerificationFailed):
        rollback.apply(world.state, rollback.plan(world.state))
    assert head(world) == before


def readings(world: World, name: str = "v001") -> int:
    """How often a version was read back."""
    found = journal.latest(world.state, 1000)
    return sum(e.kind == "version.verified" and e.data["version"] == name for e in found)


def test_a_target_verified_today_and_untouched_is_not_read_again(world: World) -> None:
    versions.create(world.state, records.checkpoints(world.state)[2], description="links change")
    upkeep.prune_checkpoints(world.state, keep=1)
    before = readings(world)
    rollback.apply(world.state, rollback.plan(world.state, "v001"))
    assert readings(world) == before
    rollback.apply(world.state, rollback.plan(world.state, "v001"))
    assert readings(world) == before, "its own links must not count as a touch"


def written(world: World, path: Path) -> None:
    with path.open("r+b") as file:
        data = file.read()
        file.seek(0)
        file.write(data)


def exchanged(world: World, path: Path) -> None:
    """The same bytes and times under another inode."""
    shutil.copy2(path, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def aged(world: World, path: Path) -> None:
    world.state.db.execute("UPDATE versions SET verified_at = verified_at - 90000")


def of_the_future(world: World, path: Path) -> None:
    world.state.db.execute("UPDATE versions SET verified_at = verified_at + 90000")


def of_before(world: World, path: Path) -> None:
    """Verified by a trainctl that did not write down what it read."""
    world.state.db.execute("UPDATE versions SET seen = ''")


@pytest.mark.parametrize("touch", [written, exchanged, aged, of_the_future, of_before])
def test_a_target_that_may_have_changed_is_read_again(touch: Any, world: World) -> None:
    path = world.home.versions / "v001" / "model.safetensors"
    path.chmod(0o600)
    before = readings(world)
    touch(world, path)
    rollback.apply(world.state, rollback.plan(world.state, "v001"))
    assert readings(world) == before + 1
    assert versions.untouched(world.state, versions.get(world.state, "v001"))


def test_an_edit_through_the_checkpoints_name_is_found_and_never_trained_from(
    world: World,
) -> None:
    made_of = records.checkpoint(world.state, versions.get(world.state, "v001").checkpoint)
    file = folder_of(world.home, made_of) / "model.safetensors"
    assert file.stat().st_ino == (world.home.versions / "v001" / file.name).stat().st_ino
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    flip(file)
    before = head(world)
    with pytest.raises(VerificationFailed, match=r"model\.safetensors"):
        rollback.apply(world.state, rollback.plan(world.state, "v001"))
    assert head(world) == before and versions.get(world.state, "v001").state == "corrupt"
    os.utime(file, ns=times)  # also where somebody puts the time back
    with pytest.raises(VerificationFailed):
        versions.verify(world.state, "v001")
    heads.move_head(world.state, made_of, why="as if it had been the head")
    assert upkeep.resume_point(world.state).id != made_of.id


def test_a_version_of_another_model_is_refused_with_what_it_was(world: World) -> None:
    world.state.meta_set("locked", {"model.base": "builtin:tiny", "model.method": "lora"})
    versions.create(world.state, description="under lora")
    world.state.meta_set("locked", {"model.base": "builtin:tiny", "model.method": "full"})
    with pytest.raises(Refused, match=r"model\.method was lora, here it is full") as refused:
        rollback.plan(world.state, "v002")
    assert refused.value.mend and "\n" not in str(refused.value)
    world.state.db.execute("UPDATE checkpoints SET weights_digest = ? WHERE id = 0", ("c" * 64,))
    with pytest.raises(Refused, match="the base model was bbbbbbbbbbbb, here it is cccccccccccc"):
        rollback.plan(world.state, "v001")


def test_one_can_go_back_to_the_base_model(tmp_path: Path) -> None:
    world = World(tmp_path)
    versions.create(world.state, description="as it came")
    world.train(world.add())
    done = rollback.apply(world.state, rollback.plan(world.state))
    assert done.head.checkpoint.kind == "base" and done.head.branch != world.branch
    assert queue.get(world.state, 1).state is ItemState.SKIPPED
    rollback.apply(world.state, rollback.plan(world.state, done.saved.name))
    assert queue.get(world.state, 1).state is ItemState.DONE
    assert head(world).checkpoint.step == ROWS
    world.close()


def test_a_home_that_never_trained_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(NotFound, match="no verified version"):
        rollback.plan(world.state)
    world.close()


POINTS = {
    "version.verified": 30,
    "version.sealed": 30,
    "version.committed": 30,
    "rollback.saved": 30,
    "checkpoint.sealed": 30,
    "publish.renamed": 30,
    "publish.renamed:2": 30,
    "rollback.published": 30,
    "rollback.before_commit": 30,
    "rollback.committed": 14,
}
"""Where a rollback can die, and the step that the home then stands at."""


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_old_head_or_the_new_one(point: str, world: World) -> None:
    if point == "version.verified":  # passed only where the target has to be read again
        os.utime(world.home.versions / "v001" / "rng.json")
    code = "from snapshots import rollback\nrollback.apply(world.state, rollback.plan(world.state))"
    run_killed(code, world.home.root, point)
    upkeep.recover(world.state)
    versions.recover_versions(world.state)
    now = head(world)
    assert now.checkpoint.step == POINTS[point]
    manifest.refuse(manifest.check(folder_of(world.home, now.checkpoint)), Path(), "")
    done = ItemState.DONE
    wanted = {30: [done, done, done], 14: [done, ItemState.PAUSED, ItemState.SKIPPED]}
    assert [item(world, n).state for n in (1, 2, 3)] == wanted[POINTS[point]]
    rows = {c.name for c in records.checkpoints(world.state) if c.kind != "base"}
    assert {p.name for p in world.home.checkpoints.iterdir()} == rows
    assert {p.name for p in world.home.versions.iterdir()} == {
        v.name for v in versions.versions(world.state)
    }
    assert not list(world.home.tmp.iterdir()) and not list(world.home.quarantine.iterdir())
    if POINTS[point] == 30:  # and it can be done again
        done_now = rollback.apply(world.state, rollback.plan(world.state, "v001"))
        assert done_now.head.checkpoint.step == 14
