"""The inbox is watched: files are seen soon, and nothing is missed however they come."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_store.database import open_state
from queue_store.home import Home
from queue_store.inbox import Inbox, ScanResult
from tests.waiting import wait_until

ROW = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
LINE = json.dumps(ROW) + "\n"
QUIET = 0.3


class Watched:
    """A home whose inbox is watched by a thread."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.results: list[ScanResult] = []
        self._stop = threading.Event()
        self._inbox = Inbox(home, lambda: open_state(home), QUIET)
        self._thread = threading.Thread(
            target=self._inbox.watch, args=(self._stop, self.results.append)
        )
        self._thread.start()

    def taken(self) -> list[str]:
        return [item.name for result in list(self.results) for item in result.taken]

    def waiting(self) -> dict[str, str]:
        results = list(self.results)
        return {w.name: w.reason for w in results[-1].waiting} if results else {}

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    home = Home(tmp_path)
    home.create()
    (home.inbox / "before.jsonl").write_text(LINE)
    made = Watched(home)
    yield made
    made.stop()


def test_files_from_before_and_after_the_start_are_taken_soon(watched: Watched) -> None:
    wait_until(lambda: watched.taken() == ["before.jsonl"])
    (watched.home.root / "new").write_text(LINE)
    (watched.home.root / "new").rename(watched.home.inbox / "high" / "new.jsonl")
    wait_until(lambda: "new.jsonl" in watched.taken(), every=0.005)


def test_a_name_that_is_no_utf8_is_taken_and_does_not_end_the_file_events(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    wait_until(lambda: watched.taken() == ["before.jsonl"])
    for n in range(3):
        (watched.home.inbox / os.fsdecode(b"%d\xff.jsonl" % n)).write_text(LINE)
        wait_until(lambda name=f"{n}\ufffd.jsonl": name in watched.taken())
    (watched.home.inbox / "after.jsonl").write_text(LINE)
    wait_until(lambda: "after.jsonl" in watched.taken())
    assert "no file events" not in caplog.text


def test_a_slow_copy_is_taken_after_its_end_and_whole(watched: Watched) -> None:
    path = watched.home.inbox / "slow.jsonl"
    with path.open("w") as file:
        file.write(LINE)
        file.flush()
        wait_until(lambda: "open for writing" in watched.waiting().get("slow.jsonl", ""))
        file.write(LINE)
    wait_until(lambda: "slow.jsonl" in watched.taken())
    (item,) = [i for r in watched.results for i in r.taken if i.name == "slow.jsonl"]
    assert item.accepted == 2 and watched.waiting() == {}


def test_an_inbox_made_anew_is_watched_again(watched: Watched) -> None:
    wait_until(lambda: watched.taken() == ["before.jsonl"])
    for n in range(2):
        shutil.rmtree(watched.home.inbox)
        if n:
            watched.home.inbox.with_name("new").mkdir()
            watched.home.inbox.with_name("new").rename(watched.home.inbox)
        else:
            watched.home.inbox.mkdir()
        (watched.home.inbox / f"{n}.jsonl").write_text(LINE)
        wait_until(lambda name=f"{n}.jsonl": name in watched.taken())


def test_hundreds_of_files_at_once_are_all_taken_once(watched: Watched) -> None:
    wanted = {f"{n:03}.jsonl" for n in range(300)}
    for name in wanted:
        (watched.home.inbox / name).write_text(LINE)
    wait_until(lambda: wanted <= set(watched.taken()), timeout=60)
    assert sorted(watched.taken()) == sorted([*wanted, "before.jsonl"])


def test_a_store_that_fails_for_a_moment_does_not_end_the_watch(watched: Watched) -> None:
    wait_until(lambda: watched.taken() == ["before.jsonl"])
    items = watched.home.items
    items.rename(items.with_name("away"))
    items.write_text("in the way")
    (watched.home.inbox / "a.jsonl").write_text(LINE)
    wait_until(lambda: "cannot be taken" in watched.waiting().get("a.jsonl", ""))
    items.unlink()
    items.with_name("away").rename(items)
    (watched.home.inbox / "b.jsonl").write_text(LINE)
    wait_until(lambda: {"a.jsonl", "b.jsonl"} <= set(watched.taken()))
