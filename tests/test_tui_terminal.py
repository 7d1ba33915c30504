"""The console on a real terminal: nothing hostile reaches it, and it is left as it was found."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).parents[1]


class Screen:
    """A process on a pseudo-terminal of 120x36; collects every byte that it writes."""

    def __init__(self, home: Path, *options: str, **environ: str) -> None:
        self.home = home
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
        for name in ("NO_COLOR", "TEXTUAL_THEME", "COLUMNS", "LINES"):
            environment.pop(name, None)
        environment.update(environ)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tui_terminal_app", str(home), *options],
            cwd=ROOT,
            env=environment,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )
        self.bytes = bytearray()
        self._closed: set[int] = set()
        self.reading = threading.Event()
        self.reading.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            self.reading.wait()
            if self.master in self._closed:
                return
            try:
                chunk = os.read(self.master, 65536)
            except OSError:
                return
            if not chunk:
                return
            self.bytes += chunk

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def see(self, text: str) -> None:
        wait_until(lambda: text.encode() in self.bytes, 30, what=f"{text!r} on the screen")

    def press_until(self, *keys: str, seen: str) -> None:
        """One key after the other, round and round, until a text was on the screen."""
        turn = cycle(keys)
        wanted = seen.encode()
        wait_until(
            lambda: wanted in self.bytes or self.press(next(turn)), 60, every=1.5, what=repr(seen)
        )

    def left(self) -> str:
        path = self.home / "left"
        # It is there a moment before its word is.
        wait_until(lambda: path.exists() and path.read_text(), 15, what="the console is left")
        return path.read_text()

    def step(self) -> int:
        try:
            return int((self.home / "step").read_text() or 0)
        except FileNotFoundError:
            return 0  # no step yet

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(120)
        # The reader ends first: on a number that was given anew it would read another test's bytes.
        self.reading.set()
        self.hang_up(self.slave)
        self._reader.join(120)
        self.hang_up(self.master)

    def hang_up(self, end: int) -> None:
        """Close an end of the terminal, once: its number may be another file's by then."""
        if end not in self._closed:
            self._closed.add(end)
            os.close(end)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    made: list[Screen] = []

    def starter(*options: str, **environ: str) -> Screen:
        made.append(Screen(tmp_path, *options, **environ))
        return made[-1]

    yield starter
    for screen in made:
        screen.close()


def test_hostile_text_reaches_the_terminal_without_a_control_byte(start: Any) -> None:
    screen = start("hostile")
    screen.see("6 events")
    screen.see("[/INST]")
    for key in "123456":
        screen.press(key)
        screen.press("z")
    screen.press("1\r")
    screen.see("Item 1")
    screen.press("r")
    screen.see("row 1 ")
    screen.press("n")
    screen.see("broken ")
    screen.press("nn")
    screen.see("row 5 ")
    screen.press("\r")
    # A key that comes while a view opens or closes means nothing: pressed until it is heard.
    screen.press_until("\x1b", "4", "D", seen="Example e0 over")
    screen.press_until("\x1b", "4", "t", seen="Ask the model as it stands now")
    screen.press("\x1b[200~pasted \x9b31m \u202e\x1b[201~\r")
    screen.see("ended by itself")
    screen.press("\x03")
    wait_until(lambda: screen.press("q") or (screen.home / "left").exists(), 15, every=0.2)
    assert screen.left() == "detach"
    out = bytes(screen.bytes)
    assert b"\x1b]52" not in out, "a clipboard write"
    assert "\x9b".encode() not in out and "\x85".encode() not in out, "a C1 control"
    assert "\u202e".encode() not in out, "a bidi override"
    assert b"[2J" not in out.replace(b"\xe2\x90\x9b[2J", b""), "a screen erase that is not ours"
    assert b"SEFDS0VE" in out, "the text itself is readable"


@pytest.mark.parametrize("how", ["q", "SIGTERM"])
def test_the_terminal_is_as_before_after_leaving(start: Any, how: str) -> None:
    screen = start("train")
    screen.see("6 events")
    assert termios.tcgetattr(screen.slave) != screen.before, "the console is in raw mode"
    if how == "q":
        screen.press("q")
        assert screen.left() == "detach"
    else:
        screen.process.send_signal(signal.SIGTERM)
        assert screen.left() == "terminate"
    assert screen.process.wait(120) == 0
    assert termios.tcgetattr(screen.slave) == screen.before
    screen.see(f"left: {'detach' if how == 'q' else 'terminate'}")  # its last words: fds are back
    tail = bytes(screen.bytes)[-400:]
    assert b"\x1b[?1049l" in tail and b"\x1b[?25h" in tail, "main screen, cursor shown"


def test_the_terminal_is_as_before_after_a_defect_of_the_console(start: Any) -> None:
    screen = start("train", "broken")
    screen.see("6 events")
    assert termios.tcgetattr(screen.slave) != screen.before, "the console is in raw mode"
    screen.press("1j")
    assert screen.left() == "detach"
    assert screen.process.wait(120) == 1
    assert termios.tcgetattr(screen.slave) == screen.before
    screen.see("left: detach")
    _, main_screen, tail = bytes(screen.bytes).rpartition(b"\x1b[?1049l")
    assert main_screen and b"\x1b[?25h" in tail, "main screen, cursor shown"
    log = screen.home / "store" / "logs" / "console.log"
    assert f"the console broke down; what happened stands in {log}".encode() in tail
    assert b"ZeroDivisionError" in log.read_bytes()


def test_the_terminal_is_as_before_where_textual_does_not_give_it_back(start: Any) -> None:
    screen = start("train", "unrestored")
    screen.see("6 events")
    assert termios.tcgetattr(screen.slave) != screen.before, "the console is in raw mode"
    screen.press("q")
    assert screen.left() == "detach"
    assert screen.process.wait(120) == 0
    assert termios.tcgetattr(screen.slave) == screen.before


def test_output_of_libraries_goes_to_the_log_and_not_to_the_screen(start: Any) -> None:
    screen = start("train", "noise")
    screen.see("6 events")
    log = screen.home / "store" / "logs" / "console.log"
    wait_until(lambda: b"NOISE ON STDOUT" in log.read_bytes(), 15)
    wait_until(lambda: b"NOISE ON STDERR" in log.read_bytes(), 15)
    screen.press("q")
    assert screen.left() == "detach"
    drawn = bytes(screen.bytes).split(b"\x1b[?1049l")[0]
    assert b"NOISE" not in drawn


def test_a_hangup_ends_the_screen_and_the_process_trains_on(start: Any) -> None:
    screen = start("local", "train")
    screen.see("6 events")
    screen.hang_up(screen.slave)
    screen.hang_up(screen.master)
    screen.process.send_signal(signal.SIGHUP)
    assert screen.left() == "hangup"
    before = screen.step()
    wait_until(lambda: screen.step() > before + 5, 15, what="training goes on")
    log = screen.home / "store" / "logs" / "console.log"
    wait_until(lambda: b"training on" in log.read_bytes(), 10, what="output goes to the log")


def test_a_terminal_that_takes_nothing_does_not_hold_up_training_or_the_end(start: Any) -> None:
    screen = start("train")
    screen.see("6 events")
    screen.reading.clear()
    screen.press("zz" * 150)  # fill the terminal's queue with repaints nobody reads
    before = screen.step()
    wait_until(lambda: screen.step() > before + 20, 15, what="training goes on")
    screen.process.send_signal(signal.SIGTERM)
    assert screen.left() == "terminate"
    screen.process.wait(60)


@pytest.mark.parametrize("how", ["dumb", "pipe"])
def test_without_a_terminal_it_says_so_and_how_to_train(tmp_path: Path, how: str) -> None:
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "tests.tui_terminal_app", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "TERM": "dumb" if how == "dumb" else "xterm", "PYTHONPATH": str(ROOT)},
        stdin=slave,
        capture_output=True,
        text=True,
        timeout=240,
    )
    os.close(master)
    os.close(slave)
    assert done.returncode == 2
    assert "--daemon" in done.stderr and "\x1b" not in done.stdout + done.stderr


def test_ctrl_c_is_a_key_and_no_signal(start: Any) -> None:
    screen = start("local")
    screen.see("6 events")
    screen.press("\x03")
    screen.see("Leave the console")
    screen.press("\x1b")
    assert screen.process.poll() is None


COLORS = re.compile(rb"\x1b\[([0-9;]*)m")


def hues(out: bytes) -> set[str]:
    """Which ways of naming a colour were written: 16, 256, truecolor."""
    found = set()
    for match in COLORS.finditer(out):
        codes = match[1].decode().split(";")
        while codes:
            code = codes.pop(0)
            if code in ("38", "48") and codes:
                deep = codes.pop(0)
                found.add("256" if deep == "5" else "truecolor")
                del codes[: 1 if deep == "5" else 3]
            elif code and (30 <= int(code) <= 37 or 40 <= int(code) <= 47 or int(code) >= 90):
                found.add("16")
    return found


def leave(screen: Screen) -> None:
    """ctrl+c closes what is open, then the console."""
    wait_until(lambda: screen.press("\x03") or (screen.home / "left").exists(), 30, every=0.5)
    assert screen.left() == "detach"


def test_a_locale_without_utf8_gets_ascii_to_the_last_byte(start: Any) -> None:
    screen = start("hostile", LANG="C", LC_ALL="C", PYTHONUTF8="1")
    screen.see("6 events")
    screen.see("[/INST]")
    screen.press("123456?")
    screen.see("ype to search")  # the cursor stands on the first letter
    screen.press("\x03")  # closes it
    screen.press("1k")
    screen.see("what it taught")
    leave(screen)
    out = bytes(screen.bytes)
    assert out.isascii(), {bytes([b]) for b in out if b > 127}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({"TERM": "xterm"}, {"16"}),
        ({"TERM": "screen"}, {"16"}),
        ({"TERM": "linux"}, {"16"}),
        ({"TERM": "screen-256color"}, {"256"}),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, {"truecolor"}),
    ],
    ids=lambda value: value.get("TERM") if isinstance(value, dict) else None,
)
def test_a_terminal_gets_only_the_colours_that_it_has(
    start: Any, environ: dict[str, str], wanted: set[str]
) -> None:
    screen = start("train", **environ)
    screen.see("extra")
    screen.press("1jk")
    screen.see("Skip train")
    leave(screen)
    assert hues(bytes(screen.bytes)) - wanted == set()
    assert hues(bytes(screen.bytes)), "there are colours"


def test_a_terminal_that_was_not_read_shows_what_is_now_once_it_is(start: Any) -> None:
    stalled(start, 15)


@pytest.mark.slow
def test_a_terminal_that_was_not_read_for_a_minute_costs_the_engine_nothing(start: Any) -> None:
    stalled(start, 600)


def stalled(start: Any, steps: int) -> None:
    """Read nothing for so many steps (ten a second), then see that the screen is current."""
    screen = start("train")
    screen.see("6 events")
    screen.press("zz" * 20)  # repaints that fill the terminal's queue
    screen.reading.clear()
    begin, at = time.monotonic(), screen.step()
    wait_until(lambda: screen.step() >= at + steps, 5 * steps / 10 + 20, what="it trains on")
    rate = (screen.step() - at) / (time.monotonic() - begin)
    assert rate > 2, f"{rate:.1f} steps/s of 10, on a busy machine too"
    missed = screen.step()
    del screen.bytes[:]
    screen.reading.set()
    screen.press("\x0c")

    def current() -> bool:
        """The whole header is there with a step of now, not one of the backlog."""
        found = re.findall(rb"step (\d+)", bytes(screen.bytes))
        return bool(found) and int(found[-1]) >= missed

    wait_until(current, 30, what="the step of now")
    screen.press("q")
    assert screen.left() == "detach"
