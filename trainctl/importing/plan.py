"""What an import would do: everything that lies in an older system's folder, each thing once.

Reads the folder and the home's store; changes neither. What is here already is known by its
digest, so that a second import, or one after a kill, takes over what is missing and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queue_store import config as configuration
from queue_store import durable
from queue_store.database import State
from queue_store.errors import ConfigError, DataError, NotFound, Refused, TrainctlError
from queue_store.home import Home
from snapshots import fits, imported
from snapshots.digest import file_digest
from snapshots.imported import Source
from trainctl.importing import files, held_out, old_config, old_hosts, weights
from trainctl.importing.files import File
from trainctl.importing.folder import LeftOut, entries, read_json
from trainctl.importing.held_out import HeldOut

Json = dict[str, Any]
SETS = "imported.sets"
"""Digests of the sets that were taken over, by name: a person may have edited them since."""

READ = {
    "config.json",
    "hosts.json",
    "queue",
    "inbox",
    "data",
    "models",
    "current_model",
    "checkpoints",
    "outputs",
}
NOTHING_READS = {
    "status": "the older system's status, ledgers and logs; trainctl keeps its own",
    "control": "control files of the older system",
    "curriculum_state.json": "levels are not chosen by trainctl: the queue's order is",
    "logs": "logs of the older system",
}


@dataclass
class Plan:
    """What to take over: `items` and `versions` in their order, each with where it is here already
    ("" where it is new); `settings` of config.json and hosts.json, None without either."""

    root: Path
    items: list[tuple[File, str]] = field(default_factory=list)
    sets: list[tuple[HeldOut, str]] = field(default_factory=list)
    versions: list[tuple[Source, str]] = field(default_factory=list)
    settings: old_config.Settings | None = None
    left_out: list[LeftOut] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    """Why a version cannot be restored in this home as it is set now, by its name."""

    @property
    def bytes(self) -> int:
        """Bytes to copy."""
        return (
            sum(file.size for file, here in self.items if not here)
            + sum(len(one.content) for one, here in self.sets if not here)
            + sum(source.size for source, here in self.versions if not here)
        )

    @property
    def new(self) -> int:
        """Things to copy."""
        return sum(not here for _, here in (*self.items, *self.sets, *self.versions))

    def json(self, home: Home) -> Json:
        return {
            "source": str(self.root),
            "items": [{**one.json(), "here": here} for one, here in self.items],
            "sets": [{**one.json(), "here": here} for one, here in self.sets],
            "versions": [
                {
                    **{"name": one.name, "step": one.step, "method": one.method},
                    **{"size_bytes": one.size, "weights_digest": one.weights_digest},
                    **{"description": one.description, "here": here},
                    "note": self.notes.get(one.name, ""),
                }
                for one, here in self.versions
            ],
            "settings": None if self.settings is None else self.settings.json(),
            "left_out": [one.json() for one in self.left_out],
            "bytes": self.bytes,
            "free_bytes": durable.free_bytes(home.store),
        }


def look(state: State, root: Path, chosen: Mapping[str, Any]) -> Plan:
    """The plan for the folder `root`. `chosen` are settings that a person decided.

    Raises NotFound (no such folder, nothing of an older system in it), Refused (the home itself).
    """
    home = state.home
    if not root.is_dir():
        raise NotFound("no such folder", where=str(root))
    if root.resolve() == home.root.resolve():
        raise Refused(
            "this is the home itself: its inbox is watched already",
            where=str(root),
            mend="make the home elsewhere: trainctl init DIR",
        )
    plan = Plan(root)
    settings = _settings(plan, chosen)
    found, left = files.look(root)
    plan.left_out += left
    plan.items = _items(state, found, plan.left_out)
    found_sets, left = held_out.look(root)
    plan.left_out += left
    plan.sets = _sets(state, found_sets, plan.left_out)
    sources, left = weights.look(root, settings)
    plan.left_out += left
    plan.versions = _versions(state, sources, plan)
    _rest(plan)
    if not (plan.items or plan.sets or plan.versions or plan.settings or plan.left_out):
        raise NotFound(
            "nothing of an older system here",
            where=str(root),
            mend="name its base folder, with queue/, inbox/, data/, models/ or config.json",
        )
    return plan


def _settings(plan: Plan, chosen: Mapping[str, Any]) -> Json:
    """Read config.json and hosts.json into the plan; the content of config.json, {} where there is
    none that can be read."""
    path = plan.root / "config.json"
    hosts = old_hosts.beside(path)
    if path.is_symlink() or not path.is_file():
        if hosts is not None:
            plan.settings = old_config.translate([], chosen, hosts)
        return {}
    try:
        plan.settings = old_config.translate(old_config.read(path), chosen, hosts)
    except (DataError, ConfigError) as error:
        plan.left_out.append(LeftOut("config.json", error.what, True))
    said = read_json(path)
    return said if isinstance(said, dict) else {}


def _items(state: State, found: list[File], left: list[LeftOut]) -> list[tuple[File, str]]:
    known = {
        row["digest"]: f"item {row['id']}"
        for row in state.db.execute("SELECT id, digest FROM items ORDER BY id DESC")
    }
    seen: dict[str, str] = {}
    result = []
    for file in found:
        if file.digest in seen:
            left.append(LeftOut(file.path, f"the same bytes as {seen[file.digest]}"))
            continue
        seen[file.digest] = file.path
        result.append((file, known.get(file.digest, "")))
    return result


def _sets(state: State, found: list[HeldOut], left: list[LeftOut]) -> list[tuple[HeldOut, str]]:
    taken = state.meta_get(SETS, {})
    result = []
    for one in found:
        path = state.home.evaluation / f"{one.name}.jsonl"
        if not path.exists() and not path.is_symlink():
            result.append((one, ""))
        elif taken.get(one.name) == one.digest or _is(path, one.digest):
            result.append((one, path.name))
        else:
            because = f"evaluation/{path.name} is there with other rows: it is not written over"
            left.append(LeftOut(", ".join(one.sources), because, True))
    return result


def _is(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest
    except OSError:
        return False


def _versions(state: State, found: list[Source], plan: Plan) -> list[tuple[Source, str]]:
    config = configuration.load(state.home.config)
    seen: dict[str, str] = {}
    result = []
    for source in found:
        if source.weights_digest in seen:
            because = f"the same weights as {seen[source.weights_digest]}"
            plan.left_out.append(LeftOut(source.name, because))
            continue
        seen[source.weights_digest] = source.name
        here = imported.known(state, source.weights_digest)
        result.append((source, here.name if here else ""))
        try:
            why = fits.misfit(source.folder, state.home, config)
        except (TrainctlError, OSError) as error:
            why = str(error)
        if why:
            plan.notes[source.name] = why
    return result


PLACES = (
    *("queue", "inbox", "data", "data/validation", "config.json", *weights.PLACES),
    *(f"queue/{name}" for name in (*files.QUEUES, *files.ENDED)),
    *(f"inbox/{name}" for name in ("high", "normal", "low")),
)
"""Where things are looked for; a link in such a place is not followed."""


def _rest(plan: Plan) -> None:
    """What else lies at the top of the folder, and links where folders should be."""
    for name in PLACES:
        if (plan.root / name).is_symlink():
            because = "a symbolic link, which is not followed: import the folder that it names"
            plan.left_out.append(LeftOut(name, because, True))
    for path in entries(plan.root):
        if path.name in READ or path.name.startswith("."):
            continue
        because = NOTHING_READS.get(path.name, "nothing in trainctl reads it")
        plan.left_out.append(LeftOut(path.name, because))
    for path in entries(plan.root / "data"):
        if path.name != "validation":
            because = "no held-out set: only data/validation holds them"
            plan.left_out.append(LeftOut(f"data/{path.name}", because))
