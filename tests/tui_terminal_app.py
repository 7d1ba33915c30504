"""The console on a World as a process of its own, for tests that need a real terminal.

Usage: python -m tests.tui_terminal_app HOME [local] [hostile] [train] [noise] [broken]
Writes how it was left to HOME/left.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from textual.drivers.linux_driver import LinuxDriver

from queue_store.config import default
from queue_store.home import Home
from tests.tui_rows import RowsWorld, row, words
from tui.app import run_console
from tui.panes.queue import QueuePane
from tui.terminal import missing

HOSTILE = "\x1b]52;c;SEFDS0VE\x07 \x9b31m \x1b[2J [INST] [/INST] \u202eevil \x85 end"


def main() -> int:
    home, options = Home(Path(sys.argv[1])), sys.argv[2:]
    why = missing()
    if why:
        print(f"trainctl: {why}; trainctl --daemon trains without one", file=sys.stderr)
        return 2
    world = RowsWorld(local="local" in options, steps=60)
    if "hostile" in options:
        world.hint = HOSTILE
        for item in world.items:
            item["name"] = HOSTILE + item["name"]
        for answers in world.answers.values():
            for answer in answers:
                answer |= {"answer": HOSTILE, "prompt": HOSTILE, "expected": HOSTILE}
        for line in range(1, 7):
            text = f"row {line} {HOSTILE}"
            world.special[line] = row(line, segments=[words(text), words(text, True)])
        world.special[3] = {"line": 3, "error": f"broken {HOSTILE}"}
        world.said = HOSTILE
        world.version(HOSTILE)
        world.event("note", HOSTILE)

    def train() -> None:
        stop = threading.Event()
        while not stop.wait(0.1):
            world.train(1)
            (home.root / "step").write_text(str(world.step))
            if "noise" in options:
                os.write(1, b"NOISE ON STDOUT\n")
                os.write(2, b"NOISE ON STDERR\n")
                print("NOISE PRINTED")

    if "broken" in options:
        # A defect of the console itself, at a key: in its event loop, where nothing catches it.
        QueuePane.do_down = lambda pane: 1 // 0  # type: ignore[method-assign, assignment, return-value]

    if "unrestored" in options:
        # Textual fails to give the terminal back: then whoever holds it for the console must.
        LinuxDriver.stop_application_mode = LinuxDriver.disable_input  # type: ignore[method-assign]

    if "train" in options:
        threading.Thread(target=train, daemon=True).start()

    def left(way: str) -> None:
        (home.root / "left").write_text(way)
        print(f"left: {way}", flush=True)

    code = run_console(home, default(), world, world, on_leave=left)
    if (home.root / "left").read_text() == "hangup":
        # What a headless console does: it trains on; here, until the test has seen it.
        print("training on", flush=True)
        threading.Event().wait(20 if "train" in options else 0)
    return code


if __name__ == "__main__":
    sys.exit(main())
