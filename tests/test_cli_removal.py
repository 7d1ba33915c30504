"""delete, prune, trash on the command line: what goes is said first, and nobody deletes by
mistake. Real commands, with and without an engine."""

from __future__ import annotations

import json

import pytest

from queue_store.home import Home
from snapshots import versions
from tests import engine_kit as kit
from tests.daemon_kit import daemon
from tests.store_world import World


@pytest.fixture
def kept(tmp_path) -> Home:
    """A home with v001 to v005, all verified, two of them daily; the head is v005's."""
    world = World(tmp_path / "home")
    world.home.config.write_text("[snapshots]\nkeep_last = 1\nkeep_daily = 0\nkeep_weekly = 0\n")
    for n in range(5):
        world.train(world.add(f"{n}.jsonl"))
        versions.create(world.state, kind="daily" if n in (1, 2) else "manual")
    world.close()
    return world.home


def names(home: Home, trainctl) -> list[str]:
    return [v["name"] for v in json.loads(trainctl("versions", "--json", home=home).out)]


def test_delete_wants_the_name_says_what_goes_and_trash_brings_it_back(kept, trainctl) -> None:
    for words, code in (
        ([], 1),
        (["--yes", "v002"], 2),
        (["--yes"], 2),
    ):
        refused = trainctl("delete", "v001", *words, home=kept)
        assert refused.code == code and refused.err.count("\n") == 1, refused
    assert len(names(kept, trainctl)) == 5
    done = json.loads(trainctl("delete", "v001", "--yes", "v001", "--json", home=kept).out)
    assert done["version"] == "v001" and done["where"] == "trash" and done["freed_bytes"] > 0
    assert names(kept, trainctl) == ["v002", "v003", "v004", "v005"]
    (thrown,) = json.loads(trainctl("trash", "--json", home=kept).out)
    assert thrown["name"] == "v001" and thrown["expires"] > thrown["deleted"]
    assert trainctl("trash", "restore", "v001", home=kept).code == 0
    assert names(kept, trainctl)[0] == "v001"
    assert trainctl("trash", "list", home=kept).out == "the trash is empty\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [("v005", "stands on it"), ("v004", "what the head came from"), ("v009", "no version")],
)
def test_what_is_needed_is_refused_in_one_line(kept, trainctl, name, why) -> None:
    done = trainctl("delete", name, "--yes", name, home=kept)
    assert done.code == 1 and why in done.err and done.err.count("\n") == 1


def test_prune_says_why_each_stays_or_goes_and_does_just_that(kept, trainctl) -> None:
    plan = json.loads(trainctl("prune", "--dry-run", "--json", home=kept).out)
    goes = [e["name"] for e in plan if e["kind"] == "version" and not e["keep"]]
    assert goes == ["v001", "v002", "v003"]
    assert all(e["reasons"] for e in plan) and {e["kind"] for e in plan} == {
        "version",
        "checkpoint",
    }
    assert "GOES" in trainctl("prune", "--dry-run", home=kept).out
    assert trainctl("prune", home=kept).code == 1  # nobody can be asked here
    assert len(names(kept, trainctl)) == 5
    done = json.loads(trainctl("prune", "--yes", "--json", home=kept).out)
    assert [d["name"] for d in done if d["removed"]] == goes
    assert names(kept, trainctl) == ["v004", "v005"]
    gone = json.loads(trainctl("trash", "empty", "--yes", "--json", home=kept).out)
    assert [g["name"] for g in gone] == goes and not list(kept.trash.iterdir())
    assert trainctl("trash", "restore", "v001", home=kept).code == 1


def test_an_empty_policy_is_refused(kept, trainctl) -> None:
    kept.config.write_text(kept.config.read_text() + "keep_best_versions = 0\n")
    kept.config.write_text(kept.config.read_text().replace("keep_last = 1", "keep_last = 0"))
    done = trainctl("prune", "--yes", home=kept)
    assert done.code == 1 and "no rule" in done.err and "keep_last" in done.err


def test_a_running_engine_deletes_prunes_and_brings_back(tmp_path, trainctl) -> None:
    home = kit.make_home(tmp_path / "home", snapshots={"save_seconds": 0, "background": "off"})
    kit.add(home, "a.jsonl", 24)
    with daemon(home) as running:
        running.started()
        running.wait_idle()
        for n in range(3):
            kit.add(home, f"{n}.jsonl", 8, n + 2)
            running.wait_idle()
            assert trainctl("snapshot", "-m", str(n), home=home).code == 0
        refused = trainctl("delete", "v003", "--yes", "v003", home=home)
        assert refused.code == 1 and "stands on it" in refused.err, refused
        done = trainctl("delete", "v001", "--yes", "v001", home=home)
        assert done.code == 0, done.err
        assert names(home, trainctl) == ["v002", "v003"]
        assert trainctl("trash", "restore", "v001", home=home).code == 0
        assert names(home, trainctl) == ["v001", "v002", "v003"]
        removed = trainctl("prune", "--dry-run", "--json", home=home)
        assert removed.code == 0 and json.loads(removed.out)


def test_a_removed_item_comes_back_with_its_file(tmp_path, trainctl) -> None:
    home = kit.make_home(tmp_path / "home")
    item = kit.add(home, "a.jsonl", 8)
    data = (home.items / item.file).read_bytes()
    assert trainctl("remove", item.id, "--yes", home=home).code == 0
    assert kit.states(home) == {} and not (home.items / item.file).exists()
    assert trainctl("trash", "restore", "a.jsonl", home=home).code == 0
    assert kit.states(home) == {"a.jsonl": "queued"}
    assert (home.items / item.file).read_bytes() == data
