"""`python -m engine.ranks.rank`: one rank of a launch, started by torch elastic's agent.

It joins the others and carries out what the engine asks rank 0 for, until it is told to leave. What
ends it is told: by rank 0 over the link, by the others in the launch's store and in the file that
their agent reads. It dies with its agent, and where the store of the launch is gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from engine.ranks import lifeline
from engine.ranks.link import Link
from engine.ranks.order import ENVIRONMENT, Order


def main() -> None:
    order = Order.loads(os.environ[ENVIRONMENT])
    lifeline.die_with(order.parent)
    _stacks(Path(order.stacks))
    from engine.training.quiet import importing

    with importing():
        from engine.ranks.watch import LaunchStore, Watch

    store = LaunchStore(order)
    rank = store.take_place()
    link = _link(order) if rank == 0 else None
    watch = Watch(store, rank, link)
    try:
        _serve(order, link, watch)
    except BaseException as error:
        _tell(error, rank, link, store)
        os._exit(1)  # no destructor may wait for the others


def _serve(order: Order, link: Link | None, watch: Any) -> None:
    from engine.training.quiet import importing

    with importing():
        from engine.ranks.service import Service, about
        from engine.training.parallel import Ranks
        from engine.training.state import libraries

    watch.start()
    sharded = order.kind == "fsdp"
    ranks = Ranks.begin(order.size, order.device, sharded, order.timeout_seconds)
    ranks.same("the version of Python, torch or transformers", libraries())
    found = ranks.collect(about(ranks))
    watch.ranks = ranks
    service = Service(ranks, link)
    if link is not None:
        link.send({"done": {"ranks": found}})
    ranks.decide(lambda: service.serve("leave"))
    watch.stop()
    ranks.end()


def _link(order: Order) -> Link:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(order.socket)
    link = Link(channel)
    link.send({"hello": order.id})
    return link


def _stacks(place: Path) -> None:
    """SIGUSR2 appends the stack of every thread to the file, in C; so does a crash."""
    file = place.open("a", encoding="utf-8")
    os.fchmod(file.fileno(), 0o600)
    faulthandler.enable(file=file, all_threads=True)
    faulthandler.register(signal.SIGUSR2, file=file, all_threads=True)


def _tell(error: BaseException, rank: int, link: Link | None, store: Any) -> None:
    """Leave word of what ended this rank, wherever somebody may look for it."""
    import traceback

    from engine.ranks import words

    traceback.print_exception(error)  # the launch's log
    said = words.lost(error, rank)
    with contextlib.suppress(Exception):
        if link is not None:
            link.send({"lost": said})
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    with contextlib.suppress(OSError):
        if place:
            # torch elastic reads these two of it.
            own = {"message": str(error), "timestamp": str(int(time.time()))}
            Path(place).write_text(json.dumps({**own, **said}), encoding="utf-8")
    with contextlib.suppress(Exception):
        store.lost(said)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
