"""The protocols, one scenario each: a home made ready, and the acts that faults are put into.

    python -m tests.faults.scenarios ROOT NAME

A scenario is a row of SCENARIOS: `before` makes the home (undisturbed, once, and copied), `act`
is what gets killed, cut, or refused the disk. A protocol that is added later is a row more.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

from queue_store import (
    daily_copy,
    durable,
    head,
    intake,
    journal,
    queue,
    records,
    reserve,
    transitions,
)
from queue_store.database import open_state
from queue_store.errors import VerificationFailed
from queue_store.home import Home
from queue_store.inbox import Inbox
from queue_store.items import ItemState, Priority
from snapshots import labels, rollback, upkeep, versions
from tests.faults.deletions import DELETIONS
from tests.faults.scenario import Scenario
from tests.faults.world import FaultWorld, one_thread, recover, rows_of, tell
from tests.store_world import flip


def empty(world: FaultWorld) -> None:
    """Nothing trained yet."""


def half_trained(world: FaultWorld) -> None:
    """One item done, one at row 4, one waiting."""
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        world.queued(name)
    first = world.claim()
    assert first is not None
    world.steps(first, 10)
    world.saved(first)
    second = world.claim()
    assert second is not None
    world.steps(second, 4)
    world.saved(second)


def versioned(world: FaultWorld) -> None:
    """Two verified versions, and steps after them."""
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        world.queued(name)
    for cursor in (10, 4, 7):
        item = (queue.running(world.state) or [world.claim()])[0]
        assert item is not None
        world.steps(item, cursor)
        world.saved(item)
        if cursor != 7:
            world.version(f"at {world.step}")


def in_inbox(world: FaultWorld) -> None:
    """Two files in the inbox, one with its lineage, one of a priority; one under two names."""
    inbox = world.home.inbox
    (inbox / "a.jsonl").write_text(rows_of("a"))
    (inbox / "a.jsonl.meta.json").write_text('{"made": "by hand"}')
    (inbox / "high" / "b.jsonl").write_text(rows_of("b"))
    (world.home.root / "elsewhere.jsonl").write_text(rows_of("c"))
    os.link(world.home.root / "elsewhere.jsonl", inbox / "c.jsonl")


def take_inbox(home: Home) -> None:
    box = Inbox(home, lambda: open_state(home), 0.0)
    try:
        for item in box.scan().taken:
            tell("item", id=item.id, name=item.name, digest=item.digest)
    finally:
        box.close()


def take_bound_inbox(home: Home) -> None:
    """The inbox is a bind mount: the same device, and yet nothing can be renamed out of it."""
    original = durable.rename_no_replace

    def bound(source: Path, target: Path) -> None:
        if source.is_relative_to(home.inbox):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        original(source, target)

    durable.rename_no_replace = bound
    try:
        take_inbox(home)
    finally:
        durable.rename_no_replace = original


def databases(home: Home) -> None:
    """The daily copies of the databases, and the reserve made and dropped."""
    with open_state(home) as state:
        daily_copy.back_up(state)
        tell("event", event="backup")
        reserve.keep(home)
        reserve.drop(home)


def add(home: Home) -> None:
    path = home.root / "new.jsonl"
    path.write_text(rows_of("new"))
    intake.sidecar_of(path).write_text("{}")
    with open_state(home) as state:
        for priority in (Priority.NORMAL, Priority.HIGH):
            item = intake.add_file(state, path, priority=priority)
            tell("item", id=item.id, name=item.name, digest=item.digest)


def train(world: FaultWorld) -> None:
    world.queued("d.jsonl")
    item = (queue.running(world.state) or [world.claim()])[0]
    assert item is not None
    for cursor in (7, 10):
        world.steps(item, cursor)
        world.saved(item)


def version(world: FaultWorld) -> None:
    world.version("first")
    made = versions.create(world.state, scope=versions.WEIGHTS, pinned=True)
    tell("version", name=made.name, weights_digest=made.weights_digest, verified=True)
    labels.pin(world.state, "v001")
    labels.tag(world.state, "v001", "good")
    tell("event", event="version.tagged")


def base_version(world: FaultWorld) -> None:
    world.version("the model as it came")


def roll_back(world: FaultWorld) -> None:
    made = rollback.plan(world.state, "v001")
    done = rollback.apply(world.state, made)
    tell("rollback", branch=done.head.branch, step=done.head.checkpoint.step)
    tell("version", name=done.saved.name, weights_digest=done.saved.weights_digest)
    world.stand_on_head()
    item = world.claim()
    if item is not None:
        world.steps(item, 10)
        world.saved(item)


def based(world: FaultWorld) -> None:
    """A version of the base model, and steps after it."""
    world.version("base")
    half_trained(world)


def prune(world: FaultWorld) -> None:
    for gone in upkeep.prune_checkpoints(world.state, keep=1):
        tell("event", event="checkpoint.removed", step=gone.step)


def orders(home: Home) -> None:
    """What a person does with the queue."""
    with open_state(home) as state:
        waiting = queue.items(state, ItemState.QUEUED)
        one = waiting[0]
        queue.set_priority(state, one.id, Priority.HIGH)
        tell("event", event="item.priority", item=one.id)
        queue.move_first(state, one.id)
        tell("event", event="item.moved", item=one.id)
        transitions.skip(state, one.id, "by hand")
        tell("event", event="item.skipped", item=one.id)
        transitions.retry(state, one.id)
        tell("event", event="item.retried", item=one.id)
        intake.remove(state, one.id)
        tell("removed", id=one.id)


def undo(world: FaultWorld) -> None:
    """The item that trains is undone: back to before it."""
    item = queue.running(world.state)[0]
    world.steps(item, 6)
    at = records.head(world.state)
    assert at is not None and at.checkpoint.parent is not None
    target = records.checkpoint(world.state, at.checkpoint.parent)
    with world.state.transaction():
        transitions.skip(world.state, item.id, "wrong", undone=True)
        head.move_head(world.state, target, why="undone")
    tell("event", event="item.skipped", item=item.id)
    world.stand_on_head()
    world.saved()


def park(world: FaultWorld) -> None:
    """Pause with saving, resume; keep what a skipped item taught."""
    item = queue.running(world.state)[0]
    world.steps(item, 6)
    world.saved(item)
    with world.state.transaction():
        world.state.meta_set("paused", True)
        journal.record(world.state, "paused", "paused and parked")
    tell("paused", value=True)
    transitions.suspend(world.state, item.id, "paused", "parked")
    claimed = world.claim()
    assert claimed is not None
    world.steps(claimed, 8)
    world.saved(claimed)
    transitions.skip(world.state, claimed.id, "enough")
    tell("event", event="item.skipped", item=claimed.id)


def failing(world: FaultWorld) -> None:
    """A transient failure, and one by nature, of items that trained."""
    item = queue.running(world.state)[0]
    transitions.fail(world.state, item.id, "out of memory", "no room", 3)
    tell("event", event="item.retry", item=item.id)
    other = world.claim()
    assert other is not None
    transitions.fail(world.state, other.id, "data", "line 3", 3)
    tell("event", event="item.failed", item=other.id)


def broken_head(world: FaultWorld) -> None:
    """The newest checkpoint is damaged, a version was linked and never renamed, an item trains,
    and a file lies in the store without a row."""
    versioned(world)
    at = records.head(world.state)
    assert at is not None
    flip(world.home.checkpoints / at.checkpoint.name / "optimizer.safetensors")
    orphan = world.home.items / "1-1-orphan.jsonl"
    orphan.write_text(rows_of("orphan"))
    half = world.home.tmp / "version-4194303-x"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"x")
    leftover = world.home.versions / "v009"
    shutil.copytree(world.home.versions / "v001", leftover)


def rotten_version(world: FaultWorld) -> None:
    """A version that nobody read back yet, with a flipped bit."""
    half_trained(world)
    made = versions.create(world.state, verified=False)
    flip(world.home.versions / made.name / "model.safetensors")


def verify_rotten(home: Home) -> None:
    with open_state(home) as state:
        try:
            versions.verify(state, "v001")
        except VerificationFailed:
            tell("event", event="version.corrupt")
            return
        raise AssertionError("a flipped bit passes")


def rotten(home: Home) -> set[str]:
    return {"v001"} | head_name(home)


def head_name(home: Home) -> set[str]:
    with open_state(home) as state:
        at = state.db.execute("SELECT name FROM checkpoints ORDER BY id DESC LIMIT 1").fetchone()
        return {at[0]}


SCENARIOS = (
    Scenario("add", empty, bare=add),
    Scenario("inbox", in_inbox, bare=take_inbox),
    Scenario("inbox-bound", in_inbox, bare=take_bound_inbox),
    Scenario("databases", half_trained, bare=databases),
    Scenario("orders", half_trained, bare=orders),
    Scenario("checkpoint", half_trained, train),
    Scenario("version", half_trained, version),
    Scenario("base-version", empty, base_version),
    Scenario("verify-damaged", rotten_version, bare=verify_rotten, damaged=rotten),
    Scenario("rollback", versioned, roll_back),
    Scenario("rollback-to-base", based, roll_back),
    Scenario("prune", versioned, prune),
    *DELETIONS,
    Scenario("undo", half_trained, undo),
    Scenario("park", half_trained, park),
    Scenario("fail", half_trained, failing),
    Scenario(
        "recovery", broken_head, bare=lambda home: (recover(home), None)[1], damaged=head_name
    ),
)
NAMES = {one.name: one for one in SCENARIOS}


def perform(scenario: Scenario, root: Path) -> None:
    """The act of a scenario on a home that `prepare` made."""
    if scenario.bare is not None:
        scenario.bare(Home(root))
        return
    assert scenario.act is not None
    world = FaultWorld(root)
    scenario.act(world)
    world.close()


def prepare(scenario: Scenario, root: Path) -> None:
    """The home as it is before the act."""
    world = FaultWorld(root)
    scenario.before(world)
    world.close()


if __name__ == "__main__":
    one_thread()
    perform(NAMES[sys.argv[2]], Path(sys.argv[1]))
