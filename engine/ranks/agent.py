"""`python -m engine.ranks.agent`: torch elastic's agent of one host, which starts its ranks.

It gets an `Order` as a line of JSON on its input, which stays open for as long as the ranks may
live: when it closes, or whoever started us dies, all of them die. Its one line of output tells how
the ranks ended: `{"ok": true}`, or the rank that failed first, with its own words where it had any.
A rank that ends is never started again here: the engine starts another launch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.ranks import lifeline
from engine.ranks.order import ENVIRONMENT, Order
from queue_store import programs

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

END_SECONDS = 3
"""How long a rank may take to end once it was told to (SIGTERM), before it is killed."""
LOOK_SECONDS = 0.1
RANK = "engine.ranks.rank"


def main() -> int:
    order = Order.loads(sys.stdin.buffer.readline())
    lifeline.die_with(order.parent)
    lifeline.die_at_end_of(sys.stdin.fileno())
    try:
        _launch(order)
    except BaseException as error:
        _tell(_words(error))
        return 1
    _tell({"ok": True})
    return 0


def _launch(order: Order) -> None:
    """Start this host's ranks and wait for their end. Raises what torch elastic raises."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    os.environ[ENVIRONMENT] = order.for_ranks(os.getpid()).dumps()
    if order.nodes == 1:  # nothing of it is to be reached from elsewhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    config = LaunchConfig(
        min_nodes=order.nodes,
        max_nodes=order.nodes,
        nproc_per_node=order.each,
        run_id=order.id,
        rdzv_backend="c10d",
        rdzv_endpoint=order.rendezvous or str(Path(order.folder) / "rendezvous"),
        rdzv_configs={
            "store_type": "tcp" if order.rendezvous else "file",
            # Not guessed from names: the engine's host has it, and nobody else.
            "is_host": str(order.leads).lower(),
            "join_timeout": str(max(1, int(order.join_seconds))),
            "read_timeout": str(max(1, int(min(60.0, order.join_seconds)))),
        },
        max_restarts=0,
        monitor_interval=LOOK_SECONDS,
        local_addr=order.address,
        shutdown_timeout=END_SECONDS,
        logs_specs=DefaultLogsSpecs(log_dir=order.folder),
    )
    command = programs.python(RANK)
    launch_agent(config, command[0], command[1:])


def _words(error: BaseException) -> dict[str, Any]:
    """What ended the ranks, for the line of output."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if isinstance(error, ChildFailedError):
        return _first(error)
    return {"error": " ".join(f"{type(error).__name__}: {error}".split())}


def _first(error: ChildFailedError) -> dict[str, Any]:
    """The rank that failed first: the others were ended for it, or felt it missing."""
    failures = list(error.failures.values())
    told = [(one, _own_words(Path(one.error_file))) for one in failures]
    # A rank that only felt another one missing is not the one to name, whatever came first.
    told.sort(key=lambda one: (_felt(one), one[0].exitcode == -signal.SIGTERM, one[0].timestamp))
    failure, words = told[0]
    return {
        "rank": failure.local_rank,
        "pid": failure.pid,
        "exit": failure.exitcode,
        "words": words,
        "time": time.time(),
    }


def _felt(one: tuple[Any, dict[str, Any] | None]) -> bool:
    return bool(one[1] and one[1].get("felt"))


def _own_words(place: Path) -> dict[str, Any] | None:
    """What the rank itself left to be read, None where it could not."""
    with contextlib.suppress(OSError, ValueError):
        said = json.loads(place.read_text())
        if isinstance(said, dict):
            return said
    return None


def _tell(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    sys.exit(main())
