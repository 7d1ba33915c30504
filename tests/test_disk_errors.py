"""A disk that fails: the process ends with 74 and leaves nothing half; held, it only reads."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from engine.loop.thread import Engine
from engine.sessions.dispatch import Dispatcher
from engine.sessions.session import LocalSession
from queue_store import config as configuration
from queue_store import durable, records
from queue_store.database import open_state
from queue_store.errors import EXIT_IO, Refused
from queue_store.lock import EngineLock
from snapshots import rebuild
from tests import engine_kit
from tests.engine_forks import audit
from tests.waiting import wait_until


def test_an_error_of_the_disk_in_a_save_ends_the_process_with_74(
    tmp_path: Path, monkeypatch
) -> None:
    home = engine_kit.make_home(tmp_path / "home", training={"save_steps": 2})
    engine_kit.add(home, "a.jsonl")
    real = durable.fsync_file

    def broken(path: Path) -> None:
        if "checkpoint" in str(path):
            raise OSError(errno.EIO, "Input/output error", str(path))
        real(path)

    running = engine_kit.Running(home)
    with monkeypatch.context() as disk:
        disk.setattr(durable, "fsync_file", broken)
        running.engine.start()
        assert running.engine.join(120)
    running.lock.release()
    assert running.engine.exit_code == EXIT_IO, running.engine.error
    assert not list(home.checkpoints.iterdir())
    assert not [p for p in home.tmp.iterdir() if p.name.startswith("checkpoint")]
    engine_kit.train_all(home)
    assert engine_kit.states(home) == {"a.jsonl": "done"} and not audit(home)


def test_held_it_serves_reads_refuses_the_rest_and_writes_nothing(tmp_path: Path) -> None:
    home = engine_kit.make_home(tmp_path / "home")
    item = engine_kit.add(home, "a.jsonl")
    engine_kit.train_all(home)

    def files() -> dict[str, tuple[int, int]]:
        return {
            p.name: (p.stat().st_size, p.stat().st_mtime_ns)
            for p in home.store.rglob("*")
            if p.is_file()
        }

    with EngineLock.acquire(home, "test"):
        before = files()
        engine = Engine(home, configuration.load(home.config), hold="I/O errors on the disk")
        engine.start()
        dispatcher = Dispatcher(engine)
        session = LocalSession(dispatcher)
        wait_until(lambda: session.request("snapshot")["state"] == "failed", timeout=20)
        assert "I/O errors" in session.request("snapshot")["hint"]
        assert session.request("queue")[0]["state"] == "done"
        assert session.request("events")["events"] and session.request("checkpoints")
        assert session.request("series", metric="loss")["branch"]
        assert session.request("item", item=item.id)["id"] == item.id
        for command, arguments in (
            ("resume", {}),
            ("priority", {"item": item.id, "priority": "low"}),
            ("save", {}),
        ):
            with pytest.raises(Refused, match="held"):
                session.request(command, **arguments)
        assert files() == before
        session.request("stop")
        assert engine.join(120)
        dispatcher.close()


def test_after_a_rebuild_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    calm = engine_kit.make_home(tmp_path / "calm")
    home = engine_kit.make_home(tmp_path / "home")
    for one in (calm, home):
        engine_kit.add(one, "a.jsonl", rows=24)
        engine_kit.add(one, "b.jsonl", rows=24, seed=2)
    expected = engine_kit.train_all(calm)
    last = engine_kit.head(calm).step - 2  # within the second item
    with engine_kit.Running(home) as running:
        running.pause_at(last)
    with open_state(home) as state:
        head = records.head(state)
        assert head is not None and head.checkpoint.step == last
        before = head.checkpoint
    for path in home.store.glob("state.db*"):
        path.unlink()
    # What was frozen with the unfinished item counts, not what the settings say now.
    text = home.config.read_text().replace("learning_rate = 0.001", "learning_rate = 0.002")
    assert text != home.config.read_text()
    home.config.write_text(text)
    rebuild.rebuild(home, rebuild.plan(home, "manifests"))
    with open_state(home) as state:
        head = records.head(state)
        assert head is not None
        assert (head.checkpoint.id, head.checkpoint.progress) == (before.id, before.progress)
    assert not audit(home)
    assert engine_kit.train_all(home) == expected
    assert engine_kit.states(home) == {"a.jsonl": "done", "b.jsonl": "done"}
    assert not audit(home)
