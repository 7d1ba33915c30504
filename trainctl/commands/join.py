"""join: this host's processes for a training that the engine of another host leads."""

from __future__ import annotations

import argparse

from queue_store.errors import Refused
from trainctl.context import Context, print_json
from trainctl.signals import Signals


def join(context: Context, arguments: argparse.Namespace) -> int:
    """Come to every launch of the home's engine until ctrl+c or SIGTERM. JSON: {event} a line."""
    launch = context.config.launch
    if launch.nodes < 2:
        raise Refused(
            "launch.nodes = 1: no other host is waited for",
            where=str(context.home.config),
            mend="set it to the number of hosts, and launch.rendezvous to the engine's host:port",
        )
    from engine.ranks import join as joining

    signals = Signals()

    def told(text: str) -> None:
        if context.json:
            print_json({"event": text}, line=True)
        else:
            print(text, flush=True)

    joining.serve(context.home, told, lambda: signals.count > 0, arguments.address)
    return 0
