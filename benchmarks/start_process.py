"""An engine's start to its first step, as the process that bench_answers measures.

`python -m benchmarks.start_process HOME STARTED`: STARTED is the time (seconds since the epoch) at
which the asker started this process. Prints one JSON object of seconds: imports, load, total.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    home_path, started = Path(sys.argv[1]), float(sys.argv[2])
    from engine.training.quiet import importing
    from queue_store import config
    from queue_store.home import Home
    from queue_store.lock import EngineLock

    before = time.perf_counter()
    with importing():  # as the engine's thread does
        from engine.loop import loading
        from engine.loop.thread import Engine

    imports = time.perf_counter() - before
    home = Home(home_path)
    load = loading.load_live
    taken: list[float] = []

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        live = load(*arguments)
        taken.append(time.perf_counter() - began)
        return live

    loading.load_live = timed  # type: ignore[assignment]
    lock = EngineLock.acquire(home, "bench")
    engine = Engine(home, config.load(home.config), mode="daemon")
    first: list[float] = []
    reported = engine.board.step

    def step(metric: Any) -> None:
        if not first:
            first.append(time.time() - started)
        reported(metric)

    engine.board.step = step  # type: ignore[method-assign]
    engine.start()
    engine.join()
    lock.release()
    if engine.error is not None:
        raise engine.error
    print(json.dumps({"imports": imports, "load": sum(taken), "total": first[0]}))


if __name__ == "__main__":
    main()
