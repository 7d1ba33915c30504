"""A host of config.toml as what ssh and rsync are told, and the worker on this machine.

`ssh` is an alias or user@host; ports, keys and jumps are the business of the user's own ssh
configuration. Host keys are those the user knows, and those that `trainctl hosts trust` wrote.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.host import bundle
from evaluation.host.channel import Channel
from evaluation.host.errors import HostFailure
from evaluation.host.pace import Limit
from queue_store import places, ssh
from queue_store.config import Host
from queue_store.errors import NotFound, Refused
from queue_store.home import Home
from queue_store.places import Place

KNOWN_HOSTS = "known_hosts"
SYSTEM_KEYS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
"""ssh's own default, to which trainctl's file is added."""
LOCAL = "local"
"""The name of the worker on this machine; no host of config.toml may have it."""


@dataclass(frozen=True)
class Machine:
    """Where a worker runs. `place` None is this machine; `known_hosts` is trainctl's own file.

    `device` and `threads` are for torch there ("auto" takes a card where one is); `silence`, in
    seconds, is how long either side stays when it hears nothing of the other.
    """

    name: str
    place: Place | None
    python: str
    known_hosts: Path | None = None
    device: str = "auto"
    threads: int = 0
    precision: str = "auto"
    silence: float = 45.0
    start: float = 40.0
    ping: float = 5.0
    limit: Limit | None = None
    """Of a worker on this machine: how much of the processor it may take; see pace."""
    keep: int = 3
    """Models that stay in the host's store; one is that of the base where adapters train."""

    @property
    def where(self) -> str:
        return f"host {self.name}" if self.place else "the worker on this machine"

    def ssh(self) -> list[str]:
        """ssh and its options, without the host. Host keys are checked, whatever the user's
        configuration says; ours come last, so that nothing of the user's is replaced."""
        assert self.place is not None
        words = ["ssh", *ssh.OPTIONS, "-o", "StrictHostKeyChecking=yes"]
        # A connection that the user shares may be used; one that stays behind is never begun.
        words += ["-o", "ControlMaster=no", "-o", "RemoteCommand=none"]
        if self.known_hosts is not None:
            ours = f'{SYSTEM_KEYS} "{self.known_hosts}"'
            words += ["-o", f"GlobalKnownHostsFile={ours}"]
        return [*words, *(["-F", self.place.ssh_config] if self.place.ssh_config else [])]

    def address(self) -> str:
        """What ssh takes: user@host or an alias, an IPv6 address without brackets."""
        assert self.place is not None
        return self.place.host.replace("[", "").replace("]", "")

    def command(self) -> list[str]:
        """The constant command that starts the worker."""
        if self.place is None:
            return bundle.local_command(self.python)
        return [*self.ssh(), "--", self.address(), bundle.remote_command(self.python)]

    def open(self) -> Channel:
        """Start a worker. The thread that opens must outlive the channel. Raises HostFailure where
        there is no ssh here."""
        if self.place is not None and shutil.which("ssh") is None:
            raise HostFailure("failed", "ssh is not installed here", where=self.where)
        return Channel(
            self.command(),
            bundle.first_bytes(),
            where=self.where,
            host=self.name,
            start=self.start,
            silence=self.silence,
            ping=self.ping,
            limit=self.limit,
        )


def known_hosts(home: Home) -> Path:
    """trainctl's own file of host keys."""
    return home.store / KNOWN_HOSTS


def machine(home: Home, hosts: Mapping[str, Host], name: str) -> Machine:
    """The host `name` of config.toml, or LOCAL. Raises NotFound, Refused."""
    if name == LOCAL:
        return local()
    if name not in hosts:
        known = ", ".join(hosts) or "none is configured"
        raise NotFound(f"no host {name}", mend=f"in config.toml: {known}")
    host = hosts[name]
    keys = known_hosts(home)
    if set("'\"") & set(str(keys)):
        what = "a quote in the home's path would have to pass through ssh and rsync"
        raise Refused(what, where=str(home.root), mend="move the home to another folder")
    place = places.parse_host(name, host.ssh, host.store, host.ssh_config)
    return Machine(name, place, host.python, keys)


def local(device: str = "cpu", threads: int = 0) -> Machine:
    """A worker on this machine, at the lowest priority; on the CPU, so that it never takes the
    memory of the card that trains, unless another device is named."""
    return Machine(LOCAL, None, sys.executable, device=device, threads=threads)
