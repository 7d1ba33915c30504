"""A home that is mounted read-only is read as it stands, or the cause is said: true figures or
none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from queue_store import database, intake, queue
from queue_store.errors import TrainctlError
from queue_store.home import Home
from queue_store.items import Priority
from tests.small_disk import read_only_mount
from trainctl.__main__ import main

GOOD = '{"messages":[{"role":"user","content":"2+2?"},{"role":"assistant","content":"4"}]}\n'


@pytest.fixture
def add(home: Home, tmp_path: Path) -> Callable[[database.State, str], None]:
    def to(state: database.State, name: str) -> None:
        path = tmp_path / name
        path.write_text(GOOD)
        intake.add_file(state, path, priority=Priority.NORMAL)

    return to


def names(root: Path) -> list[str]:
    with database.open_state(Home(root)) as state:
        return [item.name for item in queue.items(state)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status"], "stopped"),
        (["queue"], "a.jsonl"),
        (["show", "1"], "a.jsonl"),
        (["log"], "a.jsonl queued"),
        (["versions"], "no version yet"),
        (["verify"], "no version to verify"),
        (["history"], "no step was trained yet"),
        (["samples"], "no held-out examples|no samples yet"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_command_that_looks_reads_it(home, add, tmp_path, capsys, words, says) -> None:
    with database.open_state(home) as state:
        add(state, "a.jsonl")
    with read_only_mount(home.root, tmp_path / "seen") as seen:
        assert main(["--home", str(seen), *words]) == 0
    told = capsys.readouterr()
    assert any(part in told.out for part in says.split("|")) and told.err == ""


def test_two_models_are_compared_there(home, add, tmp_path, capsys) -> None:
    with database.open_state(home) as state:
        add(state, "a.jsonl")
    with read_only_mount(home.root, tmp_path / "seen") as seen:
        assert main(["--home", str(seen), "compare", "v001", "v002"]) == 1
    assert "no model v001" in capsys.readouterr().err


def test_what_an_engine_beside_it_has_only_in_its_log_is_seen(home, add, tmp_path) -> None:
    with (
        read_only_mount(home.root, tmp_path / "seen") as seen,
        database.open_state(home) as state,
    ):
        add(state, "a.jsonl")
        assert names(seen) == ["a.jsonl"]
        add(state, "b.jsonl")
        assert names(seen) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("index", [True, False], ids=["with its index", "without"])
def test_a_log_that_was_left_behind_is_read_or_said_never_left_out(
    home, add, tmp_path, index
) -> None:
    """As a kill leaves it, and as a copy that left the index out."""
    left = tmp_path / "left"
    with database.open_state(home) as state:
        add(state, "a.jsonl")
        state.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        add(state, "b.jsonl")
        shutil.copytree(home.root, left)
    if not index:
        (left / "store" / "state.db-shm").unlink()
    with read_only_mount(left, tmp_path / "seen") as seen:
        if index:
            assert names(seen) == ["a.jsonl", "b.jsonl"]
            return
        with pytest.raises(TrainctlError, match="mounted read-only, and the newest changes"):
            names(seen)


def test_an_older_database_is_said_for_it_cannot_be_brought_up_to_date(home, tmp_path) -> None:
    with database.open_state(home) as state:
        state.db.execute("PRAGMA user_version = 3")
    with (
        read_only_mount(home.root, tmp_path / "seen") as seen,
        pytest.raises(TrainctlError, match=r"schema 3, .*\(mount it writable\)"),
    ):
        database.open_state(Home(seen))


def test_a_change_is_refused_with_the_cause(home, add, tmp_path, capsys) -> None:
    with database.open_state(home) as state:
        add(state, "a.jsonl")
    with read_only_mount(home.root, tmp_path / "seen") as seen:
        assert main(["--home", str(seen), "priority", "1", "high"]) == 1
        assert "state.db: Read-only file system" in capsys.readouterr().err
        assert main(["--home", str(seen), "add", str(tmp_path / "a.jsonl")]) == 1
        assert f"a.jsonl: not copied: {seen}" in capsys.readouterr().err
        assert names(seen) == ["a.jsonl"]
