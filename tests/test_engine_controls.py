"""What a person can ask of a running engine, and what an item's failure does to the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.memory import refusing
from engine.ranks.held import Here
from queue_store import journal, queue, records
from queue_store.errors import ConfigError, NoEngine, Refused
from queue_store.home import Home
from queue_store.items import Priority
from snapshots import versions
from tests import engine_kit as kit
from tests.waiting import wait_until


def kinds(home: Home) -> list[str]:
    with kit.opened(home) as state:
        return [e.kind for e in journal.latest(state, 1000)]


def test_a_pause_survives_a_restart(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 40)
    with kit.Running(home) as running:
        running.pause_at(2)
    assert kit.head(home).step == 2, "the end of the engine saves"
    with kit.Running(home) as running:
        wait_until(lambda: running.status["state"] == "paused", timeout=60)
        assert running.status["global_step"] == 2
        resumed = running.ask("resume")
        assert resumed["step"] >= 2
        running.wait_trained()
    kit.assert_each_row_once(home, 1)


def test_drain_ends_after_the_item_and_is_refused_while_paused(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 30)
    kit.add(home, "b.jsonl", 30, 2)
    with kit.Running(home) as running:
        running.pause_at(1)
        with pytest.raises(Refused, match="paused"):
            running.ask("drain")
        running.ask("resume")
        assert running.ask("drain")["scheduled"] is True
        assert running.engine.join(60)
    assert kit.states(home) == {"a.jsonl": "done", "b.jsonl": "queued"}


def test_drain_of_an_idle_engine_ends_at_once(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    with kit.Running(home) as running:
        wait_until(lambda: running.status["state"] == "idle", timeout=60)
        running.ask("drain")
        assert running.engine.join(120)


def test_the_file_stop_works_as_stop_and_is_taken_away(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 400)
    with kit.Running(home) as running:
        running.wait_step(2)
        home.stop_file.touch()
        assert running.engine.join(60)
    assert not home.stop_file.exists()
    assert kit.states(home) == {"a.jsonl": "paused"}
    assert kit.head(home).step >= 2


def test_rollback_brings_back_weights_step_and_cursor_and_keeps_what_was(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    a, b = kit.add(home, "a.jsonl", 40, 1), kit.add(home, "b.jsonl", 40, 2)
    with kit.Running(home) as running:
        running.pause_at(3)
        made = running.ask("snapshot_version", description="three steps", pin=True)
        assert made["state"] == "verified" and made["step"] == 3 and made["pinned"]
        before = kit.head(home)
        running.ask("resume")
        running.wait_trained()
        after = kit.head(home)
        running.ask("pause")
        result = running.ask("rollback", version=made["name"])
        assert result["step"] == 3 == running.step
        stands = kit.head(home)
        assert stands.weights_digest == before.weights_digest
        assert stands.branch != after.branch and stands.kind == "restored"
        with kit.opened(home) as state:
            saved = versions.get(state, result["version"])
            assert saved.weights_digest == after.weights_digest
            # It is read back meanwhile; the rollback did not wait for that.
            wait_until(lambda: versions.get(state, saved.name).state == "verified", timeout=30)
            assert queue.get(state, a.id).cursor == before.cursor
            assert queue.get(state, b.id).reason == "rolled back"
        running.ask("resume")
        running.wait_trained()
    kit.assert_each_row_once(home, a.id)
    rows = kit.steps(home)
    assert [r["step"] for r in rows] == list(range(1, len(rows) + 1))
    assert {r["branch"] for r in rows} == {before.branch, stands.branch}


def test_a_stale_rollback_plan_is_refused(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 40)
    with kit.Running(home) as running:
        running.pause_at(2)
        made = running.ask("snapshot_version")
        with pytest.raises(Refused, match="stale"):
            running.ask("rollback", version=made["name"], plan="0" * 16)
        assert running.step == 2


def test_a_bad_file_fails_alone_and_the_model_is_not_touched(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path, data={"over_length": "refuse"})
    long = home.root / "long.jsonl"
    turns = [{"role": "user", "content": "x " * 500}, {"role": "assistant", "content": "y"}]
    long.write_text(json.dumps({"messages": turns}) + "\n")
    with kit.opened(home) as state:
        from queue_store import intake

        bad = intake.add_file(state, long, priority=Priority.HIGH)
    good = kit.add(home, "good.jsonl")
    with kit.Running(home) as running:
        running.wait_trained()
    with kit.opened(home) as state:
        failed = queue.get(state, bad.id)
        assert failed.state == "failed" and failed.reason == "data" and "line 1" in failed.error
        assert [a.cause for a in queue.attempts(state, bad.id)] == ["data"]
    kit.assert_each_row_once(home, good.id)


def test_a_loss_that_is_not_a_number_stops_the_item_at_the_last_good_state(
    tmp_path: Path,
) -> None:
    import torch

    home = kit.make_home(tmp_path, training={"save_steps": 3})
    a, b = kit.add(home, "a.jsonl", 60, 1), kit.add(home, "b.jsonl", 30, 2)
    with kit.Running(home) as running:
        running.pause_at(5)
        worker = running.engine.worker
        assert worker is not None and worker.live is not None
        with torch.no_grad():
            next(worker.live.loaded.model.parameters()).fill_(float("nan"))
        running.ask("resume")
        running.wait_trained()
    with kit.opened(home) as state:
        failed = queue.get(state, a.id)
        assert (failed.state, failed.reason) == ("failed", "not a number")
        for checkpoint in records.checkpoints(state):
            assert checkpoint.loss is None or checkpoint.loss == checkpoint.loss
    kit.assert_each_row_once(home, b.id)
    assert kit.steps(home)[-1]["loss"] is not None


def test_a_failing_step_goes_back_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.trainer import StepTrainer

    home = kit.make_home(tmp_path / "faulty")
    calls = []
    original = StepTrainer.training_step

    def failing(self: StepTrainer, *arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 12:
            raise MemoryError("out of memory, made up")
        return original(self, *arguments, **named)

    monkeypatch.setattr(StepTrainer, "training_step", failing)
    kit.add(home, "a.jsonl", 60)
    with kit.Running(home) as running:
        running.wait_trained()
    with kit.opened(home) as state:
        causes = [t.cause for t in queue.attempts(state, 1)]
    assert causes == ["out of memory", "trained"]
    kit.assert_each_row_once(home, 1)
    calls.extend([1] * 100)
    clean = kit.make_home(tmp_path / "clean")
    kit.add(clean, "a.jsonl", 60)
    assert kit.head(home).weights_digest == kit.train_all(clean)


def test_park_saves_frees_the_model_and_goes_on(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path / "parked")
    kit.add(home, "a.jsonl", 240)
    with kit.Running(home) as running:
        running.wait_step(2)
        running.ask("pause", park=True)
        worker = running.engine.worker
        assert worker is not None
        wait_until(lambda: worker.live is None, timeout=30)
        assert running.status["state"] == "paused"
        running.ask("resume")
        running.wait_trained()
    clean = kit.make_home(tmp_path / "clean")
    kit.add(clean, "a.jsonl", 240)
    assert kit.head(home).weights_digest == kit.train_all(clean)


def test_a_file_dropped_in_the_inbox_trains_by_its_folder_s_priority(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    with kit.Running(home) as running:
        wait_until(lambda: running.status["state"] == "idle", timeout=60)
        kit.write_rows(home.inbox / "low" / "later.jsonl", 10, 1)
        kit.write_rows(home.inbox / "now.jsonl", 10, 2)
        wait_until(lambda: len(kit.states(home)) == 2, timeout=60)
        running.wait_trained()
    assert kit.states(home) == {"later.jsonl": "done", "now.jsonl": "done"}
    assert not list(home.inbox.rglob("*.jsonl"))


def test_an_edit_of_the_configuration_reaches_the_next_item_only(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 40, 1)
    kit.add(home, "b.jsonl", 40, 2)
    with kit.Running(home) as running:
        running.pause_at(2)
        text = home.config.read_text()
        home.config.write_text(text.replace("learning_rate = 0.001", "learning_rate = 0.0005"))
        running.ask("resume")
        running.wait_trained()
    rates = {item: {r["learning_rate"] for r in kit.steps(home, item)} for item in (1, 2)}
    assert max(rates[2]) == 0.0005 and max(rates[1]) != 0.0005


def checkpoints(running: kit.Running) -> bool:
    """Whether the model that trains computes its activations twice."""
    worker = running.engine.worker
    assert worker is not None and isinstance(worker.live, Here)
    return bool(worker.live.loaded.model.is_gradient_checkpointing)


def test_an_edit_of_how_the_model_is_held_reaches_the_next_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"gradient_checkpointing": False}
    plain, home = (kit.make_home(tmp_path / name, training=held) for name in ("plain", "home"))
    for one in (plain, home):
        kit.add(one, "a.jsonl", 20, 1)
        kit.add(one, "b.jsonl", 20, 2)
    with kit.Running(home) as running:
        running.pause_at(2)
        text = home.config.read_text()
        home.config.write_text(text.replace("checkpointing = false", "checkpointing = true"))
        running.pause_at(4)
        assert kit.states(home)["b.jsonl"] == "queued" and not checkpoints(running)
        running.ask("resume")
        running.wait_trained()
        assert checkpoints(running)
        assert kit.head(home).weights_digest == kit.train_all(plain)

        # What does not fit is told, and the settings and the model stay as they are.
        def full(*_: object) -> None:
            raise ConfigError("training needs about 30 GB")

        monkeypatch.setattr(refusing, "check", full)
        home.config.write_text(text)
        kit.add(home, "c.jsonl", 20, 3)
        running.engine.wake()
        wait_until(lambda: kit.states(home)["c.jsonl"] == "done", timeout=60)
        assert checkpoints(running) and kinds(home).count("warning") == 1
        assert running.engine.worker is not None
        assert running.engine.worker.config.training.gradient_checkpointing


def test_a_broken_configuration_is_told_once_and_changes_nothing(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    for n in range(3):
        kit.add(home, f"{n}.jsonl", 10, n)
    with kit.Running(home) as running:
        running.pause_at(1)
        good = home.config.read_text()
        home.config.write_text("[training\n")
        running.ask("resume")
        running.wait_trained()
        home.config.write_text(good)
    assert kinds(home).count("warning") == 1
    assert set(kit.states(home).values()) == {"done"}


def test_a_locked_key_cannot_change_once_a_step_was_trained(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 10)
    kit.train_all(home)
    home.config.write_text(home.config.read_text().replace("max_length = 128", "max_length = 64"))
    with kit.Running(home) as running:
        assert running.engine.join(60)
    assert isinstance(running.engine.error, ConfigError)
    assert "training.max_length" in str(running.engine.error)


def test_after_the_end_requests_are_refused_and_the_status_says_stopped(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    with kit.Running(home) as running:
        wait_until(lambda: running.status["state"] == "idle", timeout=60)
    assert running.status["state"] == "stopped"
    with pytest.raises(NoEngine):
        running.ask("pause")
    assert "engine.stopped" in kinds(home)


def test_an_item_that_waits_can_be_skipped_by_its_id(tmp_path: Path) -> None:
    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 30, 1)
    b = kit.add(home, "b.jsonl", 30, 2)
    with kit.Running(home) as running:
        running.pause_at(2)
        assert running.ask("skip", item=b.id, reason="not this one")["item"] == b.id
        with pytest.raises(Refused, match="nothing to skip"):
            running.ask("skip", item=b.id)
        assert running.status["item"]["id"] == 1
        running.ask("resume")
        running.wait_trained()
    assert kit.states(home) == {"a.jsonl": "done", "b.jsonl": "skipped"}


def test_a_save_that_would_fill_the_disk_pauses_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from queue_store import durable

    home = kit.make_home(tmp_path)
    kit.add(home, "a.jsonl", 90)
    with kit.Running(home) as running:
        running.pause_at(6)
        free = durable.free_bytes
        monkeypatch.setattr(durable, "free_bytes", lambda _: kit.head(home).size_bytes)
        running.ask("resume")
        wait_until(lambda: running.status["paused"], timeout=60)
        assert "GB are free" in running.status["hint"]
        assert kit.head(home).step == 5
        monkeypatch.setattr(durable, "free_bytes", free)
        running.ask("resume")
        running.wait_trained()
        assert "GB" not in running.status["hint"]
    kit.assert_each_row_once(home, 1)
    assert "checkpoint.failed" in kinds(home)
