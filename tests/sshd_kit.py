"""A real sshd of this user on loopback, with keys made for the test: for targets and hosts."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import wait_until

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
MISSING = [
    name
    for name, there in (
        *((p, shutil.which(p)) for p in ("rsync", "ssh", "ssh-keygen", "sha256sum")),
        ("sshd", Path(SSHD).exists()),
    )
    if not there
]
needs_sshd = [
    pytest.mark.ssh,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}"),
]


@dataclass
class Host:
    """An sshd of this user on a port of loopback; `config` is a file for `ssh -F`."""

    folder: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def config(self) -> Path:
        return self.folder / "ssh config"

    def start(self) -> None:
        # -D -e: in the foreground, and its log beside its keys.
        self.process = subprocess.Popen(
            [SSHD, "-D", "-E", str(self.folder / "log"), "-f", str(self.folder / "sshd_config")]
        )
        wait_until(self._answers, what=f"sshd: {self.folder / 'log'}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def key(path: Path) -> str:
    """Make a key; its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_name(path.name + ".pub").read_text().strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_host(folder: Path, name: str = "nas") -> Host:
    """An sshd, not started yet, that the alias `name` of its ssh configuration reaches."""
    made = Host(folder, free_port())
    host_key, user_key = key(folder / "host"), key(folder / "user")
    (folder / "authorized").write_text(user_key + "\n")
    (folder / "known").write_text(f"[127.0.0.1]:{made.port} {host_key}\n")
    (folder / "sshd_config").write_text(
        f"Port {made.port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nStrictModes no\nUsePAM no\n"
        f"PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n"
    )
    made.config.write_text(
        f"Host {name}\n  HostName 127.0.0.1\n  Port {made.port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder / 'known'}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    return made
