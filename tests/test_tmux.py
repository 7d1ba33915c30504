"""End to end in a real terminal: the console with its engine, left, attached to, killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from queue_store.home import Home
from queue_store.lock import holder, wait_free
from tests import engine_kit as kit
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here")
COMMAND = [sys.executable, "-m", "trainctl"]


class Terminal:
    """A tmux server of its own, with one window."""

    def __init__(self, name: str, size: tuple[int, int], words: list[str]) -> None:
        self.words = ["tmux", "-L", name, "-u", "-f", "/dev/null"]
        environment = {**os.environ, "LANG": "C.UTF-8", "PYTHONPATH": str(kit.ROOT)}
        line = " ".join(words)
        # What the shell prints after the program shows that the terminal is usable again.
        subprocess.run(
            [
                *(*self.words, "new-session", "-d", "-x", str(size[0]), "-y", str(size[1])),
                f"stty -a >before; {line}; echo left with $?; stty -a >after; cat",
            ],
            env=environment,
            cwd=os.environ["TMUX_TEST_FOLDER"],
            check=True,
        )

    def __call__(self, *words: str) -> str:
        done = subprocess.run([*self.words, *words], capture_output=True, text=True, check=False)
        return done.stdout

    def screen(self) -> str:
        return self("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        self("send-keys", *keys)

    def shows(self, pattern: str, timeout: float = 60) -> str:
        """Wait until the screen matches, and return it."""
        try:
            wait_until(lambda: re.search(pattern, self.screen()), timeout=timeout)
        except AssertionError:
            raise AssertionError(f"never showed {pattern!r}:\n{self.screen()}") from None
        return self.screen()

    def settle(self) -> None:
        """Wait until the dialog on the screen has drawn itself: the same twice, half a second
        apart (the meters behind it may move)."""
        seen: list[str] = []

        def same() -> bool:
            lines = [line[25:97] for line in self.screen().splitlines()[8:28]]
            seen.append("\n".join(lines))
            return len(seen) > 1 and seen[-1] == seen[-2]

        wait_until(same, timeout=30, every=0.5)

    def pid(self) -> int:
        """The console's process."""
        shell = self("list-panes", "-F", "#{pane_pid}").strip()
        found = subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True, check=True)
        return int(found.stdout.split()[0])

    def close(self) -> None:
        self("kill-server")


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


def open_console(
    terminals: list[Terminal], home: Home, size: tuple[int, int] = (120, 36)
) -> Terminal:
    name = f"trainctl-{os.getpid()}-{len(terminals)}"
    terminal = Terminal(name, size, [*COMMAND, "--home", str(home.root)])
    terminals.append(terminal)
    return terminal


def command(home: Home, *words: str) -> bytes:
    """What a command prints."""
    return subprocess.run(
        [*COMMAND, "--home", str(home.root), *words],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(kit.ROOT)},
        check=True,
    ).stdout


def status(home: Home) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(command(home, "status", "--json"))
    return found


def step(home: Home) -> int:
    found = status(home)["global_step"]
    assert isinstance(found, int)
    return found


def assert_goes_on(home: Home) -> None:
    at = step(home)
    wait_until(lambda: step(home) > at + 1, timeout=60)


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
    assert status(home)["engine"]["mode"] == "daemon"  # type: ignore[index]
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
    wait_until(lambda: status(home)["engine"]["mode"] == "headless", timeout=30)  # type: ignore[index]
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
    terminal.press("Up")  # the focus starts on Cancel, the field is before it
    terminal.press("v001")
    terminal.settle()
    terminal.press("Tab", "Tab")
    terminal.settle()
    terminal.press("Enter")
    wait_until(lambda: step(home) == at, timeout=30)
    names = [v["description"] for v in orjson.loads(command(home, "versions", "--json"))]
    assert names[0] == "by hand" and "before rollback to v001" in names
