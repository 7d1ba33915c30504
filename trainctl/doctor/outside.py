"""What stands outside the home: the systemd unit, and the targets of backups. By files only."""

from __future__ import annotations

import getpass
import importlib
from collections.abc import Iterator
from pathlib import Path

from queue_store import config as configuration
from queue_store.errors import TrainctlError
from queue_store.home import Home
from trainctl.doctor.check import Check

LINGER = Path("/var/lib/systemd/linger")


def systemd(home: Home) -> Check:
    """Whether the daemon starts with the machine, where this one has systemd."""
    from trainctl.commands.service import unit_path

    unit = unit_path(home)
    if not unit.exists():
        if not Path("/run/systemd/system").is_dir():
            return Check("systemd", True, "not used on this machine")
        found = "no unit for this home"
        return Check("systemd", True, found, "to train after a boot: trainctl service install")
    user = getpass.getuser()
    if not (LINGER / user).exists():
        found = f"{unit.name}, which ends when {user} logs out"
        return Check("systemd", False, found, f"loginctl enable-linger {user}")
    return Check("systemd", True, unit.name)


def targets(home: Home) -> Iterator[Check]:
    """The places of second copies under [backups.NAME]."""
    try:
        config = configuration.load(home.config)
    except TrainctlError:
        return
    if not config.backups:
        advice = "a second copy elsewhere outlives this disk: [backups.NAME] in config.toml"
        yield Check("backup targets", True, "none", advice)
        return
    try:
        places = importlib.import_module("snapshots.targets")
    except ImportError:
        return
    for name, ok, found, advice in places.check_targets(home, config):
        yield Check(name, ok, found, advice)
