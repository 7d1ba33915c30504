"""Several consoles on one engine, in real terminals: attached, killed, the engine killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from queue_store.home import Home
from tests import engine_kit as kit
from tests.daemon_kit import Daemon, daemon
from tests.tmux_kit import Terminal, assert_goes_on, command, open_console, status, step
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = kit.make_home(tmp_path / "home")
    kit.add(home, "long.jsonl", 6000, 1)
    return home


@pytest.fixture
def engine(home: Home) -> Iterator[Daemon]:
    with daemon(home) as running:
        running.started()
        running.wait_step(3)
        yield running


@pytest.fixture
def terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Terminal]]:
    monkeypatch.setenv("TMUX_TEST_FOLDER", str(tmp_path))
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_several_consoles_see_each_other_and_their_end_is_none_of_trainings(
    home: Home, engine: Daemon, terminals: list[Terminal]
) -> None:
    one, two = open_console(terminals, home), open_console(terminals, home, (80, 24))
    looking = open_console(terminals, home, (80, 24), "--readonly")
    for terminal in (one, two, looking):
        terminal.shows(r"training\s+step [1-9]")
    one.press("p")
    for terminal in (one, two, looking):
        terminal.shows(r"paused\s+step")
    at = step(home)
    for terminal in (one, two, looking):
        shown = re.search(r"paused\s+step ([\d ]+?)\s\s", terminal.screen())
        assert shown is not None and int(shown[1].replace(" ", "")) == at, "the same step"
    looking.press("p")
    looking.shows("read-only, so no pause")
    assert step(home) == at and status(home)["state"] == "paused"
    two.press("p")
    for terminal in (one, two, looking):
        terminal.shows(r"training\s+step")
    os.kill(two.pid(), signal.SIGKILL)
    os.kill(looking.pid(), signal.SIGHUP)
    one.press("q")
    one.shows("left with 0")
    assert_goes_on(home)
    assert status(home)["engine"]["mode"] == "daemon"


def test_an_engine_that_is_killed_is_told_and_found_again_and_no_step_is_there_twice(
    home: Home, engine: Daemon, terminals: list[Terminal]
) -> None:
    terminal = open_console(terminals, home)
    terminal.shows(r"training\s+step [1-9]")
    pid = engine.engine_pid()
    started = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    terminal.shows("engine lost: reconnecting, data", timeout=20)
    told = time.monotonic() - started
    assert told < 10, f"the banner came after {told:.1f} s (2 s on a quiet machine)"
    terminal.press("p")
    terminal.shows("pause needs the engine|training\\s+step")
    engine.engine_pid(not_this=pid)
    wait_until(lambda: "engine lost" not in terminal.screen(), 60, what="it is found again")
    assert_goes_on(home)
    rows = orjson.loads(command(home, "history", "--json"))
    kept = [(row["branch"], row["step"]) for row in rows if not row["taken_back"]]
    assert len(kept) == len(set(kept)), "no step twice"
