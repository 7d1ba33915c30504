"""An engine in a process of its own, for tests that kill it: trains the queue, then ends; with
`stay` as its second word it stays until it is told to end."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from queue_store.home import Home
from tests.engine_kit import Running


def main() -> None:
    home = Home(Path(sys.argv[1]))
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    with Running(home) as running:
        if sys.argv[2:] != ["stay"]:
            ends = threading.Thread(
                target=lambda: (running.wait_trained(), asked.set()), daemon=True
            )
            ends.start()
        asked.wait()


if __name__ == "__main__":
    main()
