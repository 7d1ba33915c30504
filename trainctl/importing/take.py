"""Carrying an import out: copied, read back, and only then made known, each thing by itself.

A thing is here in one transaction or not at all; what a kill leaves, the next import (or the
engine's start) clears away or completes. The source is only ever read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from queue_store import config as configuration
from queue_store import durable, intake, journal
from queue_store.config import LOCKED
from queue_store.database import State
from queue_store.errors import DataError, Refused, TrainctlError, VerificationFailed
from queue_store.items import ItemState
from queue_store.transitions import move_state
from snapshots import imported, upkeep
from snapshots.checkpoints import require_space
from snapshots.digest import file_digest
from snapshots.imported import Source
from snapshots.versions import recover_versions
from trainctl.importing import files
from trainctl.importing.files import File
from trainctl.importing.folder import LeftOut
from trainctl.importing.held_out import HeldOut
from trainctl.importing.plan import SETS, Plan
from trainctl.settings_text import edited, nested, toml_value

Json = dict[str, Any]
ENGINE = "an engine runs: trainctl stop, then import again; everything else is taken over now"


def tidy(state: State) -> None:
    """Complete or clear away what a killed import left. Under the home's lock."""
    upkeep.sweep_tmp(state.home)
    intake.recover_files(state)
    intake.adopt_orphans(state)
    recover_versions(state)


def take(
    state: State, plan: Plan, *, locked: bool, tell: Callable[[str], None]
) -> tuple[list[Json], list[LeftOut]]:
    """Take over what is new in the plan: what was done [{kind, name, is}], and what failed.
    Without the home's lock (`locked`) the versions wait. `tell` hears of each thing.

    Raises Refused where the disk has no room for all of it.
    """
    require_space(state.home, plan.bytes, "the import")
    done: list[Json] = []
    failed: list[LeftOut] = []
    for kind, name, act in _acts(state, plan, locked, failed):
        try:
            made = act()
        except (TrainctlError, OSError) as error:
            why = error.what if isinstance(error, TrainctlError) else error.strerror or str(error)
            failed.append(LeftOut(name, why, True))
            tell(f"{name}: not taken over: {why}")
            continue
        done.append({"kind": kind, "name": name, "is": made})
        tell(f"{name} -> {made}")
    return done, failed


def _acts(
    state: State, plan: Plan, locked: bool, failed: list[LeftOut]
) -> Iterator[tuple[str, str, Callable[[], str]]]:
    # Sets first: what is in them must not train.
    for one, here in plan.sets:
        if not here:
            yield "set", ", ".join(one.sources), partial(_set, state, one)
    for file, here in plan.items:
        if not here:
            yield "item", file.path, partial(_item, state, plan.root, file)
    for source, here in plan.versions:
        if here:
            continue
        if not locked:
            failed.append(LeftOut(source.name, ENGINE, True))
            continue
        yield "version", source.name, partial(_version, state, source)


def _version(state: State, source: Source) -> str:
    version = imported.take_in(state, source)
    return f"{version.name}, step {version.step}, verified"


def _item(state: State, root: Path, file: File) -> str:
    """Copy a file beside, compare it, and queue it. Raises DataError where no row of it trains:
    it is kept as a rejected item."""
    source = root / file.path
    staging = durable.new_tmp(state.home, "import")
    try:
        copy = staging / "data.jsonl"
        durable.copy_file(source, copy)
        durable.crash_point("import.item_copied")
        if file_digest(copy, from_medium=True) != file.digest:
            raise VerificationFailed("the copy is not what was looked at")
        beside = files.sidecar(root, file)
        if beside is not None:
            durable.copy_file(beside, intake.sidecar_of(copy))
        with state.transaction():
            item = intake.add_file(
                state,
                copy,
                priority=file.priority,
                name=file.name,
                source=f"import: {source}",
                take=True,
            )
            if file.failed and item.state is ItemState.QUEUED:
                text = f"{item.name} had failed before it was imported: {file.failed}"
                reason = "failed before the import"
                move_state(
                    *(state, item.id, ItemState.FAILED, text), reason=reason, error=file.failed
                )
            durable.crash_point("import.item_made")
    finally:
        durable.discard(staging, state.home)
    if item.state is ItemState.REJECTED:
        raise DataError(f"kept as item {item.id}, rejected: {item.error}")
    return f"item {item.id}, {'failed' if file.failed else file.priority.word}"


def _set(state: State, one: HeldOut) -> str:
    """Write a held-out set, once its rows were read back as a set."""
    from evaluation.sets import load_set

    target = state.home.evaluation / f"{one.name}.jsonl"
    staging = durable.new_tmp(state.home, "import")
    try:
        path = staging / target.name
        durable.write_new(path, one.content)
        examples = len(load_set(path).examples)
        if file_digest(path, from_medium=True) != one.digest:
            raise VerificationFailed("it was written wrong")
        durable.make_folder(target.parent)
        durable.take_file(path, target)
        durable.crash_point("import.set_placed")
    finally:
        durable.discard(staging, state.home)
    with state.transaction():
        state.meta_set(SETS, {**state.meta_get(SETS, {}), one.name: one.digest})
        text = f"evaluation/{target.name} imported: {examples} rows that never train"
        journal.record(state, "imported", text, data={"set": one.name, "sources": one.sources})
    return f"evaluation/{target.name}, {examples} rows"


def settings(state: State, plan: Plan) -> str:
    """Put the settings of config.json into the home's config.toml; the file as it was stays
    beside it. Returns its path. Raises Refused, ConfigError; then nothing is changed."""
    path, found = state.home.config, plan.settings
    if found is None:
        raise Refused("there is no usable config.json or hosts.json", where=str(plan.root))
    if not found.decided:
        keys = [one["key"] for one in (*found.conflicts, *found.problems) if one["key"]]
        raise Refused(
            f"config.json does not decide {', '.join(dict.fromkeys(keys))}",
            where=str(plan.root / "config.json"),
            mend="decide each with --set KEY=VALUE",
        )
    locked = state.meta_get("locked") or {}
    for key in LOCKED:
        if key in locked and found.values.get(key, locked[key]) != locked[key]:
            raise Refused(
                f"{key} is locked as {toml_value(locked[key])} since the first step",
                where=str(path),
                mend=f"--set {key}={locked[key]}, or import into another home",
            )
    before = path.read_text(encoding="utf-8")
    after = edited(before, found.values, path)
    if after == before:
        return str(path)
    configuration.check(nested({**_own(path), **found.values}), path)
    kept = _free(path)
    durable.write_new(kept, before.encode())
    durable.write_atomic(path, after.encode())
    with state.transaction():
        text = f"{len(found.values)} settings of {plan.root / 'config.json'} taken over"
        journal.record(state, "imported", text, data={"settings": found.values})
    return str(path)


def _own(path: Path) -> Json:
    """The home's own settings by dotted key."""
    import tomllib

    return configuration.flat(tomllib.loads(path.read_text(encoding="utf-8")))


def _free(path: Path) -> Path:
    """A name for the file as it was before."""
    names = (f"{path.name}.before-import{f'.{n}' if n else ''}" for n in range(1000))
    return next(place for name in names if not (place := path.with_name(name)).exists())
