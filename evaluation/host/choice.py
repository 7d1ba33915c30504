"""Which host of config.toml a job goes to: the first that is free, else the next.

Never another model, never a place that nobody named: this machine is only asked where no host is
configured, or by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from evaluation.host.errors import HostFailure
from evaluation.host.look import look
from evaluation.host.machine import LOCAL, Machine, machine
from queue_store.config import Host
from queue_store.home import Home

AT_ONCE = 8
ELSEWHERE = "later again, or elsewhere: --host NAME, --local"

T = TypeVar("T")


def on_first_free(
    home: Home, hosts: Mapping[str, Host], name: str | None, ask: Callable[[Machine], T]
) -> T:
    """`ask` on the host `name` (LOCAL is this machine); without one on the first of `hosts` that
    is idle, and on this machine where there is none. A host that somebody else took meanwhile
    passes the job on to the next.

    Raises what `ask` raises, NotFound for an unknown name, HostFailure "busy" where no host is
    free, with what each of them said.
    """
    if name is not None or not hosts:
        try:
            return ask(machine(home, hosts, name or LOCAL))
        except HostFailure as failure:
            raise _mended(failure) from None
    machines = [machine(home, hosts, one) for one in hosts]
    with ThreadPoolExecutor(min(AT_ONCE, len(machines))) as pool:
        looked = list(pool.map(look, machines))
    told = []
    for one, found in zip(machines, looked, strict=True):
        why = found["why"]
        if found["state"] == "idle":
            try:
                return ask(one)
            except HostFailure as failure:
                if failure.code != "busy":
                    raise
                why = failure.what
        told.append(f"{one.name}: {why}")
    raise _mended(HostFailure("busy", f"no host is free: {'; '.join(told)}"))


def _mended(failure: HostFailure) -> HostFailure:
    """Nobody tries a command again by itself, as its words for a job say."""
    if failure.transient:
        failure.mend = ELSEWHERE
    return failure
