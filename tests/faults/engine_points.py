"""The crash points that the real engine passes in its story, undisturbed.

python -m tests.faults.engine_points
"""

from __future__ import annotations

import json
import sys

from tests import engine_kit as kit
from tests.engine_forks import story_home
from tests.faults.bench import listened, scratch


def main() -> None:
    import engine.loop.worker  # noqa: F401 - once, for the fork
    from tests.engine_forks import story

    with scratch() as folder:
        home = story_home(folder / "home", "auto")
        kit.add(home, "a.jsonl", 24)
        kit.add(home, "b.jsonl", 16, 2)
        passed, ended = listened(lambda: story(home))
    assert ended == 0, f"the story ended with {ended}"
    print(json.dumps({"passed": sorted({point.rpartition(":")[0] for point in passed})}))


if __name__ == "__main__":
    sys.exit(main())
