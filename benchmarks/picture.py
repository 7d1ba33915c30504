"""The picture of the README: a console attached to a home's engine, as an SVG.

`python -m benchmarks.picture HOME docs/console.svg`. It shows what that engine does at the
moment, no invented figure; it changes nothing in the home.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from pathlib import Path

from engine.client import connect
from engine.views import Views
from queue_store import config
from queue_store.home import Home
from tui.console import Console

SIZE = (120, 36)
WITHIN = 60.0
"""Seconds in which the console has to have read everything."""


async def take(home: Home, target: Path) -> None:
    """Write the SVG. Raises NoEngine, and TimeoutError where there is no step to show."""
    app = Console(config.default(), connect(home), Views(home), leave=lambda way: None)
    async with app.run_test(size=SIZE) as pilot:
        deadline = time.monotonic() + WITHIN
        while not (app.frame.series and app.frame.samples and app.frame.state == "training"):
            if time.monotonic() > deadline:
                raise TimeoutError("the engine has no steps or no samples to show")
            await pilot.pause(0.1)
        await pilot.pause(0.5)
        svg = app.export_screenshot(title=" ", simplify=True)
    # A picture fetches nothing from elsewhere: the reader's own monospace font will do.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(svg, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("target", type=Path)
    words = parser.parse_args()
    asyncio.run(take(Home(words.home.absolute()), words.target))


if __name__ == "__main__":
    main()
