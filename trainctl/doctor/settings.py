"""Settings: the defaults that ship with trainctl and the home's own config.toml."""

from __future__ import annotations

import errno
import socket

from queue_store import config as configuration
from queue_store.errors import ConfigError, TrainctlError
from queue_store.home import Home
from queue_store.sharing import check_shared
from trainctl.doctor.check import Check


def default_settings() -> Check:
    try:
        configuration.default()
    except TrainctlError as error:
        return Check("default settings", False, str(error), "install trainctl again")
    return Check("default settings", True, str(configuration.default_path()))


def settings(home: Home) -> Check:
    try:
        configuration.load(home.config)
    except TrainctlError as error:
        return Check("settings", False, str(error), f"edit {home.config}")
    return Check("settings", True, str(home.config))


def processes(home: Home) -> Check:
    """How many processes train, and on several hosts whether they can come together here."""
    try:
        config = configuration.load(home.config)
    except TrainctlError:
        return Check("processes", True, "not known while config.toml is wrong")
    launch, each = config.launch, config.training.processes
    cards = _cards()
    count = max(1, cards) if each == "auto" else each
    found = f"{count} on this host" + (" (auto)" if each == "auto" else "")
    if launch.nodes > 1:
        found = f"{count} on each of {launch.nodes} hosts, which come to {launch.rendezvous}"
    if cards and count > cards:
        advice = f'set training.processes to {cards}, or "auto"'
        return Check("processes", False, f"{found}, which has {cards} GPUs", advice)
    try:
        check_shared(config.training, count * launch.nodes)
    except ConfigError as error:
        return Check("processes", False, f"{found}: {error.what}", error.mend)
    if launch.nodes > 1 and (wrong := _rendezvous(home, launch.rendezvous)):
        return Check("processes", False, f"{found}: {wrong}", MEND)
    return Check("processes", True, found)


def _cards() -> int:
    """GPUs of this host, by their driver."""
    from engine.machine.gpus import Gpus

    asked = Gpus()
    try:
        found = asked.sample()
    finally:
        asked.close()
    return len(found) if isinstance(found, list) else 0


MEND = "launch.rendezvous is a free port of the engine's host, by a name that all hosts know"


def _rendezvous(home: Home, place: str) -> str:
    """Why hosts cannot come together at `place`, "" where nothing is seen to be in the way."""
    from queue_store.lock import holder

    name, _, port = place.rpartition(":")
    try:
        found = socket.getaddrinfo(name.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        return f"{name} is not known here ({error.strerror or error})"
    if holder(home) is not None:
        return ""  # an engine has the port, here or on its host
    with socket.socket(found[0], socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(found[4])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"another program has port {port}"
            # Not an address of this host: this is one of the others.
    return ""


def engine(home: Home) -> Check:
    """Whether an engine holds the home now."""
    from queue_store.lock import holder

    who = holder(home)
    if who is None:
        return Check("engine", True, "none runs")
    return Check("engine", True, f"process {who['pid']} ({who['mode']})")
