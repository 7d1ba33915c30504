"""What a home remembers of its deployments: read by hints and faces, which import little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queue_store.config import Config
from queue_store.database import State

Json = dict[str, Any]
KEY = "hosts.deployed"


def wanting(config: Config) -> list[str]:
    """The hosts that ask for the best version."""
    return [name for name, host in config.hosts.items() if host.deploy == "best"]


def remembered(state: State, host: str) -> Json:
    """{digest, version, time, error, failures, next}: what was brought to a host last (the digest
    of its weights), and what went wrong since; {} where nothing was tried."""
    found: Json = state.meta_get(KEY, {}).get(host, {})
    return found


def hints(state: State, config: Config) -> list[str]:
    """A line for each host that could not get the best version the last time."""
    found = []
    for host in wanting(config):
        known = remembered(state, host)
        if known.get("error"):
            found.append(f"{host} does not have the best version: {known['error']}")
    return found


def remember(state: State, host: str, what: Mapping[str, Any]) -> None:
    """Put it in the place of what was remembered. In the caller's transaction."""
    state.meta_set(KEY, {**state.meta_get(KEY, {}), host: dict(what)})
