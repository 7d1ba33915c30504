"""A disk that is full to the last byte: the database still commits, and nothing is lost."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.sessions.client import connect
from engine.sessions.dispatch import Dispatcher
from engine.sessions.server import Server
from queue_store import database, intake, journal, queue, reserve
from queue_store.database import open_state
from queue_store.errors import Refused
from queue_store.home import Home
from queue_store.inbox import Inbox
from queue_store.metrics import Metrics, StepMetric
from tests import engine_kit
from tests.engine_forks import audit
from tests.small_disk import fill, free, small_disk
from tests.store_world import LINE, World
from tests.waiting import wait_until
from trainctl import ends


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 96) as place:
        yield place


def test_the_reserve_is_really_allocated_private_and_made_once(world_home: Home) -> None:
    assert reserve.keep(world_home)
    info = world_home.reserve.stat()
    assert info.st_size == reserve.LEAST <= info.st_blocks * 512
    assert info.st_mode & 0o777 == 0o600
    assert not reserve.keep(world_home)
    assert not list(world_home.tmp.iterdir())


@pytest.fixture
def world_home(tmp_path: Path) -> Home:
    World(tmp_path / "home").close()
    return Home(tmp_path / "home")


def test_its_size_follows_the_databases_within_limits(world_home: Home) -> None:
    assert reserve.wanted(world_home) == reserve.LEAST
    with (world_home.store / "metrics.db").open("wb") as file:
        file.truncate(100 << 20)
    assert reserve.wanted(world_home) > 100 << 20
    with (world_home.store / "metrics.db").open("wb") as file:
        file.truncate(1000 << 20)
    assert reserve.wanted(world_home) == reserve.MOST


def test_no_reserve_is_made_where_it_would_take_the_last_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 30) as place:
        World(place / "home").close()
        assert not reserve.keep(Home(place / "home"))
        assert not (place / "home/store/reserve").exists()


def test_a_transaction_on_a_full_disk_drops_the_reserve_and_says_so(disk: Path) -> None:
    world = World(disk / "home")
    item = world.add()
    assert reserve.keep(world.home)
    fill(disk)
    assert free(disk) == 0
    queue.set_priority(world.state, item.id, item.priority.LOW)
    assert not world.home.reserve.exists()
    told = journal.events(world.state, kinds=["reserve.dropped"])
    assert len(told) == 1 and told[0].data["bytes"] >= reserve.LEAST
    with open_state(world.home) as other:
        assert queue.get(other, item.id).priority is item.priority.LOW
    assert not reserve.keep(world.home), "there is no room for a new one"
    (disk / "filler").unlink()
    assert reserve.keep(world.home)
    world.close()


def test_a_disk_that_fills_up_inside_a_transaction_does_not_lose_it(disk: Path) -> None:
    world = World(disk / "home")
    assert reserve.keep(world.home)
    with world.state.transaction():
        journal.record(world.state, "note", "x" * 200_000)
        fill(disk)
    assert not world.home.reserve.exists()
    with open_state(world.home) as other:
        assert journal.events(other, kinds=["note"]) and journal.events(
            other, kinds=["reserve.dropped"]
        )
    world.close()


def test_a_commit_that_still_meets_it_is_undone_and_the_next_one_works(
    disk: Path, monkeypatch
) -> None:
    world = World(disk / "home")
    assert reserve.keep(world.home)
    monkeypatch.setattr(reserve, "LOW", 0)  # the looks at the disk find nothing
    with pytest.raises(OSError, match="No space left"), world.state.transaction():
        journal.record(world.state, "note", "x" * 200_000)
        fill(disk)
    assert not world.state.db.in_transaction
    with world.state.transaction():
        journal.record(world.state, "note", "x" * 200_000)
    assert len(journal.events(world.state, kinds=["note"])) == 1
    assert journal.events(world.state, kinds=["reserve.dropped"])
    world.close()


def test_without_a_reserve_the_full_disk_is_one_error_and_nothing_changes(disk: Path) -> None:
    world = World(disk / "home")
    before = journal.last_seq(world.state)
    fill(disk)
    with pytest.raises(OSError, match="No space left"), world.state.transaction():
        journal.record(world.state, "note", "x" * 200_000)
    assert not world.state.db.in_transaction and journal.last_seq(world.state) == before
    (disk / "filler").unlink()
    with world.state.transaction():
        journal.record(world.state, "note", "again")
    world.close()


def test_steps_that_cannot_be_written_stay_pending(disk: Path) -> None:
    world = World(disk / "home")
    metrics = Metrics(world.home)
    for n in range(3000):
        metrics.add_step(1, StepMetric(1, n, 1, n, n + 1, 1.0, 1e-4, 1.0, 9, 0.1, 1))
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        metrics.flush()
    assert metrics.pending == 3000
    (disk / "filler").unlink()
    metrics.flush()
    assert metrics.db.execute("SELECT COUNT(*) FROM steps").fetchone()[0] == 3000
    metrics.close()
    world.close()


def test_a_file_for_which_there_is_no_room_stays_where_it_is(
    disk: Path, tmp_path: Path, trainctl
) -> None:
    world = World(disk / "home")
    world.home.config.write_text("")
    reserve.keep(world.home)
    big = tmp_path / "big.jsonl"
    big.write_text(LINE * 300_000)
    fill(disk)
    with pytest.raises(Refused, match=r"no room on the disk for big\.jsonl"):
        intake.add_file(world.state, big)
    assert big.exists() and not queue.items(world.state)
    done = trainctl("add", str(big), home=world.home)
    assert done.code == 1 and len(done.err.splitlines()) == 1 and "no room" in done.err, done
    assert not list(world.home.items.iterdir()) and not list(world.home.tmp.iterdir())
    world.close()


def test_a_file_in_the_inbox_of_a_full_disk_is_taken_with_the_reserve(disk: Path) -> None:
    world = World(disk / "home")
    reserve.keep(world.home)
    dropped = world.home.inbox / "small.jsonl"
    dropped.write_text(LINE)
    fill(disk)
    inbox = Inbox(world.home, lambda: open_state(world.home), 0.0)

    def taken() -> bool:
        inbox.scan()
        return bool(queue.items(world.state))

    wait_until(taken, timeout=20, what="the file of the inbox")
    inbox.close()
    assert [i.name for i in queue.items(world.state)] == ["small.jsonl"]
    assert not dropped.exists()
    world.close()


def test_an_error_of_the_disk_is_an_error_of_the_disk() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    broken = sqlite3.OperationalError("disk I/O error")
    broken.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    other = sqlite3.OperationalError("no such table")
    other.sqlite_errorcode = sqlite3.SQLITE_ERROR
    assert database.disk_error(full, Path("a")).errno == 28
    assert database.disk_error(broken, Path("a")).errno == 5
    assert database.disk_error(other, Path("a")) is other


def test_training_survives_a_disk_without_a_byte_bit_for_bit(tmp_path: Path, trainctl) -> None:
    """Filled to 0 while it trains: the item waits, reads are served, commands still commit; after
    freeing it goes on as if nothing had been."""
    calm = engine_kit.make_home(tmp_path / "calm", training={"save_steps": 3})
    engine_kit.add(calm, "a.jsonl", rows=40)
    engine_kit.add(calm, "b.jsonl", rows=8)
    expected = engine_kit.train_all(calm)
    with small_disk(tmp_path / "disk", 480) as disk:
        home = engine_kit.make_home(
            disk / "home", training={"save_steps": 3}, snapshots={"keep_checkpoints": 1}
        )
        first = engine_kit.add(home, "a.jsonl", rows=40)
        second = engine_kit.add(home, "b.jsonl", rows=8)
        with engine_kit.Running(home) as running:
            dispatcher = Dispatcher(running.engine)
            server = Server(home, dispatcher)
            server.start()
            running.pause_at(4)  # the nine steps take less time than filling a disk
            # Written beside training, it would take what the reserve gives back.
            wait_until(lambda: engine_kit.head(home).step == 3, what="the save of step 3")
            wait_until(home.reserve.exists, timeout=60, what="the reserve")
            filler = fill(disk)
            running.ask("resume")
            wait_until(lambda: "free some" in running.status["hint"], timeout=60, what="the pause")
            assert engine_kit.states(home)["a.jsonl"] not in ("failed", "queued")
            session = connect(home)
            status = session.request("snapshot")
            assert status["state"] == "paused" and "resume" in status["hint"], status["hint"]
            assert len(session.request("queue")) == 2
            assert session.request("events", limit=5)["events"]
            if home.reserve.exists():  # a checkpoint removed by rule had left some room
                fill(disk)
            session.request("pause")
            session.request("priority", item=second.id, priority="low")
            assert session.request("skip", item=second.id, reason="full")
            session.request("retry", item=second.id)
            kinds = {e["kind"] for e in session.request("events", limit=5000)["events"]}
            assert {"reserve.dropped", "paused"} <= kinds
            # Whoever fills it goes on: now not even the reserve is left.
            fill(disk)
            with pytest.raises(Refused, match="No space left"):
                for n in range(3000):  # as long as the log of the database has room of its own
                    session.request("priority", item=second.id, priority=("low", "high")[n % 2])
            assert session.request("snapshot")["state"] == "paused"
            assert session.request("events", limit=5)["events"]
            done = trainctl("status", "--json", home=home)
            assert done.code == 0 and json.loads(done.out)["state"] == "paused"
            filler.unlink()
            running.ask("resume")
            running.wait_trained()
            session.close()
            server.stop()
            dispatcher.close()
        assert engine_kit.states(home) == {"a.jsonl": "done", "b.jsonl": "done"}
        assert engine_kit.head(home).weights_digest == expected
        engine_kit.assert_each_row_once(home, first.id)
        assert not audit(home)


def test_it_ends_with_nothing_to_do_where_not_a_byte_can_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 96) as disk:
        home = engine_kit.make_home(disk / "home")
        with engine_kit.Running(home) as running:
            running.wait_trained()
            wait_until(home.reserve.exists, what="the reserve")
            filler = fill(disk)
            fill_whole(disk, home)
            running.engine.request_stop()
            assert running.engine.join(120), running.status["hint"]
            assert "ended on a full disk" in str(running.engine.error)
            assert running.engine.exit_code in ends.FINAL, "no supervisor starts it again"
            filler.unlink()
        assert not audit(home)


@pytest.mark.parametrize("by", ["the command", "the file"])
def test_it_stops_where_not_a_byte_can_be_written_and_goes_on_exactly(
    tmp_path: Path, by: str
) -> None:
    expected = train_on(tmp_path / "calm")
    with small_disk(tmp_path / "disk", 480) as disk:
        home = engine_kit.make_home(disk / "home", training={"save_steps": 3})
        item = engine_kit.add(home, "a.jsonl", rows=40)
        with engine_kit.Running(home) as running:
            running.pause_at(4)
            wait_until(lambda: engine_kit.head(home).step == 3, what="the save beside training")
            wait_until(home.reserve.exists, what="the reserve")
            filler = fill(disk)
            fill_whole(disk, home)
            if by == "the file":
                home.stop_file.touch()  # takes no room
            else:
                running.engine.request_stop()
            assert running.engine.join(120), running.status["hint"]
            assert "ended on a full disk" in str(running.engine.error)
            assert running.engine.exit_code in ends.FINAL, "no supervisor starts it again"
            filler.unlink()
        engine_kit.train_all(home)
        assert engine_kit.head(home).weights_digest == expected
        engine_kit.assert_each_row_once(home, item.id)
        assert not audit(home)


def fill_whole(disk: Path, home: Home) -> None:
    """Take the reserve's room, too, and what the log of the database has of its own."""
    home.reserve.unlink()
    fill(disk)
    with open_state(home) as state, pytest.raises(OSError, match="No space left"):
        for n in range(3000):
            with state.transaction():
                state.meta_set("filler", n)


def train_on(root: Path) -> str:
    """The weights' digest where there is room."""
    home = engine_kit.make_home(root, training={"save_steps": 3})
    engine_kit.add(home, "a.jsonl", rows=40)
    return engine_kit.train_all(home)
