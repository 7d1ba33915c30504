"""Copies of the databases: whole, checked, made while others write; and no database lost unseen."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from queue_store import daily_copy, database, dbbackup, durable, journal
from queue_store.database import open_metrics, open_state
from queue_store.errors import Refused, TrainctlError, VerificationFailed
from queue_store.home import Home
from queue_store.lost import Lost
from tests.store_world import ROOT, World


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path / "home")
    yield world
    world.close()


def rows(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_a_copy_is_one_private_file_with_every_row(world: World) -> None:
    world.train(world.add())
    made = dbbackup.copy(world.home, world.home.state_db)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert [p.name for p in world.home.backups.iterdir()] == [made.path.name]
    assert rows(made.path, "PRAGMA journal_mode") == [("delete",)]
    assert made.number == journal.last_seq(world.state)
    for table in ("items", "checkpoints", "events", "head"):
        sql = f"SELECT * FROM {table} ORDER BY 1"
        ours = [tuple(r) for r in world.state.db.execute(sql)]
        assert rows(made.path, sql) == ours, table
    assert not dbbackup.problems(made.path)
    assert not list(world.home.tmp.iterdir())


def test_writers_go_on_while_a_copy_is_made(world: World, monkeypatch) -> None:
    with world.state.transaction():
        for n in range(4000):
            journal.record(world.state, "note", f"{n} " + "x" * 400)
    monkeypatch.setattr(dbbackup, "PAGES", 8)
    before = journal.last_seq(world.state)
    wrote: list[int] = []
    done = threading.Event()

    def write() -> None:
        with open_state(world.home) as state:
            while not done.is_set():
                with state.transaction():
                    wrote.append(journal.record(state, "note", "meanwhile"))

    thread = threading.Thread(target=write)
    thread.start()
    made = dbbackup.copy(world.home, world.home.state_db)
    during = len(wrote)
    done.set()
    thread.join()
    assert during > 1, "no writer came through"
    newest = rows(made.path, "SELECT MAX(seq), COUNT(*) FROM events")[0]
    assert newest == (made.number, made.number) and made.number >= before


def test_a_damaged_database_gives_no_copy(world: World) -> None:
    with world.state.transaction():
        for n in range(500):
            journal.record(world.state, "note", "x" * 300, item=n)
    world.close()
    with closing(sqlite3.connect(world.home.state_db)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name='events_item'").fetchone()
        size = db.execute("PRAGMA page_size").fetchone()[0]
    with world.home.state_db.open("r+b") as file:
        file.seek((root[0] - 1) * size + 12)
        file.write(b"\xff" * 40)
    with pytest.raises((VerificationFailed, sqlite3.Error)):
        dbbackup.copy(world.home, world.home.state_db)
    assert not dbbackup.listing(world.home) and not list(world.home.tmp.iterdir())


def test_a_copy_that_does_not_fit_is_refused_before_anything(world: World, monkeypatch) -> None:
    monkeypatch.setattr(durable, "free_bytes", lambda path: 1000)
    with pytest.raises(Refused, match="no room for a copy"):
        dbbackup.copy(world.home, world.home.state_db)
    assert not dbbackup.listing(world.home)


def test_the_newest_copies_stay_and_the_end_of_others_is_journaled(world: World) -> None:
    for n in range(9):
        world.add(f"{n}.jsonl")
        daily_copy.back_up(world.state)
    kept = dbbackup.listing(world.home)
    assert len(kept) == 7
    assert len(dbbackup.listing(world.home, "metrics")) <= dbbackup.KEEP_METRICS
    told = [
        name for e in journal.events(world.state, kinds=["backup"]) for name in e.data["removed"]
    ]
    assert len([n for n in told if n.startswith("state")]) == 2
    assert not {c.path.name for c in kept} & set(told)
    numbers = [c.number for c in kept]
    assert numbers == sorted(numbers)


def test_it_is_due_daily_and_after_a_clock_that_ran_ahead(world: World, monkeypatch) -> None:
    assert daily_copy.due(world.state)
    daily_copy.back_up(world.state)
    assert not daily_copy.due(world.state)
    moment = database.now()
    for days, expected in ((0.9, False), (1.1, True), (-30, True)):
        monkeypatch.setattr(daily_copy, "now", lambda days=days: moment + days * 86400)
        assert daily_copy.due(world.state) is expected


def test_the_newest_sound_copy_is_found_past_damaged_ones(world: World) -> None:
    old = dbbackup.copy(world.home, world.home.state_db)
    world.add()
    new = dbbackup.copy(world.home, world.home.state_db)
    new.path.write_bytes(new.path.read_bytes()[:-5000])
    found, damaged = dbbackup.newest_good(world.home)
    assert found == old and [one for one, _ in damaged] == [new]


def test_a_migration_copies_first_and_not_without_room(tmp_path: Path, monkeypatch) -> None:
    world = World(tmp_path / "home")
    world.add()
    world.close()
    more = (*database.STATE_SCHEMA, "ALTER TABLE items ADD COLUMN test TEXT;")
    monkeypatch.setattr(database, "STATE_SCHEMA", more)
    with monkeypatch.context() as full:
        full.setattr(durable, "free_bytes", lambda path: 1000)
        with pytest.raises(Refused, match="no room for a copy"):
            open_state(world.home)
    assert rows(world.home.state_db, "PRAGMA user_version") == [(len(more) - 1,)]
    with open_state(world.home):
        pass
    (made,) = dbbackup.listing(world.home)
    assert made.kind == dbbackup.BEFORE_MIGRATION
    assert rows(made.path, "PRAGMA user_version") == [(len(more) - 1,)]
    assert rows(made.path, "SELECT COUNT(*) FROM items") == [(1,)]


def test_nothing_migrates_under_an_engine_of_another_program(tmp_path: Path, monkeypatch) -> None:
    world = World(tmp_path / "home")
    world.add()
    world.close()
    more = (*database.STATE_SCHEMA, "ALTER TABLE items ADD COLUMN test TEXT;")
    monkeypatch.setattr(database, "STATE_SCHEMA", more)
    code = (
        "import sys; from pathlib import Path; from queue_store.home import Home;"
        "from queue_store.lock import EngineLock;"
        "lock = EngineLock.acquire(Home(Path(sys.argv[1])), 'daemon'); print('held', flush=True);"
        "sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(world.home.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=ROOT, text=True, **pipes) as other:  # type: ignore[call-overload]
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(Refused, match=f"older trainctl is running here .pid {other.pid}"):
                open_state(world.home)
        finally:
            other.stdin.close()
    assert rows(world.home.state_db, "PRAGMA user_version") == [(len(more) - 1,)]
    assert not dbbackup.listing(world.home)
    with open_state(world.home):  # once that engine has ended
        pass


@pytest.mark.parametrize(
    "point", ["backup.copied", "backup.checked", "take.renamed", "backup.named"]
)
def test_a_kill_in_a_copy_leaves_no_half_one(tmp_path: Path, point: str) -> None:
    root = tmp_path / "home"
    World(root).close()
    code = (
        "import sys; from pathlib import Path; from queue_store import dbbackup;"
        "from queue_store.home import Home; home = Home(Path(sys.argv[1]));"
        "dbbackup.copy(home, home.state_db)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        env={**os.environ, "TRAINCTL_CRASH_AT": point},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    for one in dbbackup.listing(Home(root)):
        assert not dbbackup.problems(one.path)
    assert len(dbbackup.listing(Home(root))) == (point in ("take.renamed", "backup.named"))


# -- a database that is gone ------------------------------------------------------------------


def spoil(home: Home, how: str) -> None:
    for path in home.store.glob("state.db-*"):
        path.unlink()
    if how == "missing":
        home.state_db.unlink()
    elif how == "empty":
        home.state_db.write_bytes(b"")
    elif how == "schemaless":
        home.state_db.unlink()
        with closing(sqlite3.connect(home.state_db)) as db:
            db.execute("PRAGMA journal_mode = WAL")
    elif how == "noise":
        home.state_db.write_bytes(b"no database at all " * 500)
    elif how == "cut":
        home.state_db.write_bytes(home.state_db.read_bytes()[:2048])


@pytest.mark.parametrize("how", ["missing", "empty", "schemaless", "noise", "cut"])
def test_a_lost_database_is_never_started_empty(world: World, how: str) -> None:
    world.train(world.add())
    world.close()
    with closing(sqlite3.connect(world.home.state_db)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(world.home, how)
    before = world.home.state_db.read_bytes() if world.home.state_db.exists() else None
    for _ in range(2):
        with pytest.raises(Lost, match=r"state\.db.*trainctl rebuild"):
            open_state(world.home)
    after = world.home.state_db.read_bytes() if world.home.state_db.exists() else None
    assert after == before


@pytest.mark.parametrize("how", ["missing", "empty", "schemaless"])
def test_a_kill_before_the_first_schema_is_no_lost_database(tmp_path: Path, how: str) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.state_db.touch()
    spoil(home, how)
    with open_state(home) as state:
        assert journal.last_seq(state) == 0


def test_commands_say_it_in_one_line(home: Home, trainctl) -> None:
    (home.checkpoints / "checkpoint-1-20260101-0000").mkdir()
    for words in (["status"], ["queue"], ["pause"]):
        done = trainctl(*words, home=home)
        if words == ["pause"]:
            assert done.code == 3
            continue
        assert done.code == 1 and "trainctl rebuild" in done.err, done
        assert len(done.err.splitlines()) == 1
    assert not home.state_db.exists()


def test_metrics_that_cannot_be_read_are_said_and_left(world: World) -> None:
    open_metrics(world.home).close()
    for path in world.home.store.glob("metrics.db-*"):
        path.unlink()
    world.home.metrics_db.write_bytes(b"noise" * 1000)
    with pytest.raises(TrainctlError, match=r"metrics\.db"):
        open_metrics(world.home)
