"""A console in a tmux window of its own: what the end-to-end tests drive."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import orjson

from queue_store.home import Home
from tests import engine_kit as kit
from tests.waiting import wait_until

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
            wait_until(lambda: re.search(pattern, self.screen()), timeout=timeout, every=0.1)
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


def open_console(
    terminals: list[Terminal], home: Home, size: tuple[int, int] = (120, 36), *options: str
) -> Terminal:
    """The console of `home` in a window of its own; `terminals` closes it at the end."""
    name = f"trainctl-{os.getpid()}-{len(terminals)}"
    terminal = Terminal(name, size, [*COMMAND, "--home", str(home.root), *options])
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


def status(home: Home) -> dict[str, Any]:
    """The status, by the command line."""
    found: dict[str, Any] = orjson.loads(command(home, "status", "--json"))
    return found


def step(home: Home) -> int:
    """The global step, by the command line."""
    found = status(home)["global_step"]
    assert isinstance(found, int)
    return found


def assert_goes_on(home: Home) -> None:
    """It trains."""
    at = step(home)
    wait_until(lambda: step(home) > at + 1, timeout=60)
