"""The scenarios of what goes and comes back: deletion, quarantine, trash."""

from __future__ import annotations

from queue_store import intake, queue
from queue_store import trash as thrown
from queue_store.database import open_state
from queue_store.errors import Refused, VerificationFailed
from queue_store.home import Home
from queue_store.items import ItemState
from snapshots import removal, trash, versions
from tests.faults.scenario import Scenario
from tests.faults.world import FaultWorld, tell
from tests.store_world import flip


def many_versions(world: FaultWorld) -> None:
    """Four versions that a person made, a removed item, and training far from the first."""
    for name in ("a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"):
        world.queued(name)
    for cursor in (3, 5, 7, 10):
        item = (queue.running(world.state) or [world.claim()])[0]
        assert item is not None
        world.steps(item, cursor)
        world.saved(item)
        world.version(f"at {world.step}")
    for cursor in (4, 8):
        item = (queue.running(world.state) or [world.claim()])[0]
        assert item is not None
        world.steps(item, cursor)
        world.saved(item)


def delete(home: Home) -> None:
    with open_state(home) as state:
        removal.delete(state, "v001", why="by hand", days=7)
        tell("deleted", name="v001")


def damaged_version(world: FaultWorld) -> None:
    """The second of four versions is damaged, and known to be."""
    many_versions(world)
    flip(world.home.versions / "v002" / "model.safetensors")
    try:
        versions.verify(world.state, "v002")
    except VerificationFailed:
        return
    raise AssertionError("a flipped bit passes")


def delete_damaged(home: Home) -> None:
    with open_state(home) as state:
        removal.delete(state, "v002", why="damaged", days=7)
        tell("deleted", name="v002")


def of_v002(home: Home) -> set[str]:
    with open_state(home) as state:
        row = state.db.execute("SELECT name FROM checkpoints WHERE step = 5").fetchone()
        return {"v002", row[0]}


def thrown_away(world: FaultWorld) -> None:
    """A version and an item in the trash."""
    many_versions(world)
    delete(world.home)
    item = queue.items(world.state, ItemState.QUEUED)[-1]
    intake.remove(world.state, item.id)
    tell("removed", id=item.id)


def bring_back(home: Home) -> None:
    with open_state(home) as state:
        for name in [one.name for one in thrown.listed(state)]:
            trash.restore(state, name)
        tell("version", name="v001", weights_digest=versions.get(state, "v001").weights_digest)


def empty_trash(home: Home) -> None:
    with open_state(home) as state:
        trash.empty(state)
        tell("event", event="trash.emptied")


def rotten_survivor(world: FaultWorld) -> None:
    """Four verified versions, of which the third rotted since."""
    many_versions(world)
    flip(world.home.versions / "v003" / "model.safetensors")


def delete_unproven(home: Home) -> None:
    with open_state(home) as state:
        try:
            removal.delete(state, "v001", why="by hand", days=7)
        except Refused:
            tell("event", event="version.corrupt")
            return
        raise AssertionError("it goes, though one that would have to do is damaged")


def of_v003(home: Home) -> set[str]:
    with open_state(home) as state:
        row = state.db.execute("SELECT name FROM checkpoints WHERE step = 7").fetchone()
        return {"v003", row[0]}


DELETIONS = (
    Scenario("delete", many_versions, bare=delete),
    Scenario("delete-unproven", rotten_survivor, bare=delete_unproven, damaged=of_v003),
    Scenario("delete-damaged", damaged_version, bare=delete_damaged, damaged=of_v002),
    Scenario("trash-restore", thrown_away, bare=bring_back),
    Scenario("trash-empty", thrown_away, bare=empty_trash),
)
