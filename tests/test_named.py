"""A model by the name that a person gives it: never guessed between two, never another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store.database import open_state
from queue_store.errors import NotFound, UsageError
from queue_store.home import Home
from snapshots import labels, versions
from snapshots.named import named
from tests.store_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """v001 of step 10, and a later checkpoint without a version."""
    world = World(tmp_path / "home")
    world.train(world.add("a.jsonl"), val_loss=0.5)
    versions.create(world.state, verified=False)
    world.train(world.add("b.jsonl"))
    yield world
    world.close()


def test_every_name_of_a_model_gives_its_digest(world: World) -> None:
    version = versions.get(world.state, "v001")
    labels.tag(world.state, "v001", "good")
    for name in ("v001", "1", "good", version.weights_digest, version.weights_digest[:8]):
        found = named(world.state, name)
        assert (found.name, found.digest) == ("v001", version.weights_digest), name
        assert (found.val_loss, found.step) == (0.5, 10)


def test_a_checkpoint_without_a_version_has_its_own_name(world: World) -> None:
    (name,) = (p.name for p in world.home.checkpoints.iterdir() if "-20-" in p.name)
    found = named(world.state, name)
    assert found.name == name and found.step == 20 and "unknown" in found.val_loss
    assert named(world.state, found.digest[:10]) == found


def test_base_is_what_the_home_started_from(world: World, tmp_path: Path) -> None:
    found = named(world.state, "base")
    assert (found.name, found.digest, found.step) == ("base", "b" * 64, 0)
    assert named(world.state, "b" * 9).name == "base"
    with (
        open_state(Home(tmp_path / "new")) as fresh,
        pytest.raises(NotFound, match="the base model's digest is not known yet"),
    ):
        named(fresh, "base")


def test_a_model_that_is_gone_is_named_by_its_whole_digest_alone(world: World) -> None:
    found = named(world.state, "f" * 64)
    assert (found.name, found.digest) == ("f" * 12, "f" * 64) and "unknown" in found.step
    for name in ("f" * 63, "v009", "none", "", "F" * 64, "b" * 7):
        with pytest.raises(NotFound, match="no model"):
            named(world.state, name)


def test_the_start_of_two_digests_is_no_name(world: World) -> None:
    start = "0123456789"
    for n, row in enumerate(world.state.db.execute("SELECT id FROM checkpoints WHERE id > 0")):
        digest = f"{start}{n:054}"
        world.state.db.execute(
            "UPDATE checkpoints SET weights_digest = ? WHERE id = ?", (digest, row[0])
        )
    world.state.db.execute(f"UPDATE versions SET weights_digest = '{start}{0:054}'")
    with pytest.raises(UsageError, match="start of 2 digests"):
        named(world.state, start)
    assert named(world.state, f"{start}{0:054}").name == "v001"
