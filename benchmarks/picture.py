"""The pictures of the README: a console attached to a home's engine that trains, as SVG files.

`python -m benchmarks.picture HOME docs` writes all of them. They show what that engine does at
the moment, no invented figure; nothing in the home changes.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path

from engine.reading.views import Views
from engine.sessions.client import connect
from queue_store import config
from queue_store.home import Home
from tui.console import Console

WITHIN = 60.0
"""Seconds in which the console has to have read everything."""


@dataclass(frozen=True)
class Picture:
    """`keys` lead to what it shows, from the console as it opens."""

    file: str
    size: tuple[int, int]
    keys: tuple[str, ...] = ()


PICTURES = (
    Picture("console.svg", (120, 36)),
    Picture("console-80x24.svg", (80, 24), ("2",)),
    Picture("console-samples.svg", (120, 36), ("4", "z")),
)


def ready(app: Console) -> bool:
    """Whether everything that this home has is there to be drawn."""
    frame = app.frame
    read = frame.series and frame.marks and frame.samples and frame.versions and frame.events
    return bool(read) and frame.state == "training"


async def take(home: Home, picture: Picture, folder: Path) -> None:
    """Write the SVG. Raises NoEngine, and TimeoutError where there is nothing to show."""
    app = Console(config.default(), connect(home), Views(home), leave=lambda way: None)
    async with app.run_test(size=picture.size) as pilot:
        deadline = time.monotonic() + WITHIN
        while not ready(app):
            if time.monotonic() > deadline:
                raise TimeoutError("it does not train, or there are no samples or versions yet")
            await pilot.pause(0.1)
        await pilot.press(*picture.keys)
        await pilot.pause()
        svg = app.export_screenshot(title=" ", simplify=True)
    # A picture fetches nothing from elsewhere: the reader's own monospace font will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (folder / picture.file).write_text(svg, encoding="utf-8")


async def take_all(home: Home, folder: Path) -> None:
    """Write every picture into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        await take(home, picture, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("folder", type=Path)
    words = parser.parse_args()
    asyncio.run(take_all(Home(words.home.absolute()), words.folder))


if __name__ == "__main__":
    main()
