"""A database that is gone is made anew, of its copy or of the store alone, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from queue_store import dbbackup, durable, journal, queue, records, transitions
from queue_store.database import open_state
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.metrics import Metrics, StepMetric
from snapshots import labels, rebuild, rollback, upkeep, versions
from tests.engine_forks import audit
from tests.store_world import ROOT, ROWS, World


class Story(World):
    """A World that keeps the steps in metrics.db, as an engine does."""

    def train(self, item, cursor=ROWS, val_loss=None, **others):
        at = queue.get(self.state, item.id).cursor
        metrics = Metrics(self.home)
        for n in range(at, cursor):
            step = self.step + n - at + 1
            metrics.add_step(
                self.run,
                StepMetric(self.branch, step, item.id, n, n + 1, 1.0, 1e-4, 1.0, 9, 0.1, 1),
            )
        metrics.close()
        return super().train(item, cursor, val_loss)

    def save(self, item=None, cursors=None, val_loss=None):
        """As the engine does: the cursors of all unfinished items, and of no finished one."""
        every = {i.id: (i.cursor, i.step) for i in queue.items(self.state) if i.cursor}
        every |= cursors or {}
        whole = {i.id for i in queue.items(self.state) if i.state in ("done", "trained")}
        return super().save(item, {k: v for k, v in every.items() if k not in whole}, val_loss)

    def restart(self) -> None:
        """A new run from the head, as after a restart or a rollback."""
        head = records.head(self.state)
        assert head is not None
        self.branch, self.step = head.branch, head.checkpoint.step
        self.run = records.start_run(self.state).id


def picture(home: Home) -> dict[str, object]:
    """What a rebuild must bring back."""
    with open_state(home) as state:
        head = records.head(state)
        assert head is not None
        return {
            "head": (head.checkpoint.id, head.checkpoint.name, head.checkpoint.step),
            "branch": head.branch,
            "progress": head.checkpoint.progress.dumps(),
            "line": records.line(state, live=False),
            "done": sorted(i.id for i in queue.items(state) if i.state == "done"),
            "cursors": {
                i.id: (i.cursor, i.step) for i in queue.items(state) if i.state == "paused"
            },
            "names": {i.id: (i.name, i.digest, i.file) for i in queue.items(state)},
            "frozen": {
                i.id: (i.prepared, i.settings, i.rows, i.epochs)
                for i in queue.items(state)
                if i.state == "paused"
            },
            "checkpoints": [(c.id, c.name, c.step, c.branch) for c in records.checkpoints(state)],
            "versions": [
                (v.name, v.checkpoint, v.step, v.branch, v.description, v.manifest_digest)
                for v in versions.versions(state)
            ],
        }


def history(root: Path, *, back: bool = True, prune: bool = True) -> Story:
    """Items done and half done, versions, restarts, checkpoints pruned, and a rollback."""
    world = Story(root)
    for n in range(2):
        world.train(world.add(f"done{n}.jsonl"))
    versions.create(world.state, description="first")
    world.restart()
    half = world.add("half.jsonl")
    world.train(half, 3)
    transitions.suspend(world.state, half.id, "preempted", "makes way")
    world.train(world.add("done2.jsonl"))
    versions.create(world.state, description="weights", scope=versions.WEIGHTS)
    if back:
        rollback.apply(world.state, rollback.plan(world.state, "v001"))
        world.restart()
        world.train(world.add("after.jsonl"), 4)
        world.train(queue.get(world.state, 5), 7)
        transitions.suspend(world.state, 5, "stopped", "stopped")
    world.add("waits.jsonl")
    if prune:
        upkeep.prune_checkpoints(world.state, keep=1)
    world.close()
    return world


def lose(home: Home) -> None:
    for path in home.store.glob("state.db*"):
        path.unlink()


def test_the_story_itself_is_sound(tmp_path: Path) -> None:
    assert not audit(history(tmp_path / "home").home)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("prune", [False, True])
def test_the_manifests_alone_bring_everything_back(tmp_path: Path, back: bool, prune: bool) -> None:
    home = history(tmp_path / "home", back=back, prune=prune).home
    before = picture(home)
    lose(home)
    made = rebuild.plan(home)
    assert made.copy is None and made.problem == "it is gone"
    told = rebuild.rebuild(home, made)
    after = picture(home)
    skipped = {4} if back else set()
    assert after == before, told
    assert not audit(home)
    with open_state(home) as state:
        assert state.meta_get("paused") is True
        event = journal.events(state, kinds=["rebuilt"])[0]
        assert event.data["unknown"]
        states = {i.id: str(i.state) for i in queue.items(state)}
        # What was skipped is one of the unknown things: its file waits in the queue.
        assert {i for i in states if states[i] == "queued"} >= skipped
        # No number is given twice.
        assert records.next_checkpoint_id(state) > max(c[0] for c in before["checkpoints"])
        assert versions.create(state).name not in [v[0] for v in before["versions"]]
    with open_state(home) as state:
        assert records.start_run(state).id > max(run for run, _ in before["line"])


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_copy_is_brought_forward_with_what_is_newer(tmp_path: Path, when: str) -> None:
    world = Story(tmp_path / "home")
    world.train(world.add("a.jsonl"))
    versions.create(world.state, description="one")
    labels.pin(world.state, "v001")
    half = world.add("b.jsonl")
    if when == "early":
        dbbackup.copy(world.home, world.home.state_db)
    world.train(half, 4)
    world.restart()
    world.train(world.add("c.jsonl"))
    versions.create(world.state, description="two")
    transitions.suspend(world.state, half.id, "stopped", "stopped")
    upkeep.prune_checkpoints(world.state, keep=1)
    if when == "late":
        dbbackup.copy(world.home, world.home.state_db)
    world.close()
    home = world.home
    before = picture(home)
    home.state_db.write_bytes(b"noise" * 2000)
    for path in home.store.glob("state.db-*"):
        path.unlink()
    made = rebuild.plan(home)
    assert made.copy is not None
    rebuild.rebuild(home, made)
    assert picture(home) == before
    assert not audit(home)
    with open_state(home) as state:
        assert versions.get(state, "v001").pinned
    (apart,) = (p for p in home.quarantine.iterdir() if p.name.startswith("state.db-"))
    assert (apart / "state.db").read_bytes() == b"noise" * 2000


def test_a_damaged_newest_copy_is_passed_over_and_told(tmp_path: Path) -> None:
    world = Story(tmp_path / "home")
    world.train(world.add())
    good = dbbackup.copy(world.home, world.home.state_db)
    world.train(world.add("b.jsonl"))
    bad = dbbackup.copy(world.home, world.home.state_db)
    bad.path.write_bytes(bad.path.read_bytes()[:9000])
    world.close()
    before = picture(world.home)
    lose(world.home)
    made = rebuild.plan(world.home)
    assert made.copy == good.path.name and bad.path.name in made.damaged[0]
    rebuild.rebuild(world.home, made)
    assert picture(world.home) == before and not audit(world.home)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path) -> None:
    world = Story(tmp_path / "home")
    first = world.train(world.add())
    last = world.train(world.add("b.jsonl"))
    world.close()
    weights = world.home.checkpoints / last.name / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    lose(world.home)
    rebuild.rebuild(world.home, rebuild.plan(world.home))
    with open_state(world.home) as state:
        head = records.head(state)
        assert head is not None and head.checkpoint.id == first.id
        states = {i.id: str(i.state) for i in queue.items(state)}
    assert states == {1: "done", 2: "queued"}
    assert not audit(world.home)


def test_a_sound_database_is_left_alone(tmp_path: Path) -> None:
    home = history(tmp_path / "home").home
    before = home.state_db.read_bytes()
    with pytest.raises(Refused, match="sound"):
        rebuild.plan(home)
    assert home.state_db.read_bytes() == before


@pytest.mark.parametrize(
    "point",
    ["rebuild.made", "rebuild.moved", "rebuild.apart", "take.renamed:4", "rebuild.placed"],
)
def test_a_kill_in_a_rebuild_is_mended_by_the_next_one(tmp_path: Path, point: str) -> None:
    home = history(tmp_path / "home").home
    before = picture(home)
    home.state_db.write_bytes(b"noise" * 2000)
    code = (
        "import sys; from pathlib import Path; from snapshots import rebuild;"
        "from queue_store.home import Home; home = Home(Path(sys.argv[1]));"
        "rebuild.rebuild(home, rebuild.plan(home))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home.root)],
        env={**os.environ, "TRAINCTL_CRASH_AT": point},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in (-signal.SIGKILL, 0)
    if rebuild.problem(home):
        rebuild.rebuild(home, rebuild.plan(home))
    upkeep.sweep_tmp(home)  # as an engine does first
    assert picture(home) == before and not audit(home)


def test_files_and_ledgers_of_before_still_count(tmp_path: Path) -> None:
    """Names without a number, and ledgers that do not say what is finished."""
    home = history(tmp_path / "home", back=False, prune=False).home
    before = picture(home)
    for path in sorted(home.items.iterdir()):
        stamp, rest = path.name.split("-", 1)
        number, name = rest.split("-", 1)
        path.rename(path.with_name(f"{stamp}-{number.split('.')[0]}-{name}"))
    from snapshots import manifest
    from snapshots.checkpoints import LEDGER

    for folder in home.checkpoints.iterdir():
        old = json.loads((folder / LEDGER).read_text())
        for key in ("finished", "frozen", "line"):
            del old[key]
        old["ledger_version"] = 2
        (folder / LEDGER).chmod(0o600)
        (folder / LEDGER).write_text(json.dumps(old))
        sealed = manifest.read_manifest(folder)
        (folder / manifest.MANIFEST).chmod(0o600)
        anew = manifest.build(
            folder, kind="checkpoint", id=sealed.id, made_by="test", created=sealed.created
        )
        (folder / manifest.MANIFEST).write_bytes(anew.to_json())
    lose(home)
    rebuild.rebuild(home, rebuild.plan(home))
    after = picture(home)
    for key in ("head", "progress", "line", "done", "cursors"):
        assert after[key] == before[key], key
    assert {i: n[:2] for i, n in after["names"].items()} == {
        i: n[:2] for i, n in before["names"].items()
    }


def test_commits_that_went_with_the_write_ahead_log_are_finished_again(tmp_path: Path) -> None:
    world = Story(tmp_path / "home")
    first = world.add("a.jsonl")
    world.train(first, 3)
    old = dbbackup.copy(world.home, world.home.state_db)
    for n in range(2):
        world.train(queue.get(world.state, 1), 5 + 2 * n)
    world.train(queue.get(world.state, 1), ROWS)
    last = world.train(world.add("b.jsonl"))
    world.close()
    lose(world.home)
    durable.copy_file(old.path, world.home.state_db)
    from engine.loop import recovery

    metrics = Metrics(world.home)
    with open_state(world.home) as state:
        recovery.recover(state, metrics)
        head = records.head(state)
        assert head is not None and head.checkpoint.name == last.name
    metrics.close()
    assert not audit(world.home)


def test_the_verb_says_what_it_would_do_and_does_it(tmp_path: Path, trainctl) -> None:
    home = history(tmp_path / "home").home
    home.config.write_text("")
    before = picture(home)
    lose(home)
    assert "trainctl rebuild" in trainctl("status", home=home).err
    refused = trainctl("rebuild", home=home)
    assert refused.code == 1 and "--yes" in refused.err
    dry = trainctl("rebuild", "--dry-run", "--json", home=home)
    assert dry.code == 0 and json.loads(dry.out)["head"] == before["head"][1]
    assert not home.state_db.exists()
    done = trainctl("rebuild", "--yes", "--json", home=home)
    assert done.code == 0 and json.loads(done.out)["done"], done
    assert picture(home) == before
    assert json.loads(trainctl("status", "--json", home=home).out)["paused"] is True
    with closing(sqlite3.connect(home.state_db)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
