"""A look at every host of config.toml at once, and what the models that they hold are called."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from evaluation.host import look, memory
from evaluation.host.machine import machine
from queue_store.config import Host
from queue_store.database import State
from queue_store.home import Home

Json = dict[str, Any]
AT_ONCE = 8


def around(home: Home, state: State | None, hosts: Mapping[str, Host]) -> list[Json]:
    """`look.look` of each host; `models` have their `version`, the name in this home. `state` is
    None in a home that has no database yet. Raises Refused where ssh could not be told of the
    home's keys."""
    machines = [machine(home, hosts, name) for name in hosts]
    if not machines:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(machines))) as pool:
        rows = list(pool.map(look.look, machines))
    names = memory.names(state) if state is not None else {}
    for row in rows:
        for model in row["models"] if isinstance(row["models"], list) else ():
            unknown = {"unknown": "not sent from this home"}
            model["version"] = names.get(model["digest"], unknown)
    return rows
