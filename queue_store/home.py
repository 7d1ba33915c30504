"""A home: the folder with a config.toml under which all state lives, and the names of its places.

Source of the layout: the design's "A home". Every folder that we make is the user's alone (0700).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from queue_store.errors import NotFound

PRIORITY_FOLDERS = {"high": "high", "normal": "", "low": "low"}


@dataclass(frozen=True)
class Home:
    """The places of one home. Nothing is created by looking at them: see `create`."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def state_db(self) -> Path:
        return self.store / "state.db"

    @property
    def metrics_db(self) -> Path:
        return self.store / "metrics.db"

    @property
    def items(self) -> Path:
        return self.store / "items"

    @property
    def prepared(self) -> Path:
        return self.store / "prepared"

    @property
    def checkpoints(self) -> Path:
        return self.store / "checkpoints"

    @property
    def versions(self) -> Path:
        return self.store / "versions"

    @property
    def trash(self) -> Path:
        return self.store / "trash"

    @property
    def quarantine(self) -> Path:
        return self.store / "quarantine"

    @property
    def backups(self) -> Path:
        """Copies of state.db, made while it is in use."""
        return self.store / "backups"

    @property
    def reserve(self) -> Path:
        """Disk set aside, dropped when it is full so that the database can still commit."""
        return self.store / "reserve"

    @property
    def memory(self) -> Path:
        """What models take of a device's memory, measured; made anew where it is not there."""
        return self.store / "memory"

    @property
    def tmp(self) -> Path:
        return self.store / "tmp"

    @property
    def logs(self) -> Path:
        return self.store / "logs"

    @property
    def log(self) -> Path:
        return self.logs / "engine.log"

    @property
    def socket(self) -> Path:
        return self.store / "engine.sock"

    @property
    def lock(self) -> Path:
        return self.store / "engine.lock"

    @property
    def launch_note(self) -> Path:
        """Where a training on several hosts comes together, for `trainctl join` on the others."""
        return self.store / "launch.json"

    @property
    def status_file(self) -> Path:
        return self.store / "status.json"

    @property
    def stop_file(self) -> Path:
        return self.root / ".stop"

    def exists(self) -> bool:
        return self.config.is_file()

    def create(self) -> None:
        """Make the folders of a home (not its config.toml). Idempotent."""
        for folder in (
            self.root,
            self.inbox,
            self.inbox / "high",
            self.inbox / "low",
            self.evaluation,
            self.models,
            self.store,
            self.items,
            self.prepared,
            self.checkpoints,
            self.versions,
            self.trash,
            self.quarantine,
            self.backups,
            self.tmp,
            self.logs,
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def data_home() -> Path:
    """The XDG data folder's own home: `$XDG_DATA_HOME/trainctl` or `~/.local/share/trainctl`."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "trainctl"


def find_home(given: str | None = None) -> Home:
    """The home by `--home`, else `$TRAINCTL_HOME`, else the nearest folder upward with a
    config.toml, else the XDG data folder.

    Raises NotFound where none of these holds a config.toml.
    """
    named = given or os.environ.get("TRAINCTL_HOME")
    if named:
        home = Home(Path(named).expanduser().absolute())
        if not home.exists():
            source = "--home" if given else "$TRAINCTL_HOME"
            raise NotFound(
                "no config.toml there, so this is no home",
                where=f"{source} {home.root}",
                mend=f"make one: trainctl init {home.root}",
            )
        return home
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "config.toml").is_file():
            return Home(folder)
    home = Home(data_home())
    if not home.exists():
        raise NotFound(
            f"no home here, above, or in {home.root}",
            mend="make one: trainctl init, or try trainctl demo",
        )
    return home
