"""import: an older system's folder is copied, verified, taken over once, and never changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluation.sets import load_sets
from queue_store import config as configuration
from queue_store import intake, journal, lineage, queue
from queue_store.database import open_state
from queue_store.errors import Refused, VerificationFailed
from queue_store.home import Home
from queue_store.lock import EngineLock
from snapshots import imported, retention, rollback, versions
from snapshots import tree as versions_tree
from snapshots.retention import Rules
from tests import old_home
from tests.conftest import ROOT
from trainctl.importing import plan as plans
from trainctl.importing import weights

ERRORS = {
    "queue/normal/outside.jsonl",
    "data/validation/broken.json",
    "data/validation/sy_validation.json",
    "models/versions/v003_20260103_030000_torn",
    "models/versions/v004_20260104_030000_empty",
    "models/versions/v005_20260105_030000_pickle",
    "current_model/checkpoint-300-20260107-1200",
}
NEW = {"items": 10, "sets": 4, "versions": 5}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return old_home.make(tmp_path / "old")


def counts(home: Home) -> dict[str, int]:
    with open_state(home) as state:
        return {
            "items": len(queue.items(state)),
            "sets": len(load_sets(home)),
            "versions": len(versions.versions(state)),
        }


def content(folder: Path) -> dict[str, Any]:
    return old_home.snapshot(folder)


def test_a_dry_run_says_everything_and_changes_nothing(home: Home, old: Path, trainctl) -> None:
    source = content(old)
    done = trainctl("import", old, "--dry-run", "--json", home=home)
    plan = json.loads(done.out)
    assert done.code == 1 and plan["done"] is None  # 1: some of it cannot be taken over
    assert {key: len(plan[key]) for key in NEW} == NEW
    assert {one["path"] for one in plan["left_out"] if one["error"]} == ERRORS
    assert all(one["because"] for one in plan["left_out"])
    assert "models/versions/latest" in {one["path"] for one in plan["left_out"]}
    assert plan["bytes"] > 0 and plan["free_bytes"] > plan["bytes"]
    assert [one["key"] for one in plan["settings"]["conflicts"]]
    assert counts(home) == {"items": 0, "sets": 0, "versions": 0}
    assert content(old) == source
    plain = trainctl("import", old, "--dry-run", home=home).out
    assert "to copy: 19 things" in plain and "ERROR: queue/normal/outside.jsonl" in plain


def test_without_a_terminal_it_wants_yes(home: Home, old: Path, trainctl) -> None:
    done = trainctl("import", old, home=home)
    assert done.code == 1 and "--yes" in done.err and counts(home)["items"] == 0


def test_everything_is_taken_over_once_and_the_source_stays_as_it_was(
    home: Home, old: Path, trainctl
) -> None:
    source = content(old)
    done = trainctl("import", old, "--yes", "--json", home=home)
    told = json.loads(done.out)
    assert done.code == 1 and content(old) == source
    assert {one["path"] for one in told["left_out"] if one["error"]} == ERRORS | {
        "queue/normal/garbage.jsonl"  # rejected, and kept as such
    }
    assert counts(home) == NEW
    with open_state(home) as state:
        order = [(i.name, i.priority.word, i.state.value) for i in queue.items(state)]
        assert order == [
            ("urgent.jsonl", "high", "queued"),
            ("hot.jsonl", "high", "queued"),
            ("begun.jsonl", "normal", "queued"),
            ("train_binary_level2_2_20260101_000000.jsonl", "normal", "queued"),
            ("second.jsonl", "normal", "queued"),
            ("dropped.jsonl", "normal", "queued"),
            ("dataset_a.jsonl", "normal", "queued"),
            ("later.jsonl", "low", "queued"),
            *(("broke.jsonl", "low", "failed"), ("garbage.jsonl", "normal", "rejected")),
        ]
        items = {item.name: item for item in queue.items(state)}
        assert items["broke.jsonl"].error == "out of memory"
        named = items["train_binary_level2_2_20260101_000000.jsonl"]
        assert named.badge["level"] == 2
        assert (lineage.of_item(state, named) or {})["generator_id"] == "g"
        made = {v.description.split(",")[0]: v for v in versions.versions(state)}
        first = made["imported v001_20260101_030000_first_try"]
        assert (first.step, first.loss, first.kind, first.scope) == (
            100,
            0.5,
            "imported",
            "weights",
        )
        assert made["imported checkpoint-200-20260106-1200"].val_loss == 0.6
        assert made["imported current_model"].step == 250
        assert made["imported checkpoint-150-20260105-1200"].val_loss == 0.7  # of the one ledger
        assert all(v.state == "verified" for v in made.values())
        assert len({v.branch for v in made.values()}) == 5
        folder = versions.version_folder(home, made["imported checkpoint-200-20260106-1200"])
        assert not (folder / "optimizer.pt").exists() and (folder / "tokenizer.json").exists()
        tree = versions_tree.grow(state, versions.versions(state))
        assert tree.left == frozenset() and len(tree.elsewhere) == 5
        kept = retention.kept_because(state, Rules(last=1, daily=0, weekly=0, best=0))
        assert set(map(tuple, kept.values())) == {("imported",)}  # no rule's place is theirs
    again = trainctl("import", old, "--yes", "--json", home=home)
    told = json.loads(again.out)
    assert told["done"] == [] and all(one["here"] for key in NEW for one in told[key])
    assert counts(home) == NEW and trainctl("doctor", "--quick", home=home).code == 0


def test_held_out_rows_become_messages_with_their_metadata(home: Home, old: Path, trainctl) -> None:
    trainctl("import", old, "--yes", home=home)
    sets = {one.name: one.examples for one in load_sets(home)}
    assert {name: len(rows) for name, rows in sets.items()} == {
        **{"bin": 2, "sy_validation": 1, "val_binary_easy_100": 3, "chat": 2}
    }
    level = sets["bin"][1]
    assert (level.skill, level.level, level.expected) == ("binary", 2, "= 2")
    assert level.metadata["scenario"] == "negate" and level.metadata["tags"] == ["easy"]
    legacy = sets["val_binary_easy_100"][0]
    assert legacy.id == "bin-0050" and legacy.metadata["rubric"] == "the value"
    assert json.loads(sets["sy_validation"][0].expected)["solutions"]["1"]["word"] == "WINDOW"
    # A set that a person has edited since is theirs; another file of that name is not written over.
    path = home.evaluation / "bin.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert (
        "bin"
        in json.loads(trainctl("import", old, "--dry-run", "--json", home=home).out)["sets"][0][
            "here"
        ]
    )


def test_a_set_of_the_same_name_is_not_written_over(home: Home, old: Path, trainctl) -> None:
    (home.evaluation / "chat.jsonl").write_text(old_home.rows(1))
    told = json.loads(trainctl("import", old, "--yes", "--json", home=home).out)
    assert (home.evaluation / "chat.jsonl").read_text() == old_home.rows(1)
    assert any(one["path"] == "data/validation/chat.jsonl" for one in told["left_out"])


@pytest.mark.parametrize(
    "point",
    [
        *("import.item_made:2", "import.set_placed:2", "made.published"),
        *(
            pytest.param(point, marks=pytest.mark.slow)
            for point in (
                *("import.item_copied:3", "intake.taken:2", "take.renamed:2", "import.reserved"),
                *("import.copied:2", "publish.renamed", "made.committed:2", "version.verified"),
            )
        ),
    ],
)
def test_a_kill_at_any_moment_leaves_what_the_next_import_completes(
    point: str, home: Home, old: Path
) -> None:
    source = content(old)
    words = [sys.executable, "-P", "-m", "trainctl", "import", str(old), "--yes"]
    words += ["--home", str(home.root)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        words,
        env={**environment, "TRAINCTL_CRASH_AT": point},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert counts(home) == NEW and content(old) == source
    with open_state(home) as state:
        assert all(v.state in ("verified", "unverified") for v in versions.versions(state))
        assert len({i.digest for i in queue.items(state)}) == NEW["items"]
    assert list(home.tmp.iterdir()) == [] and list(home.quarantine.iterdir()) == []


def test_while_an_engine_runs_the_weights_wait(home: Home, old: Path, trainctl) -> None:
    with EngineLock.acquire(home, "daemon"):
        told = json.loads(trainctl("import", old, "--yes", "--json", home=home).out)
    waiting = [one for one in told["left_out"] if "an engine runs" in one["because"]]
    assert len(waiting) == 5 and counts(home) == {**NEW, "versions": 0}
    trainctl("import", old, "--yes", home=home)
    assert counts(home) == NEW


def test_another_command_that_holds_the_home_is_named(home: Home, old: Path, trainctl) -> None:
    with EngineLock.acquire(home, "backup"):
        done = trainctl("import", old, "--yes", home=home)
    assert done.code == 1 and "backup" in done.err and counts(home)["items"] == 0


def test_a_copy_that_differs_is_not_taken_over(
    home: Home, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainctl.importing import take

    with open_state(home) as state:
        plan = plans.look(state, old, {})
        (old / "queue" / "high" / "urgent.jsonl").write_text(old_home.rows(77))
        small = old / "models" / "versions" / "v001_20260101_030000_first_try" / "config.json"
        heavy = old / "current_model" / "model.safetensors"
        original = imported.durable.copy_file

        def changes(source: Path, target: Path) -> None:
            original(source, target)
            if source == small:
                target.write_text("{}")
            if source == heavy:
                data = bytearray(target.read_bytes())
                data[-1] ^= 1
                target.write_bytes(data)

        monkeypatch.setattr(imported.durable, "copy_file", changes)
        _, failed = take.take(state, plan, locked=True, tell=lambda line: None)
    whys = {one.path: one.because for one in failed}
    assert "not what was looked at" in whys["queue/high/urgent.jsonl"]
    assert "changed while" in whys["models/versions/v001_20260101_030000_first_try"]
    assert "weights changed" in whys["current_model"]
    assert counts(home)["versions"] == 3 and list(home.tmp.iterdir()) == []


def test_a_disk_without_room_is_refused_before_anything(
    home: Home, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainctl.importing import take

    with open_state(home) as state:
        plan = plans.look(state, old, {})
        monkeypatch.setattr(take.require_space.__globals__["durable"], "free_bytes", lambda _: 1)
        with pytest.raises(Refused, match="not enough disk"):
            take.take(state, plan, locked=True, tell=lambda line: None)
    assert counts(home) == {"items": 0, "sets": 0, "versions": 0}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: root / "nowhere", "no such folder"),
        (lambda root: old_home.write(root / "empty" / ".x", "").parent, "nothing of an older"),
        (lambda root: root / "home", "the home itself"),
    ],
)
def test_a_wrong_folder_is_one_line(make: Any, says: str, home: Home, tmp_path, trainctl) -> None:
    done = trainctl("import", make(tmp_path), "--yes", home=home)
    assert done.code == 1 and says in done.err and done.err.count("\n") == 1


def test_links_are_not_followed_out_of_the_folder(home: Home, tmp_path: Path, trainctl) -> None:
    secret = old_home.write(tmp_path / "secret" / "a.jsonl", old_home.rows(1)).parent
    old_home.small_weights(secret / "checkpoint-5", 5)
    root = tmp_path / "old"
    for link in ("inbox", "models", "data/validation", "queue/high"):
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(secret)
    old_home.write(root / "queue" / "low" / "b.jsonl", old_home.rows(2))
    old_home.write(root / "config.json", {"current_model_dir": "../secret/checkpoint-5"})
    told = json.loads(trainctl("import", root, "--yes", "--json", home=home).out)
    assert [one["name"] for one in told["done"]] == ["queue/low/b.jsonl"]
    assert any("outside of this folder" in one["because"] for one in told["left_out"])
    named = {one["path"] for one in told["left_out"] if one["error"]}
    assert {"inbox", "models", "data/validation", "queue/high"} <= named


def test_shards_need_an_index_that_is_true(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    old_home.small_weights(folder, 1)
    first = folder / "model-00001-of-00002.safetensors"
    (folder / "model.safetensors").rename(first)
    index = {"weight_map": {"w": first.name}}
    old_home.write(folder / "model.safetensors.index.json", index)
    assert first.name in weights.source(tmp_path, folder).files
    index["weight_map"]["v"] = "model-00002-of-00002.safetensors"
    old_home.write(folder / "model.safetensors.index.json", index)
    with pytest.raises(weights.Unfit, match="names v"):
        weights.source(tmp_path, folder)


def test_config_writes_the_settings_and_keeps_the_file_of_before(
    tmp_path: Path, old: Path, trainctl
) -> None:
    assert trainctl("init", "h").code == 0
    home = Home(tmp_path / "h")
    before = home.config.read_text()
    told = json.loads(trainctl("import", old, "--yes", "--config", "--json", home=home).out)
    assert home.config.read_text() == before  # nobody decided the conflicts
    assert any("model.base" in one["because"] for one in told["left_out"])
    chosen = ("--set", "model.base=Qwen/Qwen3-4B", "--set", "training.max_length=384")
    words = ("import", old, "--yes", "--config", "--json")
    told = json.loads(trainctl(*words, *chosen, home=home).out)
    assert [one["kind"] for one in told["done"]] == ["settings"]
    assert configuration.load(home.config).training.max_length == 384
    assert home.config.with_name("config.toml.before-import").read_text() == before
    with open_state(home) as state:
        assert journal.events(state, kinds=["imported"])[-1].data["settings"]
        state.meta_set("locked", {"training.max_length": 384})
    other = ("--set", "model.base=Qwen/Qwen3-4B", "--set", "training.max_length=2048")
    told = json.loads(trainctl(*words, *other, home=home).out)
    assert any("is locked as 384" in one["because"] for one in told["left_out"])


def test_imported_weights_that_do_not_fit_are_refused_at_restore(
    home: Home, old: Path, trainctl
) -> None:
    home.config.write_text('[model]\nbase = "mine"\n')
    base = home.models / "mine"
    old_home.small_weights(base, 7)
    old_home.write_safetensors(base / "model.safetensors", {"w": ("F32", (2,), b"\0" * 8)})
    trainctl("import", old, "--yes", home=home)
    with open_state(home) as state:
        for name, says in (("v001", "model.method"), ("v002", "w is 32, in the base model 2")):
            with pytest.raises(Refused, match=says):
                rollback._usable(state, versions.get(state, name))


def test_a_damaged_import_is_found_by_verify(home: Home, old: Path, trainctl) -> None:
    from tests.store_world import flip

    trainctl("import", old, "--yes", home=home)
    flip(home.versions / "v002" / "model.safetensors")
    with open_state(home) as state, pytest.raises(VerificationFailed):
        versions.verify(state, "v002")
    assert intake.SIDECAR == lineage.SIDECAR
