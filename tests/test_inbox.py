"""A file dropped in the inbox becomes an item when it is complete, and never before."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store import intake, queue
from queue_store.complete import held, ignored
from queue_store.database import State, open_state
from queue_store.home import Home
from queue_store.inbox import Inbox, ScanResult
from queue_store.items import ItemState
from tests.small_disk import small_disk
from tests.waiting import wait_until

ROW = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
LINE = json.dumps(ROW) + "\n"
ROOT = Path(__file__).parent.parent


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.create()
    return made


@pytest.fixture
def state(home: Home) -> Iterator[State]:
    with open_state(home) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inbox(home: Home, clock: Clock) -> Iterator[Inbox]:
    made = Inbox(home, lambda: open_state(home), 2.0, clock)
    yield made
    made.close()


def names(result: ScanResult) -> list[str]:
    return [item.name for item in result.taken]


def reasons(result: ScanResult) -> dict[str, str]:
    return {waiting.name: waiting.reason for waiting in result.waiting}


def after(inbox: Inbox, clock: Clock, seconds: float) -> ScanResult:
    clock.now += seconds
    return inbox.scan()


def test_a_file_is_taken_once_nothing_about_it_changed_for_the_quiet_time(
    home: Home, inbox: Inbox, clock: Clock, state: State
) -> None:
    path = home.inbox / "a.jsonl"
    path.write_text(LINE)
    first = inbox.scan()
    assert not first.taken and "quiet" in reasons(first)["a.jsonl"]
    assert first.again == pytest.approx(2.0)
    assert not after(inbox, clock, 1.9).taken
    with path.open("a") as file:
        file.write(LINE)
    assert not after(inbox, clock, 1.9).taken
    assert not after(inbox, clock, 1.9).taken
    result = after(inbox, clock, 0.1)
    assert names(result) == ["a.jsonl"] and not result.waiting
    assert not path.exists()
    item = queue.get(state, result.taken[0].id)
    assert item.state is ItemState.QUEUED and item.accepted == 2
    assert (home.items / item.file).read_text() == LINE * 2
    assert not after(inbox, clock, 10).taken


def test_another_file_put_in_its_place_counts_as_a_change(
    home: Home, inbox: Inbox, clock: Clock
) -> None:
    path = home.inbox / "a.jsonl"
    path.write_text(LINE)
    info = path.stat()
    inbox.scan()
    other = home.root / "other"
    other.write_text(LINE)
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.rename(path)
    assert not after(inbox, clock, 2).taken
    assert names(after(inbox, clock, 2)) == ["a.jsonl"]


def test_a_file_open_for_writing_waits_however_quiet_it_is(
    home: Home, inbox: Inbox, clock: Clock
) -> None:
    path = home.inbox / "a.jsonl"
    code = "import sys; f = open(sys.argv[1], 'w'); f.write(sys.argv[2]); f.flush(); input()"
    writer = subprocess.Popen(
        [sys.executable, "-c", code + "; f.write(sys.argv[2])", str(path), LINE],
        stdin=subprocess.PIPE,
    )
    try:
        wait_until(lambda: path.exists() and path.stat().st_size)
        inbox.scan()
        result = after(inbox, clock, 3600)
        assert not result.taken and "open for writing" in reasons(result)["a.jsonl"]
        assert result.again is not None and result.again < 0.5
    finally:
        writer.communicate(b"\n")
    inbox.scan()
    result = after(inbox, clock, 2)
    assert names(result) == ["a.jsonl"] and result.taken[0].accepted == 2


def test_a_writer_that_comes_while_we_look_is_kept_waiting_and_does_not_kill_us(
    home: Home,
) -> None:
    path = home.inbox / "a.jsonl"
    path.write_text(LINE)
    code = (
        "import sys, pathlib; from queue_store.complete import held\n"
        "with held(pathlib.Path(sys.argv[1])) as (fd, writer):\n"
        "    print(writer.value, flush=True); input()\n"
        "print('alive')\n"
    )
    looker = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert looker.stdout and looker.stdout.readline() == b"none\n"
    with pytest.raises(BlockingIOError):
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    out, _ = looker.communicate(b"\n")
    assert (looker.returncode, out) == (0, b"alive\n")
    path.write_text(LINE)  # the lease is given back


@pytest.mark.parametrize("content", [LINE + LINE[:-1], ""], ids=["open line", "empty"])
def test_a_last_line_without_a_newline_is_taken_after_a_minute(
    content: str, home: Home, inbox: Inbox, clock: Clock
) -> None:
    (home.inbox / "a.jsonl").write_text(content)
    inbox.scan()
    result = after(inbox, clock, 59)
    assert not result.taken and "no newline" in reasons(result)["a.jsonl"]
    assert names(after(inbox, clock, 1)) == ["a.jsonl"]


def test_what_is_no_data_is_rejected_with_its_line_and_its_bytes_are_kept(
    home: Home, inbox: Inbox, clock: Clock
) -> None:
    (home.inbox / "a.jsonl").write_bytes(b"\xff\x00 rubbish\n")
    inbox.scan()
    (item,) = after(inbox, clock, 2).taken
    assert item.state is ItemState.REJECTED and "line 1" in item.error
    assert (home.items / item.file).read_bytes() == b"\xff\x00 rubbish\n"


def test_hidden_and_temporary_names_are_not_there_for_us(
    home: Home, inbox: Inbox, clock: Clock
) -> None:
    hidden = [".a.jsonl.X7d", "a.jsonl.tmp", "a.part", "a.jsonl.Partial", "a.jsonl.filepart"]
    for name in hidden:
        assert ignored(name)
        (home.inbox / name).write_text(LINE)
    inbox.scan()
    result = after(inbox, clock, 3600)
    assert not result.taken and not result.waiting
    assert sorted(p.name for p in home.inbox.iterdir() if p.is_file()) == sorted(hidden)


def test_folders_give_the_priority_and_the_older_layout_is_flattened(
    home: Home, inbox: Inbox, clock: Clock
) -> None:
    for folder in ("low", "normal", "high", "maths_L2"):
        (home.inbox / folder).mkdir(exist_ok=True)
    (home.inbox / "low" / "l.jsonl").write_text(LINE)
    (home.inbox / "normal" / "n.jsonl").write_text(LINE)
    (home.inbox / "m.jsonl").write_text(LINE)
    (home.inbox / "high" / "h.jsonl").write_text(LINE)
    (home.inbox / "maths_L2" / "training_samples.jsonl").write_text(LINE)
    for age, name in enumerate(("normal/n.jsonl", "m.jsonl", "maths_L2/training_samples.jsonl")):
        os.utime(home.inbox / name, (age, age))
    inbox.scan()
    result = after(inbox, clock, 2)
    assert [(item.name, item.priority.word) for item in result.taken] == [
        ("h.jsonl", "high"),
        ("n.jsonl", "normal"),
        ("m.jsonl", "normal"),
        ("maths_L2.jsonl", "normal"),
        ("l.jsonl", "low"),
    ]
    assert reasons(after(inbox, clock, 2)) == {}, "its emptied folder waits for nothing"
    (home.inbox / "maths_L2" / "other.jsonl").write_text(LINE)
    assert list(reasons(after(inbox, clock, 2))) == ["maths_L2"], "one with a file says why"


def test_what_is_not_a_jsonl_file_stays_and_says_why(
    home: Home, inbox: Inbox, clock: Clock, state: State
) -> None:
    (home.inbox / "README").write_text("read me")
    (home.inbox / "old" / "deep").mkdir(parents=True)
    (home.inbox / "high" / "folder.jsonl").mkdir()
    (home.inbox / "link.jsonl").symlink_to("/etc/passwd")
    os.mkfifo(home.inbox / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(home.inbox)
        try:
            server.bind("s.jsonl")
        finally:
            os.chdir(here)
    inbox.scan()
    result = after(inbox, clock, 3600)
    assert not result.taken and result.again is None
    assert reasons(result) == {
        "README": "not a .jsonl file",
        "old": "a folder; put files in inbox, inbox/high or inbox/low",
        "folder.jsonl": "a folder; put files in inbox, inbox/high or inbox/low",
        "link.jsonl": "a symbolic link; put the file itself here",
        "pipe.jsonl": "no regular file",
        "s.jsonl": "no regular file",
    }
    kept = {row["name"]: row["reason"] for row in queue.waiting(state)}
    assert kept == reasons(result)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_waits_and_does_not_stop_the_others(
    home: Home, inbox: Inbox, clock: Clock
) -> None:
    (home.inbox / "a.jsonl").write_text(LINE)
    (home.inbox / "a.jsonl").chmod(0)
    (home.inbox / "b.jsonl").write_text(LINE)
    inbox.scan()
    result = after(inbox, clock, 2)
    assert names(result) == ["b.jsonl"]
    assert "Permission denied" in reasons(result)["a.jsonl"]


def test_two_files_of_one_name_are_two_items(
    home: Home, inbox: Inbox, clock: Clock, state: State
) -> None:
    for content in (LINE, LINE * 2):
        (home.inbox / "a.jsonl").write_text(content)
        inbox.scan()
        assert names(after(inbox, clock, 2)) == ["a.jsonl"]
    assert sorted(item.accepted for item in queue.items(state)) == [1, 2]


def test_bytes_that_others_can_still_change_are_copied_before_they_are_taken(
    home: Home, inbox: Inbox, clock: Clock
) -> None:
    mine = home.root / "mine.jsonl"
    mine.write_text(LINE)
    (home.inbox / "a.jsonl").hardlink_to(mine)
    inbox.scan()
    (item,) = after(inbox, clock, 2).taken
    mine.write_text("changed later")
    assert (home.items / item.file).read_text() == LINE
    assert not list(home.inbox.glob("*.jsonl")) and not list(home.inbox.glob(".*"))


def test_waiting_files_keep_their_time_over_a_restart(
    home: Home, clock: Clock, state: State
) -> None:
    (home.inbox / "README").write_text("x")
    for _ in range(2):
        inbox = Inbox(home, lambda: open_state(home), 2.0, clock)
        inbox.scan()
        inbox.close()
        (row,) = queue.waiting(state)
        state.db.execute("UPDATE waiting SET since = 77")
    assert row["since"] == 77


def test_a_kill_between_move_and_row_loses_nothing_and_doubles_nothing(
    home: Home, state: State
) -> None:
    (home.inbox / "high" / "a b%.jsonl").write_text(LINE)
    code = (
        "import sys, pathlib; from queue_store.home import Home\n"
        "from queue_store.inbox import Inbox\n"
        "from queue_store.database import open_state\n"
        "home = Home(pathlib.Path(sys.argv[1])); inbox = Inbox(home, lambda: open_state(home), 0)\n"
        "inbox.scan(); inbox.scan()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(home.root)],
        env={**os.environ, "TRAINCTL_CRASH_AT": "intake.taken"},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not queue.items(state) and not list((home.inbox / "high").iterdir())
    assert [item.name for item in intake.adopt_orphans(state)] == ["a b%.jsonl"]
    assert intake.adopt_orphans(state) == []
    (item,) = queue.items(state)
    assert item.priority.word == "high" and (home.items / item.file).read_text() == LINE


def test_looking_at_a_file_leaves_it_readable_for_others(home: Home) -> None:
    path = home.inbox / "a.jsonl"
    path.write_text(LINE)
    with held(path), path.open() as reader:
        assert reader.read() == LINE


def test_an_inbox_on_another_filesystem_is_emptied_into_the_store(
    home: Home, state: State, inbox: Inbox, clock: Clock, tmp_path: Path
) -> None:
    home.inbox.rename(tmp_path / "inbox-before")
    with small_disk(home.inbox, 4):
        for name in ("a", "b"):
            (home.inbox / f"{name}.jsonl").write_text(LINE)
        (home.inbox / "a.jsonl.meta.json").write_text("{}")
        inbox.scan()
        clock.now += 3
        taken = inbox.scan().taken
        assert [(item.name, item.state) for item in taken] == [
            ("a.jsonl", ItemState.QUEUED),
            ("b.jsonl", ItemState.QUEUED),
        ]
        assert [(home.items / item.file).read_text() for item in taken] == [LINE, LINE]
        assert intake.sidecar_of(home.items / taken[0].file).read_text() == "{}"
        assert not [path for path in home.inbox.iterdir() if path.is_file()]

        (home.inbox / "c.jsonl").write_text(LINE)
        subprocess.run(["mount", "-o", "remount,ro", str(home.inbox)], check=True)
        inbox.scan()
        clock.now += 3
        result = inbox.scan()
        assert (result.taken, len(queue.items(state))) == ((), 2)
        assert "could not leave" in result.waiting[0].reason
