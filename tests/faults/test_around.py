"""Faults of what is around: a full filesystem, a clock that jumps, an inbox that is stormed, two
daemons and a command at once."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from queue_store import queue
from queue_store.database import open_state
from queue_store.home import Home
from queue_store.inbox import Inbox, ScanResult
from queue_store.items import ItemState
from tests import engine_kit as kit
from tests.daemon_kit import SECONDS, daemon, status
from tests.faults import full
from tests.faults.checker import check
from tests.faults.parts import nothing_wrong, part
from tests.faults.world import rows_of
from tests.waiting import wait_until

small_disk = pytest.mark.skipif(bool(full.missing()), reason=full.missing() or "mounts work")


@small_disk
def test_a_really_full_filesystem_refuses_and_loses_nothing() -> None:
    nothing_wrong(part("full", "--step", 96, "checkpoint", "add", "version"))


@small_disk
@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_a_really_full_filesystem_in_every_protocol_at_any_size() -> None:
    nothing_wrong(part("full", "--step", 16))


def test_a_clock_that_jumps_inside_a_protocol_loses_nothing() -> None:
    nothing_wrong(part("clock", "checkpoint", "version", "rollback", "delete", "inbox"))


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_clock_that_jumps_inside_any_protocol_loses_nothing() -> None:
    nothing_wrong(part("clock"))


def fill(home: Home, first: int, last: int) -> None:
    """Files that appear at once under their names, in all three priorities."""
    for number in range(first, last):
        folder = home.inbox / ("high", "low", "")[number % 3]
        staged = home.root / "staged"
        staged.write_text(rows_of(f"{number}"))
        staged.rename(folder / f"{number}.jsonl")


@pytest.mark.parametrize(
    "files", [300, pytest.param(10_000, marks=[pytest.mark.faults, pytest.mark.timeout(3600)])]
)
def test_a_stormed_inbox_that_is_made_anew_and_whose_events_are_lost_takes_every_file_once(
    home: Home, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the files come before the watch, a quarter while it runs, the rest in an inbox made
    anew; no event of any of them arrives."""
    monkeypatch.setattr("queue_store.inbox.RESCAN_SECONDS", 0.5)
    monkeypatch.setattr(Inbox, "_events", lambda self, stop: (False for _ in ticks(stop)))
    stop, taken = threading.Event(), []

    def ticks(ended: threading.Event):
        while not ended.wait(0.1):
            yield None

    def seen(result: ScanResult) -> None:
        taken.extend(item.name for item in result.taken)

    fill(home, 0, files // 2)
    box = Inbox(home, lambda: open_state(home), 0.0)
    watch = threading.Thread(target=box.watch, args=(stop, seen), daemon=True)
    watch.start()
    fill(home, files // 2, 3 * files // 4)
    patience = 30 + files / 20
    wait_until(lambda: len(taken) >= 3 * files // 4, patience, every=0.2, what="three quarters")
    home.inbox.rename(home.root / "old inbox")
    home.create()
    fill(home, 3 * files // 4, files)
    wait_until(lambda: len(taken) >= files, patience, every=0.2, what="all of them")
    stop.set()
    watch.join(20)
    assert sorted(taken) == sorted(f"{n}.jsonl" for n in range(files))
    with open_state(home) as state:
        assert len(queue.items(state, ItemState.QUEUED)) == files
    assert not [str(v) for v in check(home.root)]


def test_of_many_daemons_started_at_once_one_runs_and_commands_beside_it_lose_nothing(
    tmp_path: Path, trainctl
) -> None:
    home = kit.make_home(tmp_path / "home")
    kit.add(home, "a.jsonl", 40)
    with daemon(home) as first, daemon(home) as second:
        over = wait_until(
            lambda: [d for d in (first, second) if d.process.poll() is not None], SECONDS
        )
        assert len(over) == 1
        code, err = over[0].wait()
        assert code == 1 and "runs an engine on this home" in err and err.count("\n") == 1
        left = first if over[0] is second else second
        left.started()
        files = [kit.write_rows(tmp_path / f"{n}.jsonl", 4, n + 2) for n in range(6)]
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(trainctl, "add", path, "--json", home=home) for path in files]
            asked += [pool.submit(trainctl, "snapshot", home=home) for _ in range(2)]
            done = [one.result() for one in asked]
        assert all(one.code == 0 for one in done), [one.err for one in done]
        numbers = {json.loads(one.out)[0]["id"] for one in done[:6]}
        assert len(numbers) == 6
        refused = trainctl("rebuild", "--yes", home=home)
        assert refused.code == 1 and "Traceback" not in refused.err
        left.wait_idle()
        assert status(home)["engine"]["pid"]
        assert left.end()[0] == 0
    assert set(kit.states(home).values()) == {"done"}
    assert not [str(v) for v in check(home.root)]
