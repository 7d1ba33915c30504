"""A checkpoint is there whole or not at all, whatever kills the process in between."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import durable, journal, queue, records, transitions
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.items import ItemState
from snapshots import checkpoints, manifest, upkeep
from snapshots.checkpoints import CheckpointWriter, folder_of, newest_verified, open_checkpoint
from snapshots.digest import weights_digest
from tests.store_world import ROWS, World, flip, run_killed, write_state


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def folders(world: World) -> list[str]:
    return sorted(path.name for path in world.home.checkpoints.iterdir())


def test_a_checkpoint_is_the_head_with_its_files_ledger_and_cursors(world: World) -> None:
    item = world.add()
    saved = world.train(item, 4, val_loss=0.5)
    head = records.head(world.state)
    assert head and head.checkpoint == saved and saved.step == 4
    assert re.fullmatch(r"checkpoint-4-\d{8}-\d{4}", saved.name)
    assert saved.progress.cursors == {item.id: (4, 4)} and saved.cursor == 4
    assert queue.get(world.state, item.id).cursor == 4
    folder = open_checkpoint(world.state, saved)
    ledger = json.loads((folder / ".ledger.json").read_text())
    assert ledger["step"] == 4 and ledger["canonical_name"] == saved.name
    assert ledger["training_file"] == "a.jsonl" and ledger["val_loss"] == 0.5
    assert ledger["learning_rate"] == 2e-4 and ledger["train_loss"] == 0.2
    size = (folder / "model.safetensors").stat().st_size
    assert ledger["files"]["model.safetensors"]["size"] == size
    assert saved.weights_digest == ledger["weights_digest"] == weights_digest(folder)
    assert manifest.read_manifest(folder).digest == saved.manifest_digest
    assert manifest.read_manifest(folder).id == ledger["id"] == saved.id
    assert not list(world.home.tmp.iterdir())


def test_an_item_is_done_in_the_transaction_of_the_checkpoint_that_contains_it(
    world: World,
) -> None:
    item = world.add()
    saved = world.train(item)
    assert queue.get(world.state, item.id).state is ItemState.DONE
    assert saved.progress.finished == {item.id}


def test_checkpoints_of_one_step_and_minute_get_different_names(world: World) -> None:
    first, second, third = world.save(), world.save(), world.save()
    assert len({first.name, second.name, third.name}) == 3
    # The minute may have turned in between; where it did not, the id tells them apart.
    assert second.name in (f"{first.name}-{second.id}", second.name[: len(first.name)])


def test_too_little_disk_is_refused_with_the_numbers_and_nothing_is_left(world: World) -> None:
    with (
        pytest.raises(Refused, match=r"needs 4611686018\.49 GB, \d+\.\d\d GB are free"),
        CheckpointWriter(world.state, needed=1 << 62),
    ):
        pass
    assert not list(world.home.tmp.iterdir()) and not folders(world)


def test_a_failed_write_leaves_the_old_head_and_nothing_else(world: World) -> None:
    before = world.save()
    with pytest.raises(ZeroDivisionError), CheckpointWriter(world.state) as writer:
        write_state(writer.folder, 9)
        raise ZeroDivisionError
    assert newest_verified(world.state) == (before, [])
    assert folders(world) == [before.name] and not list(world.home.tmp.iterdir())


def test_a_failed_transaction_leaves_the_old_head_and_nothing_else(world: World) -> None:
    before = world.save()
    world.state.db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON checkpoints"
        " BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
    )
    with pytest.raises(Exception, match="disk is full"):
        world.save()
    assert newest_verified(world.state) == (before, [])
    assert folders(world) == [before.name] and not list(world.home.tmp.iterdir())


POINTS = {
    "checkpoint.written": "old",
    "checkpoint.hashed": "old",
    "checkpoint.sealed": "old",
    "publish.synced": "old",
    "publish.renamed": "new",
    "publish.done": "new",
    "checkpoint.before_commit": "new",
    "checkpoint.committed": "new",
}
"""Where a commit can die, and the head that recovery finds: a published folder is complete, so
its commit is finished rather than its steps trained again."""


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_old_head_or_the_new_one_never_a_half(point: str, world: World) -> None:
    item = world.add()
    before = world.train(item, 3)
    code = "item = queue.get(world.state, 1)\nworld.train(item, 7)"
    run_killed("from queue_store import queue\n" + code, world.home.root, point)
    upkeep.recover(world.state)
    found, damaged = newest_verified(world.state)
    head = records.head(world.state)
    assert head and head.checkpoint == found and not damaged
    assert found.step == (3 if POINTS[point] == "old" else 7)
    assert queue.get(world.state, item.id).cursor == found.step
    assert found.progress.cursors == {item.id: (found.step, found.step)}
    manifest.refuse(manifest.check(folder_of(world.home, found)), Path(), "")
    assert folders(world) == sorted(c.name for c in records.checkpoints(world.state)[1:])
    assert not list(world.home.tmp.iterdir())
    assert upkeep.recover(world.state) == []  # a second recovery finds nothing to do
    world.step = found.step
    after = world.train(queue.get(world.state, item.id), 8)
    assert after.id > before.id and newest_verified(world.state)[0] == after


def test_a_finished_commit_ends_items_as_the_cut_off_one_would_have(world: World) -> None:
    item = world.add()
    code = "from queue_store import queue\nworld.train(queue.get(world.state, 1))"
    run_killed(code, world.home.root, "checkpoint.before_commit")
    assert queue.get(world.state, item.id).state is ItemState.TRAINED
    (told,) = upkeep.recover(world.state)
    assert "commit is finished" in told
    assert queue.get(world.state, item.id).state is ItemState.DONE
    assert [e.text for e in journal.events(world.state, kinds=["recovered"])] == [told]


def test_a_kill_inside_recovery_is_repaired_by_the_next_one(world: World) -> None:
    world.add()
    train = "from queue_store import queue\nworld.train(queue.get(world.state, 1), 5)"
    run_killed(train, world.home.root, "publish.renamed")
    recover = "from snapshots.upkeep import recover\nrecover(world.state)"
    run_killed(recover, world.home.root, "checkpoint.before_commit")
    assert len(upkeep.recover(world.state)) == 1
    assert newest_verified(world.state)[0].step == 5


def test_a_published_folder_that_is_damaged_is_set_apart_not_adopted(world: World) -> None:
    world.add()
    train = "from queue_store import queue\nworld.train(queue.get(world.state, 1), 5)"
    run_killed(train, world.home.root, "publish.renamed")
    (folder,) = world.home.checkpoints.iterdir()
    flip(folder / "optimizer.safetensors")
    (told,) = upkeep.recover(world.state)
    assert "set apart" in told and "optimizer" in told
    assert [p.name for p in world.home.quarantine.iterdir()] == [folder.name]
    assert newest_verified(world.state)[0].kind == "base"


@pytest.mark.parametrize("file", ["model.safetensors", "rng.json", ".ledger.json", "manifest.json"])
def test_damage_on_the_disk_makes_resume_take_the_one_before(file: str, world: World) -> None:
    good = world.save()
    world.step = 5
    bad = world.save()
    flip(folder_of(world.home, bad) / file)
    with pytest.raises(VerificationFailed):
        open_checkpoint(world.state, bad)
    found, damaged = newest_verified(world.state)
    assert found == good and [checkpoint.id for checkpoint, _ in damaged] == [bad.id]
    upkeep.set_apart(world.state, bad, damaged[0][1])
    assert (world.home.quarantine / bad.name).is_dir() and folders(world) == [good.name]
    assert newest_verified(world.state) == (good, [])
    with pytest.raises(NotFound, match="removed"):
        open_checkpoint(world.state, records.checkpoint(world.state, bad.id))


def test_the_head_moves_off_a_damaged_checkpoint_and_its_rows_train_again(world: World) -> None:
    first, second = world.add("one.jsonl"), world.add("two.jsonl")
    world.train(first)
    good = world.train(second, 4)
    bad = world.train(second)
    flip(folder_of(world.home, bad) / "optimizer.safetensors")
    code = "from snapshots.upkeep import resume_point\nresume_point(world.state)"
    run_killed(code, world.home.root, "apart.moved")
    upkeep.recover(world.state)
    assert upkeep.resume_point(world.state) == good
    head = records.head(world.state)
    assert head and head.checkpoint == good and head.branch == world.branch
    item = queue.get(world.state, second.id)
    assert (item.state, item.cursor) == (ItemState.PAUSED, 4)
    assert queue.get(world.state, first.id).state is ItemState.DONE
    assert [p.name for p in world.home.quarantine.iterdir()] == [bad.name]
    assert upkeep.resume_point(world.state) == good


def test_leftovers_of_dead_processes_are_swept_and_those_of_living_ones_stay(
    world: World,
) -> None:
    run_killed("world.save()", world.home.root, "checkpoint.hashed")
    (dead,) = world.home.tmp.iterdir()
    mine = durable.new_tmp(world.home, "add")
    reused = world.home.tmp / f"checkpoint-{os.getpid()}-old"
    reused.mkdir()
    assert upkeep.sweep_tmp(world.home) == 1
    assert not dead.exists() and mine.exists() and reused.exists()


def test_a_process_that_ended_and_that_nobody_waited_for_is_dead(world: World) -> None:
    ended = subprocess.Popen(["sleep", "60"])
    leftover = world.home.tmp / f"prepared-{ended.pid}-half"
    leftover.mkdir(parents=True)
    assert upkeep.sweep_tmp(world.home) == 0
    ended.kill()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert upkeep.sweep_tmp(world.home) == 1 and not leftover.exists()
    ended.wait()


def steps(world: World) -> list[int]:
    return [c.step for c in records.checkpoints(world.state) if c.kind != "base"]


def saves(world: World, losses: list[float | None]) -> None:
    for n, loss in enumerate(losses, 1):
        world.step = n
        world.save(val_loss=loss)


def test_pruning_keeps_the_newest_the_best_and_the_head(world: World) -> None:
    saves(world, [None, 0.2, 0.5, 0.3, 0.9, 0.8])
    removed = upkeep.prune_checkpoints(world.state, keep=2, keep_best=1)
    assert [c.step for c in removed] == [1, 3, 4]
    assert steps(world) == [2, 5, 6] and len(folders(world)) == 3
    texts = [e.text for e in journal.events(world.state, kinds=["checkpoint.removed"])]
    assert len(texts) == 3 and "keep 2" in texts[0]
    assert upkeep.prune_checkpoints(world.state, keep=2, keep_best=1) == []
    assert upkeep.prune_checkpoints(world.state, keep=0)[-1].step == 5
    assert steps(world) == [6]  # the head stays whatever the rule says


def test_nothing_goes_while_there_are_fewer_than_the_rule_keeps(world: World) -> None:
    saves(world, [None] * 3)
    assert upkeep.prune_checkpoints(world.state, keep=5, keep_best=1) == []
    assert steps(world) == [1, 2, 3]


def test_pruning_spares_what_is_protected_or_in_use(world: World) -> None:
    saves(world, [None] * 5)
    first, second, third, *_ = records.checkpoints(world.state)[1:]
    with checkpoints.using(second):
        upkeep.prune_checkpoints(world.state, keep=1, protected=[third.id])
    assert steps(world) == [second.step, third.step, 5]
    assert first.step == 1
    upkeep.prune_checkpoints(world.state, keep=1)
    assert steps(world) == [5]


def test_pruning_spares_what_an_unfinished_item_can_be_undone_to(world: World) -> None:
    done, running = world.add("done.jsonl"), world.add("running.jsonl")
    world.train(done, 5)
    start = world.train(done)
    for cursor in range(1, 6):
        world.train(running, cursor)
    upkeep.prune_checkpoints(world.state, keep=2)
    assert steps(world) == [start.step, ROWS + 4, ROWS + 5]


def test_nothing_is_pruned_while_the_head_is_damaged(world: World) -> None:
    saves(world, [None] * 4)
    head = records.checkpoints(world.state)[-1]
    (folder_of(world.home, head) / "rng.json").unlink()
    assert upkeep.prune_checkpoints(world.state, keep=1) == []
    assert steps(world) == [1, 2, 3, 4]


def test_a_removal_is_an_event_first_and_is_finished_after_a_kill(world: World) -> None:
    saves(world, [None] * 3)
    code = "from snapshots.upkeep import prune_checkpoints\nprune_checkpoints(world.state, keep=1)"
    run_killed(code, world.home.root, "prune.journaled")
    assert len(journal.events(world.state, kinds=["checkpoint.removed"])) == 1
    assert len(folders(world)) == 3 and steps(world) == [2, 3]
    upkeep.recover(world.state)
    assert len(folders(world)) == 2 and newest_verified(world.state)[0].step == 3


def test_an_adopted_checkpoint_ends_only_what_was_trained_when_it_was_captured(
    world: World,
) -> None:
    first, second = world.add(), world.add("b.jsonl")
    for item in (first, second):
        transitions.move_state(world.state, item.id, ItemState.PREPARING, "prepares")
        transitions.training(world.state, item.id, "trains")
    transitions.trained(world.state, first.id, ROWS)
    writer = CheckpointWriter(world.state).__enter__()
    write_state(writer.folder, ROWS + 4)
    draft = writer.draft(
        branch=world.branch,
        step=ROWS + 4,
        run=world.run,
        item=second.id,
        cursors={second.id: (4, 4)},
        trained=[first.id],
        loss=0.1,
        val_loss=None,
        learning_rate=1e-4,
    )
    transitions.trained(world.state, second.id, 2 * ROWS)  # while the thread writes
    writer.publish(draft)  # and here the process dies
    assert len(upkeep.recover(world.state)) == 1
    head = records.head(world.state)
    assert head and head.checkpoint.progress.finished == {first.id}
    assert head.checkpoint.progress.cursors == {second.id: (4, 4)}
    assert queue.get(world.state, first.id).state is ItemState.DONE
    assert queue.get(world.state, second.id).state is ItemState.TRAINED


def test_a_ledger_of_before_ends_all_that_was_trained(world: World) -> None:
    saved = world.train(world.add())
    path = folder_of(world.home, saved) / ".ledger.json"
    raw = json.loads(path.read_text())
    del raw["trained"]
    path.write_text(json.dumps(raw))
    assert checkpoints.Ledger.read(path.parent).trained is None
