"""Backup targets: which they are, whose they are, and whether one may be written to now.

A target belongs to one home. At first use a marker with the home's id is laid into it; a target
whose marker is another home's, or whose marker is gone, is refused: an empty mount point must
not be filled silently with what was meant for a disk. Must never lay a second marker for a
target that had one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

from queue_store import journal, places
from queue_store.config import Config
from queue_store.database import State, now, open_state
from queue_store.errors import NotFound, Refused, TrainctlError
from queue_store.home import Home
from snapshots.copies import SAME_DISK
from snapshots.folder_target import FolderTarget
from snapshots.remote import MARKER
from snapshots.ssh_target import SshTarget

Target = FolderTarget | SshTarget
VERSION = re.compile(r"v\d{3,}")
_HOME_ID = "home.id"
_FORMAT = 1


def names(config: Config, name: str | None = None) -> list[str]:
    """The configured targets, or the one named. Raises NotFound."""
    if name is None:
        return list(config.backups)
    if name not in config.backups:
        known = ", ".join(config.backups) or "none is configured"
        raise NotFound(f"no backup target {name}", mend=f"in config.toml: {known}")
    return [name]


def open_target(config: Config, name: str) -> Target:
    """The target of [backups.NAME], not looked at yet."""
    backup = config.backups[name]
    place = places.parse(name, backup.target, backup.ssh_config)
    return SshTarget(place) if place.host else FolderTarget(place)


def home_id(state: State) -> str:
    """The id of this home, made at its first use."""
    found = state.meta_get(_HOME_ID)
    if found is None:
        with state.transaction():
            found = state.meta_get(_HOME_ID) or str(uuid.uuid4())
            state.meta_set(_HOME_ID, found)
    return str(found)


def remembered(state: State, name: str) -> dict[str, Any]:
    """What is known of a target: {place, since, same_disk, error, failures, next, copied_on}."""
    found = state.meta_get(f"targets.{name}", {})
    return dict(found)


def remember(state: State, name: str, **facts: Any) -> None:
    """Keep facts of a target."""
    with state.transaction():
        state.meta_set(f"targets.{name}", {**remembered(state, name), **facts})


def ready(state: State, target: Target) -> None:
    """Whether this home may write there now; the first time its marker is laid.

    Raises TargetDown (not reached, not mounted), Refused (another home's, inside the store).
    """
    name, place = target.place.name, str(target.place)
    _outside(state.home, target)
    marker = _marker(target)
    known = remembered(state, name)
    if marker is None and known.get("place") == place:
        raise Refused(
            f"the target {name} has lost its {MARKER}; nothing was written",
            where=place,
            mend="is the disk mounted?",
        )
    if marker is not None:
        _ours(state, target, marker)
    else:
        _first(state, target)
    if known.get("place") != place:
        _is_new(state, target, bool(known))


def _marker(target: Target) -> dict[str, Any] | None:
    raw = target.marker()
    if raw is None:
        return None
    try:
        marker = json.loads(raw)
        return {"home": str(marker["home"]), "target": str(marker["target"])}
    except (ValueError, KeyError, TypeError):
        raise Refused(
            f"its {MARKER} makes no sense", where=str(target), mend="look at it by hand"
        ) from None


def _ours(state: State, target: Target, marker: dict[str, Any]) -> None:
    if marker["home"] != home_id(state):
        raise Refused(
            "the target belongs to another home",
            where=str(target),
            mend="give each home a folder of its own",
        )
    if marker["target"] != target.place.name:
        raise Refused(
            f"the place is the target {marker['target']} of this home already",
            where=str(target),
            mend="give each target a folder of its own",
        )


def _first(state: State, target: Target) -> None:
    marker = {
        "format": _FORMAT,
        "home": home_id(state),
        "target": target.place.name,
        "created": now(),
    }
    target.write_marker(json.dumps(marker, indent=1).encode() + b"\n")


def _is_new(state: State, target: Target, moved: bool) -> None:
    """The first use of a place, told once: also of a name that stands for another place now."""
    name, place = target.place.name, str(target.place)
    there = {entry for entry in target.names() if VERSION.fullmatch(entry)}
    same = same_disk(state.home, target)
    text = f"backup target {name} is {place}" + (f" ({SAME_DISK})" if same else "")
    with state.transaction() as db:
        if moved:
            text += "; it was another place before, whose copies are no longer counted"
            for row in db.execute("SELECT version FROM copies WHERE target = ?", (name,)):
                if f"v{row['version']:03}" not in there:
                    db.execute(
                        "DELETE FROM copies WHERE target = ? AND version = ?",
                        (name, row["version"]),
                    )
        remember(state, name, place=place, since=now(), same_disk=same)
        journal.record(state, "backup.target", text, data={"target": name, "same_disk": same})


def _outside(home: Home, target: Target) -> None:
    if isinstance(target, FolderTarget):
        place, store = target.root.resolve(), home.store.resolve()
        if place.is_relative_to(store) or store.is_relative_to(place):
            raise Refused(
                "a target must lie outside of the store",
                where=str(target),
                mend="another disk, or another host",
            )


def adopt_home(state: State, target: Target) -> bool:
    """In a home that has nothing yet: go on as the home whose target this is. True if so.

    For a lost home: init a new one, configure its target, and fetch. Refused where this home has
    versions or checkpoints of its own.
    """
    marker = _marker(target)
    if marker is None:
        raise NotFound(f"there is no {MARKER}, so no copies of a home", where=str(target))
    if marker["home"] == home_id(state):
        return False
    made = state.db.execute(
        "SELECT (SELECT COUNT(*) FROM versions) + (SELECT COUNT(*) FROM copies) +"
        " (SELECT COUNT(*) FROM checkpoints WHERE kind != 'base')"
    ).fetchone()[0]
    if made:
        raise Refused(
            "the target belongs to another home, and this one has versions of its own",
            where=str(target),
            mend="fetch into a new home: trainctl init",
        )
    with state.transaction():
        state.meta_set(_HOME_ID, marker["home"])
        text = f"this home goes on as the one whose copies are at {target}"
        journal.record(state, "backup.adopted", text, data={"home": marker["home"]})
    return True


def same_disk(home: Home, target: Target) -> bool:
    """Whether a folder's bytes lie on the disk of the store (another partition of it counts)."""
    if not isinstance(target, FolderTarget) or not target.root.exists():
        return False
    devices = home.store.stat().st_dev, target.root.stat().st_dev
    return devices[0] == devices[1] or _disk(devices[0]) == _disk(devices[1])


def _disk(device: int) -> str:
    """The whole disk that a block device is a part of; the number itself for all others."""
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not path.exists():
        return str(device)
    real = path.resolve()
    return str(real.parent if (real / "partition").exists() else real)


def check_targets(home: Home, config: Config) -> list[tuple[str, bool, str, str]]:
    """For `trainctl doctor`: (check, ok, found, what to do), one or more a target."""
    found = []
    if any(open_target(config, name).place.host for name in config.backups):
        for program in ("rsync", "ssh"):
            where = shutil.which(program)
            advice = "" if where else f"install {program}: backup targets on hosts need it"
            found.append((program, where is not None, where or "not installed", advice))
    if config.backups:
        with open_state(home) as state:
            found += [_checked(state, open_target(config, name)) for name in config.backups]
    return found


def _checked(state: State, target: Target) -> tuple[str, bool, str, str]:
    check = f"backup {target.place.name}"
    try:
        _outside(state.home, target)
        marker = _marker(target)
        if marker is not None:
            _ours(state, target, marker)
        elif remembered(state, target.place.name).get("place") == str(target.place):
            return check, False, f"{target}: its {MARKER} is gone", "is the disk mounted?"
        else:
            return check, True, f"{target}: not used yet", ""
        if not target.writable():
            return (
                *(check, False, f"{target}: cannot be written"),
                "let this user write there; a host needs rsync and sha256sum",
            )
        said = f"{target}: {target.free() / 1e9:.1f} GB free"
    except TrainctlError as error:
        return check, False, f"{target}: {error.what}", error.mend
    if same_disk(state.home, target):
        return check, True, f"{said}; {SAME_DISK}", "add a target on another disk or host"
    return check, True, said, ""
