"""End to end in a real terminal: the console with its engine, left, attached to, killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from queue_store import records
from queue_store.database import open_state
from queue_store.home import Home
from queue_store.lock import holder, wait_free
from snapshots import versions
from snapshots.checkpoints import open_checkpoint
from tests import engine_kit as kit
from tests.tmux_kit import Terminal, assert_goes_on, command, open_console, status, step
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here")


@pytest.fixture
def terminals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Terminal]]:
    monkeypatch.setenv("TMUX_TEST_FOLDER", str(tmp_path))
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = kit.make_home(tmp_path / "home")
    kit.add(home, "long.jsonl", 6000, 1)
    kit.add(home, "next.jsonl", 50, 2)
    yield home
    who = holder(home)
    if who is not None:
        os.kill(int(who["pid"]), signal.SIGTERM)
        assert wait_free(home, 60)


def test_a_session_from_first_frame_to_hand_over_and_back(
    home: Home, terminals: list[Terminal], tmp_path: Path
) -> None:
    small = open_console(terminals, home, (80, 24))
    small.shows(r"1 queue.*2 curves.*6 events", timeout=20)
    small.shows(r"training\s+step [1-9]")
    small.press("p")
    small.shows(r"paused\s+step \d+")
    at = step(home)
    small.press("p")
    small.shows(r"training\s+step")
    wait_until(lambda: step(home) > at, timeout=30)
    small.press("q")
    small.shows("Keep training in the background")
    small.press("Enter")
    small.shows(r"training goes on in the background.*\n*.*left with 0", timeout=90)
    assert status(home)["engine"]["mode"] == "daemon"
    assert_goes_on(home)
    before, after = ((tmp_path / name).read_text() for name in ("before", "after"))
    assert before == after, "the terminal's settings are as they were"

    wide = open_console(terminals, home)
    shown = wide.shows(r"training\s+step [1-9]", timeout=20)
    number = re.search(r"training\s+step ([\d ]+?)\s\s", shown)
    assert number is not None and int(number[1].replace(" ", "")) <= step(home)
    os.kill(wide.pid(), signal.SIGKILL)
    assert_goes_on(home)


def test_a_terminal_that_goes_away_leaves_the_engine_training(
    home: Home, terminals: list[Terminal]
) -> None:
    terminal = open_console(terminals, home)
    terminal.shows(r"training\s+step [1-9]")
    terminal.close()
    wait_until(lambda: status(home)["engine"]["mode"] == "headless", timeout=30)
    assert_goes_on(home)


def test_an_operator_snapshots_and_rolls_back_with_the_typed_name_only(
    home: Home, terminals: list[Terminal]
) -> None:
    terminal = open_console(terminals, home)
    terminal.shows(r"training\s+step [1-9]")
    terminal.press("p")
    terminal.shows(r"paused\s+step")
    at = step(home)
    command(home, "snapshot", "-m", "by hand")
    terminal.shows(r"5 versions · [12]")
    terminal.press("p")
    wait_until(lambda: step(home) > at + 3, timeout=60)
    terminal.press("p")
    terminal.shows(r"paused\s+step")
    left = step(home)
    terminal.press("5")
    terminal.press("R")
    shown = terminal.shows("Roll back to v001")
    assert f"{left - at} steps" in shown, "what is lost is told first"
    terminal.press("Escape")
    wait_until(lambda: "Roll back to" not in terminal.screen())
    assert step(home) == left, "no rollback without the typed name"
    terminal.press("R")
    terminal.shows("Roll back to v001")
    terminal.settle()
    terminal.press("v001")  # the focus starts in the field
    terminal.settle()
    terminal.press("Enter")  # goes on to the button, which can be pressed now
    terminal.settle()
    terminal.press("Enter")
    wait_until(lambda: step(home) == at, timeout=30)
    with open_state(home) as state:
        taken, before = versions.versions(state)
        assert (taken.description, taken.step) == ("by hand", at)
        assert (before.kind, before.description) == ("before_rollback", "before rollback to v001")
        assert before.step == left and before.branch == 1, "the state that was left, whole"
        folder = open_checkpoint(state, records.checkpoint(state, before.checkpoint))
        told = orjson.loads((folder / "training_state.json").read_bytes())
        assert told["global_step"] == left


def test_a_newcomer_is_told_what_to_do_trains_a_first_file_and_stops(
    tmp_path: Path, terminals: list[Terminal]
) -> None:
    home = kit.make_home(tmp_path / "new")
    terminal = open_console(terminals, home, (80, 24))
    terminal.shows("Nothing has trained here yet", timeout=20)
    shown = terminal.screen()
    assert "add a JSONL file" in shown
    assert str(home.inbox) in "".join(shown.split()), "the path, over two lines where it is long"
    terminal.press("?")
    terminal.shows("type to search")
    terminal.press("Escape")
    terminal.shows("Nothing has trained here yet")
    kit.write_rows(tmp_path / "first.jsonl", 2000, 1).rename(home.inbox / "first.jsonl")
    terminal.shows(r"(?s)1 queue.*first +train")
    terminal.shows(r"training\s+step [1-9]", timeout=120)
    terminal.press("q")
    terminal.shows("Stop after this step and save")
    terminal.settle()
    terminal.press("Up", "Enter")
    terminal.shows(r"everything is saved.*\n*.*left with 0", timeout=90)
    found = status(home)
    assert found["state"] == "stopped" and found["global_step"] > 0
    assert kit.states(home) == {"first.jsonl": "paused"}


def test_an_operators_session(home: Home, terminals: list[Terminal], tmp_path: Path) -> None:
    terminal = open_console(terminals, home)
    terminal.shows(r"training\s+step [1-9]", timeout=120)
    terminal.press("p")
    terminal.shows(r"paused\s+step")
    urgent = kit.write_rows(tmp_path / "urgent.jsonl", 1500, 9)
    command(home, "add", str(urgent), "--priority", "high")
    terminal.press("p")
    wait_until(lambda: kit.states(home)["urgent.jsonl"] == "training", 60, what="it goes first")
    assert kit.states(home)["long.jsonl"] == "paused", "and the other one waits where it stood"
    terminal.press("s")
    terminal.shows("Take a snapshot")
    terminal.shows("Cancel")  # while it trains, the screen behind never settles
    terminal.press("Enter", "Enter")  # behind the description, and Take snapshot
    terminal.shows("v001 is taken")
    at = orjson.loads(command(home, "versions", "--json"))[0]["step"]
    wait_until(lambda: step(home) > at + 3, timeout=60)
    terminal.press("p")  # a plan is of one moment: while it trains it goes stale
    terminal.shows(r"paused\s+step")
    terminal.press("5", "R")
    terminal.shows("Roll back to v001")
    terminal.settle()
    terminal.press("v001")
    terminal.settle()
    terminal.press("Enter")
    terminal.settle()
    terminal.press("Enter")
    wait_until(lambda: step(home) == at, timeout=60, what="back at the version")
    terminal.press("p")
    wait_until(lambda: status(home)["branch"] == 2, timeout=60, what="it trains on a branch")
    terminal.press("q")
    terminal.shows("Keep training in the background")
    terminal.press("Enter")
    terminal.shows(r"training goes on in the background.*\n*.*left with 0", timeout=90)
    back = open_console(terminals, home)
    back.shows(r"training\s+step [1-9]", timeout=30)
    back.shows(r"v002")
    assert step(home) > at, "it trained on from there"
    back.press("q")
    back.shows("left with 0")
