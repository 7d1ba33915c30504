"""Where a backup target or an evaluation host is: a folder here, or a path that ssh reaches.

Parsed once, strictly, when config.toml is read: what stands here goes into the argument lists
of rsync and ssh. Must never hold a secret: who may enter is the business of ssh and its keys.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from queue_store.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.%]+\]")
_FORMS = 'a folder ("/mnt/disk/copies") or a host and a path ("me@nas:copies")'


@dataclass(frozen=True)
class Place:
    """A target: `host` is "" for a folder, else what ssh takes (user@host or an alias); `path`
    the folder there, absolute or relative to the login folder; `ssh_config` a file for ssh -F."""

    name: str
    host: str
    path: str
    ssh_config: str = ""

    @property
    def folder(self) -> Path:
        """The folder of a target on this machine."""
        return Path(self.path)

    def __str__(self) -> str:
        return f"{self.host}:{self.path}" if self.host else self.path


def parse(name: str, target: str, ssh_config: str = "", where: str = "config.toml") -> Place:
    """The place of [backups.NAME]. Raises ConfigError that names the key and how to mend it."""
    key = f"backups.{name}.target"

    def wrong(what: str, mend: str = f"write {_FORMS}", key: str = key) -> ConfigError:
        return ConfigError(f"{key}: {what}", where=where, mend=mend, key=key)

    if not NAME.fullmatch(name):
        raise wrong(
            f"{name!r} is no name for a target", "letters, digits, dot, dash, underscore", "backups"
        )
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in target + ssh_config):
        raise wrong("control characters are not allowed in it")
    if ssh_config:
        _ssh_config(ssh_config, f"backups.{name}.ssh_config", where)
    if target.startswith(("/", "~/")):
        if ".." in target.split("/"):
            raise wrong("'..' is not allowed in it")
        return Place(name, "", str(Path(target).expanduser()))
    host, colon, path = target.partition(":") if not _bracketed(target) else _split(target)
    if not colon or "/" in host:
        raise wrong(f"{target!r} is neither a folder from the root on nor a host")
    user, at, machine = host.rpartition("@")
    if (at and not _USER.fullmatch(user)) or not _HOST.fullmatch(machine):
        raise wrong(f"{host!r} is no user and host")
    path = path.removeprefix("~/") if path != "~" else ""
    if not path or path.startswith(("-", "~")) or ".." in path.split("/"):
        raise wrong(f"the path {path!r} on {machine} is not allowed", "name a folder of its own")
    return Place(name, host, path.rstrip("/") or "/", ssh_config)


def parse_host(
    name: str, address: str, store: str, ssh_config: str = "", where: str = "config.toml"
) -> Place:
    """The place of [hosts.NAME]: where its store of weights is. Raises ConfigError that names the
    key and how to mend it."""

    def wrong(key: str, what: str, mend: str = "") -> ConfigError:
        full = f"hosts.{name}.{key}"
        return ConfigError(f"{full}: {what}", where=where, mend=mend, key=full)

    if not NAME.fullmatch(name) or name == "local":
        mend = "letters, digits, dot, dash, underscore; local is this machine"
        raise ConfigError(f"hosts: {name!r} is no name for a host", where=where, mend=mend)
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in address + store + ssh_config):
        raise wrong("ssh", "control characters are not allowed in a host")
    user, at, machine = address.rpartition("@")
    if (at and not _USER.fullmatch(user)) or not _HOST.fullmatch(machine):
        mend = 'an alias of your ssh configuration, or "user@host"; ports and keys stand there'
        raise wrong("ssh", f"{address!r} is no host", mend)
    if ssh_config:
        _ssh_config(ssh_config, f"hosts.{name}.ssh_config", where)
    path = store.removeprefix("~/").rstrip("/")
    if not path or path.startswith(("-", "~")) or {".", ".."} & set(path.split("/")):
        raise wrong("store", f"the folder {store!r} is not allowed", "name a folder of its own")
    return Place(name, address, path, ssh_config)


def check_python(name: str, python: str, where: str = "config.toml") -> None:
    """Raise ConfigError where hosts.NAME.python cannot be one word of a command."""
    if python.startswith("-") or any(ord(c) < 0x20 or c in "\x7f'" for c in python):
        raise ConfigError(
            f"hosts.{name}.python: {python!r} is no interpreter",
            where=where,
            mend='a name or a path there: "python3", "~/venv/bin/python"',
            key=f"hosts.{name}.python",
        )


def _bracketed(target: str) -> bool:
    return "[" in target.partition("]:")[0] and "]:" in target


def _split(target: str) -> tuple[str, str, str]:
    host, _, path = target.partition("]:")
    return host + "]", ":", path


def _ssh_config(path: str, key: str, where: str) -> None:
    if not path.startswith("/") or "'" in path or '"' in path:
        raise ConfigError(f"{key} = {path!r}: a file from the root on, without quotes", where=where)
