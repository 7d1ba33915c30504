"""Settings: the defaults that ship with trainctl and the home's own config.toml."""

from __future__ import annotations

from queue_store import config as configuration
from queue_store.errors import TrainctlError
from queue_store.home import Home
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


def engine(home: Home) -> Check:
    """Whether an engine holds the home now."""
    from queue_store.lock import holder

    who = holder(home)
    if who is None:
        return Check("engine", True, "none runs")
    return Check("engine", True, f"process {who['pid']} ({who['mode']})")
