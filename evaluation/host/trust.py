"""The key of a host, looked at before anybody believes it, and written down once somebody does.

ssh itself fetches the key (through jump hosts, on the port of the user's configuration) and
leaves before it would let itself be known. Written is trainctl's own file alone, never the
user's. Must never accept a key whose fingerprint nobody confirmed.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.host.errors import HostFailure
from evaluation.host.machine import Machine
from queue_store import durable, journal, programs, ssh
from queue_store.database import State
from queue_store.errors import TrainctlError
from queue_store.safe import safe_line

SECONDS = 40.0
_FINGERPRINT = re.compile(r"(SHA256:[A-Za-z0-9+/=]+) .*\(([A-Z0-9-]+)\)")
CHANGED = "IDENTIFICATION HAS CHANGED"


@dataclass(frozen=True)
class Key:
    """A host's key as it showed it: `line` for a known_hosts file, `fingerprint` "SHA256:…",
    `type` such as "ED25519". `known`: ssh would accept it already; `changed`: another key of this
    host is known, so this may be somebody else."""

    line: str
    fingerprint: str
    type: str
    known: bool
    changed: bool


def shown_key(machine: Machine) -> Key:
    """The key that the host shows now. Raises HostFailure where it cannot be reached."""
    assert machine.place is not None
    with tempfile.TemporaryDirectory(prefix="trainctl-key-") as folder:
        file = Path(folder) / "known_hosts"
        config = machine.place.ssh_config
        # Nobody is let in with "none" alone: what is wanted of the host is its key.
        command = [
            *("ssh", *ssh.OPTIONS, *(["-F", config] if config else [])),
            *("-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={file}"),
            *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "HashKnownHosts=no"),
            *("-o", "UpdateHostKeys=no", "-o", "PreferredAuthentications=none"),
            *("--", machine.address(), "true"),
        ]
        done = programs.run(command, timeout=SECONDS)
        if not file.is_file() or not file.read_text().strip():
            what = f"not reached: {ssh.last_line(done.err)}"
            raise HostFailure("unreachable", what, where=machine.where)
        line = file.read_text().splitlines()[0]
        told = programs.run(["ssh-keygen", "-l", "-f", str(file)], timeout=SECONDS)
    match = _FINGERPRINT.search(told.out.decode("utf-8", "replace"))
    if match is None:
        raise HostFailure("failed", "its key has no fingerprint", where=machine.where)
    known, changed = _known(machine)
    return Key(line, match[1], match[2], known, changed)


def trust(state: State, machine: Machine, key: Key) -> dict[str, Any]:
    """Add the key to trainctl's own file, with an event that says so: {host, fingerprint, type,
    known, changed, file}. Raises OSError."""
    assert machine.known_hosts is not None
    file = machine.known_hosts
    lines = file.read_text().splitlines() if file.is_file() else []
    host = key.line.split()[:1]
    # An older key of this host in our own file was ours to trust, and is ours to forget.
    lines = [line for line in lines if line.split()[:1] != host]
    durable.write_atomic(file, "".join(f"{line}\n" for line in [*lines, key.line]).encode())
    data = {
        **{"host": machine.name, "fingerprint": key.fingerprint, "type": key.type},
        **{"known": key.known, "changed": key.changed, "file": str(file)},
    }
    with state.transaction():
        what = f"the key {key.fingerprint} of host {machine.name} is trusted from now on"
        journal.record(state, "host.trusted", what, data=data)
    return data


def _known(machine: Machine) -> tuple[bool, bool]:
    """Whether ssh accepts the host's key as things are, and whether it knows another one."""
    command = [
        *(*machine.ssh(), "-o", "PreferredAuthentications=none"),
        *("--", machine.address(), "true"),
    ]
    try:
        done = programs.run(command, timeout=SECONDS)
    except TrainctlError as error:
        raise HostFailure("unreachable", safe_line(str(error)), where=machine.where) from None
    return ssh.meaning(done.err) != ssh.HOST_KEY, CHANGED in done.err
