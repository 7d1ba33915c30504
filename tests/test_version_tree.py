"""Which version came from which, what a rollback left, and what distinguishes two of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import queue, records
from queue_store.errors import NotFound
from snapshots import difference, facts, rollback, versions
from snapshots.checkpoints import folder_of
from snapshots.listing import versions_json
from snapshots.tree import drawn
from tests.store_world import ROWS, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """v001 at step 10, v002 at 20, rolled back to v001 (v003 holds what was left, step 30), and
    v004 at step 20 of the new branch."""
    made = World(tmp_path)
    items = [made.add(f"{name}.jsonl") for name in ("one", "two", "three")]
    made.train(items[0])
    versions.create(made.state, description="first")
    made.train(items[1])
    versions.create(made.state, description="second")
    made.train(items[2])
    rollback.apply(made.state, rollback.plan(made.state, "v001"))
    made.close()
    again = World(tmp_path)
    again.train(again.add("four.jsonl"))
    versions.create(again.state, description="other way")
    yield again
    again.close()


def rows(world: World) -> dict[str, dict]:
    return {row["name"]: row for row in versions_json(world.state)}


def test_every_version_names_its_parent_and_what_a_rollback_left(world: World) -> None:
    found = rows(world)
    parents = {name: row["parent"] for name, row in found.items()}
    assert parents["v002"] == "v001" and parents["v003"] == "v002" and parents["v004"] == "v001"
    assert parents["v001"] == {"unknown": "it came from the base model, with no version between"}
    left = {name for name, row in found.items() if row["rolled_back"]}
    assert left == {"v002", "v003"}


def test_going_back_to_the_branch_left_turns_it_round(world: World) -> None:
    rollback.apply(world.state, rollback.plan(world.state, "v003"))
    found = rows(world)
    left = {name for name, row in found.items() if row["rolled_back"]}
    assert left == {"v004", "v005"}  # v005 holds the state that was left, of v004's checkpoint
    assert found["v005"]["parent"] == "v001"


def test_a_version_whose_parent_was_deleted_comes_from_the_one_before(world: World) -> None:
    world.state.db.execute("DELETE FROM versions WHERE name = 'v002'")
    assert rows(world)["v003"]["parent"] == "v001"


def test_a_snapshot_right_after_a_rollback_comes_from_its_target(world: World) -> None:
    rollback.apply(world.state, rollback.plan(world.state, "v002"))
    versions.create(world.state, description="right after")
    assert rows(world)["v006"]["parent"] == "v002"


def test_the_tree_goes_straight_down_the_heads_line(world: World) -> None:
    picture = [f"{before}{row['name']}" for before, row in drawn(list(rows(world).values()))]
    assert picture == ["v001", "|- v002", "|  v003", "v004"]


def test_a_line_of_a_thousand_versions_is_drawn() -> None:
    many = [
        {"name": f"v{n}", "parent": f"v{n - 1}" if n else {"unknown": "-"}, "rolled_back": n > 9}
        for n in range(3000)
    ]
    assert [row["name"] for _, row in drawn(many)] == [row["name"] for row in many]
    forks = [{"name": f"f{n}", "parent": "v0", "rolled_back": True} for n in range(3)]
    picture = drawn([many[0], *forks])
    assert [before for before, _ in picture] == ["", "|- ", "|- ", "|- "]


def test_the_facts_say_which_names_share_the_bytes(world: World) -> None:
    row = rows(world)["v004"]
    found = facts.facts(world.state, "v004", row)
    made_of = records.checkpoint(world.state, row["checkpoint"])
    files = {file["name"]: file for file in found["files"]}
    assert files["model.safetensors"]["shared_with"] == [made_of.name]
    assert files["model.safetensors"]["links"] == 2
    assert files["version.json"]["shared_with"] == [] and files["version.json"]["links"] == 1
    assert found["shared_bytes"] >= files["model.safetensors"]["size_bytes"]
    assert "one copy under two names" in found["hard_links"]
    assert found["line"] == ["v001", "v004"] and found["checkpoint_name"] == made_of.name
    assert [(i["name"], i["rows"], i["whole"]) for i in found["items"]] == [
        ("one.jsonl", ROWS, True),
        ("four.jsonl", ROWS, True),
    ]
    for name in ("v001", "v004"):
        path = folder_of(world.home, made_of) / "model.safetensors"
        assert path.exists()
        again = facts.facts(world.state, name, rows(world)[name])
        assert name not in [n for file in again["files"] for n in file["shared_with"]]


def test_facts_of_a_version_with_a_lost_manifest_say_so(world: World) -> None:
    manifest = world.home.versions / "v001" / "manifest.json"
    manifest.unlink()
    found = facts.facts(world.state, "v001", rows(world)["v001"])
    assert "missing" in found["files"]["unknown"]


def test_the_difference_of_two_branches(world: World) -> None:
    found = difference.difference(world.state, "v003", "v004")
    assert found["fork"]["step"] == 10 and found["steps"] == {"a": 20, "b": 10}
    assert found["items"] == [
        {"id": 2, "name": "two.jsonl", "fork": 0, "a": ROWS, "b": 0},
        {"id": 3, "name": "three.jsonl", "fork": 0, "a": ROWS, "b": 0},
        {"id": 4, "name": "four.jsonl", "fork": 0, "a": 0, "b": ROWS},
    ]
    states = {file["name"]: file["state"] for file in found["files"]}
    assert states == {
        "config.json": "equal",
        "model.safetensors": "differs",
        "optimizer.safetensors": "differs",
        "rng.json": "differs",
        "training_state.json": "differs",
    }
    assert found["a"]["loss"] != found["b"]["loss"] and not found["same_weights"]


def test_a_version_and_the_one_it_came_from_part_at_that_one(world: World) -> None:
    found = difference.difference(world.state, "v001", "v002")
    assert found["steps"] == {"a": 0, "b": 10} and len(found["items"]) == 1
    same = difference.difference(world.state, "v001", "v001")
    assert same["same_weights"] and same["items"] == [] == same["settings"]
    assert {file["state"] for file in same["files"]} == {"equal"}
    with pytest.raises(NotFound):
        difference.difference(world.state, "v001", "v099")


def test_settings_that_differ_are_those_that_the_items_froze(world: World) -> None:
    for number, rate in ((3, 1e-3), (4, 2e-3)):
        text = f'{{"training": {{"learning_rate": {rate}, "seed": 0}}}}'
        world.state.db.execute("UPDATE items SET settings = ? WHERE id = ?", (text, number))
    assert queue.get(world.state, 3).settings
    found = difference.difference(world.state, "v003", "v004")
    assert found["settings"] == [{"key": "training.learning_rate", "a": 1e-3, "b": 2e-3}]


def test_weights_only_and_whole_of_one_state_share_their_weights(world: World) -> None:
    versions.create(world.state, scope=versions.WEIGHTS)
    found = difference.difference(world.state, "v004", "v005")
    assert found["same_weights"]
    states = {file["name"]: file["state"] for file in found["files"]}
    assert states["optimizer.safetensors"] == "only_a" and states["model.safetensors"] == "equal"
