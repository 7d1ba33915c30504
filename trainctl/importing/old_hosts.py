"""The hosts.json and the remote_eval of an older system (formats F12, F13) as [hosts.NAME].

Its services answered HTTP on ports of their own; trainctl needs ssh alone, so a host comes to an
address. Only hosts that evaluate are taken; where weights lay there is never taken, for a store of
trainctl is a folder that nobody else fills. Must never write a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from queue_store import places
from queue_store.errors import ConfigError
from trainctl.importing.folder import read_json

Json = dict[str, Any]
FILE = "hosts.json"
LOCAL = {"localhost", "127.0.0.1", "::1", ""}
LEFT = {
    "services": "no service and no port of a host is used: ssh reaches it",
    "models_dir": "trainctl keeps weights in a store of its own (hosts.NAME.store)",
    "checkpoints_dir": "checkpoints stay on the machine that trains",
    "base_dir": "nothing of the older system's folder there is used",
    "capabilities": "what a host can do is asked of it: trainctl hosts",
}
ROLES = {
    "trainer": "the machine that trains is the one trainctl runs on",
    "storage": "second copies go to [backups.NAME]",
}
FILE_KEYS = {
    "version": "the format of the file",
    "warden_port": "trainctl has no warden",
    "local_host": "trainctl runs on the machine that trains",
    "default_trainer": "trainctl runs on the machine that trains",
}


def beside(config: Path) -> Any:
    """What a hosts.json beside a config.json says; None where there is none to read."""
    path = config.with_name(FILE)
    return read_json(path) if path.is_file() and not path.is_symlink() else None


def hosts_json(said: Any) -> tuple[list[Json], list[Json], list[Json]]:
    """The settings, what is left out, and what is wrong of a hosts.json, as in old_config."""
    mapped: list[Json] = []
    ignored: list[Json] = []
    problems: list[Json] = []
    listed = said.get("hosts") if isinstance(said, dict) else None
    if not isinstance(listed, dict):
        return mapped, ignored, [_wrong("hosts", said, "hosts.json has no object of hosts")]
    first = said.get("default_inference")
    for name in sorted(listed, key=lambda one: one != first):
        _host(str(name), listed[name], str(said.get("local_host", "")), mapped, ignored, problems)
    for key in said:
        if key in FILE_KEYS:
            ignored.append({"key": f"{FILE}: {key}", "because": FILE_KEYS[key]})
        elif key == "default_inference":
            because = "its host comes first: a job goes to the first that is idle"
            ignored.append({"key": f"{FILE}: {key}", "because": because})
        elif key != "hosts":
            ignored.append({"key": f"{FILE}: {key}", "because": "unknown to trainctl"})
    return mapped, ignored, problems


def remote_eval(place: str, said: Any) -> tuple[list[Json], list[Json], list[Json]]:
    """The same of config.json's remote_eval {host, remote_user, …}."""
    if not isinstance(said, dict) or not isinstance(said.get("host"), str):
        return [], [{"key": place, "because": "it names no host"}], []
    host, user = said["host"], said.get("remote_user")
    if host in LOCAL:
        because = "that is this machine: it evaluates without being configured"
        return [], [{"key": place, "because": because}], []
    mapped, problems = _address(place, host, host, user)
    because = "of remote_eval only the host counts: ssh reaches it, and sets lie in evaluation/"
    rest = [f"{place}.{key}" for key in said if key not in ("host", "remote_user")]
    return mapped, [{"key": key, "because": because} for key in rest], problems


def merged(values: Mapping[str, Any], found: list[Json]) -> list[Json]:
    """Those of `found` whose machine is not among the hosts in `values` yet."""
    known = {
        _machine(value)
        for key, value in values.items()
        if key.startswith("hosts.") and key.endswith(".ssh")
    }
    fresh = []
    for one in found:
        if one["to"] not in values and _machine(one["value"]) not in known:
            known.add(_machine(one["value"]))
            fresh.append(one)
    return fresh


def _machine(address: Any) -> str:
    return str(address).rpartition("@")[2]


def _host(
    name: str,
    said: Any,
    local: str,
    mapped: list[Json],
    ignored: list[Json],
    problems: list[Json],
) -> None:
    place = f"{FILE}: hosts.{name}"
    if not isinstance(said, dict):
        problems.append(_wrong(place, said, "this host is no object"))
        return
    role = str(said.get("role", ""))
    host = str(said.get("host", ""))
    if role in ROLES:
        ignored.append({"key": place, "because": ROLES[role]})
    elif name == local or host in LOCAL:
        because = "that is this machine: it evaluates without being configured"
        ignored.append({"key": place, "because": because})
    else:
        more, wrong = _address(place, name, host, said.get("ssh_user"))
        mapped += more
        problems += wrong
        ignored += [{"key": f"{place}.{key}", "because": LEFT[key]} for key in said if key in LEFT]


def _address(place: str, name: str, host: str, user: Any) -> tuple[list[Json], list[Json]]:
    """ssh of [hosts.NAME], or why it is none. A dot in a name would be another table."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", name).strip("-_") or "host"
    if name == "local":
        name = "host-local"
    address = f"{user}@{host}" if isinstance(user, str) and user else host
    try:
        places.parse_host(name, address, "trainctl-store", where=place)
    except ConfigError as error:
        return [], [_wrong(f"hosts.{name}.ssh", address, error.what)]
    return [{"from": [place], "to": f"hosts.{name}.ssh", "value": address}], []


def _wrong(key: str, value: Any, what: str) -> Json:
    return {"key": key, "value": value, "what": what}
