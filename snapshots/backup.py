"""Runs of a backup over the targets: copy what they lack, remove by rule, read back, fetch.

Used by `trainctl backup`, by a session's command and by the engine's keeper alike. One run a
target at a time in a process. A target that is down costs the others nothing; its reason is told
once in the journal and tried again later and later. Must never raise for a target that is down.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from queue_store import journal, programs
from queue_store.config import Backup, Config
from queue_store.database import State
from queue_store.errors import NotFound, TrainctlError, VerificationFailed
from queue_store.programs import BrokenOff, Cancelled
from snapshots import copies, fetching, targets, transfer
from snapshots.copies import DAMAGED, HARD_LINKS, SAME_DISK, VERIFIED
from snapshots.targets import Target
from snapshots.transfer import Progress
from snapshots.versions import Version, get, versions

Json = dict[str, Any]
RETRY_SECONDS, RETRY_MOST = 60.0, 6 * 3600.0
DAY = 86400.0
_busy: dict[tuple[str, str], threading.Lock] = {}
_busy_guard = threading.Lock()


def silent(name: str, done: int, size: int) -> None:
    """A progress that nobody watches."""


def run(
    state: State,
    config: Config,
    *,
    name: str | None = None,
    action: str = "copy",
    version: str | None = None,
    only: int | None = None,
    alone: bool = True,
    progress: Progress = silent,
    cancelled: Cancelled = programs.never,
) -> list[Json]:
    """`trainctl backup`: one object a target, {target, place, same_disk, copied[], removed[],
    verified[], damaged[{version, problem}], fetched[], error}. `action`: copy, verify (`only`: one
    version's id, also of one that is gone here), fetch.

    Raises NotFound (no such target or version). What goes wrong at a target is its `error`.
    """
    chosen = targets.names(config, name)
    if not chosen:
        raise NotFound(
            "no backup target is configured",
            mend="write [backups.NAME] with target = … into config.toml",
        )
    wanted = None
    if version is not None and action == "verify":
        only = int(_spelled(state, version).removeprefix("v") or 0)
    elif version is not None and action == "copy":
        wanted = get(state, version)
    results = []
    for one in chosen:
        target = targets.open_target(config, one)
        result = _empty(target)
        try:
            with _turn(state, target, cancelled):
                match action:
                    case "copy":
                        _copy(
                            state, target, config.backups[one], wanted, result, progress, cancelled
                        )
                    case "verify":
                        _verify(state, target, only, result, cancelled)
                    case "fetch":
                        _fetch(state, target, version, alone, result, progress, cancelled)
            _well(state, target)
        except BrokenOff as error:
            result["error"] = str(error)
        except (TrainctlError, OSError) as error:
            result["error"] = str(error)
            if isinstance(error, VerificationFailed) and action == "fetch":
                result["damaged"].append({"version": version or "", "problem": str(error)})
            elif action != "fetch":
                _unwell(state, target, str(error))
        result["same_disk"] = targets.same_disk(state.home, target)
        results.append(result)
    return results


def pending(state: State, rules: Backup, name: str) -> list[Version]:
    """The verified versions that a target lacks and its rules would keep, newest first."""
    found = copies.copies(state, name)
    # A damaged copy is made anew from a version that is good here.
    there = {c.version for c in found if c.state in (VERIFIED, copies.DELETING)}
    good = [v for v in versions(state) if v.state == "verified"]
    lacking = [v for v in good if v.id not in there]
    moments = [(c.version, c.created) for c in found if c.state == VERIFIED]
    moments += [(v.id, v.created) for v in lacking]
    reasons = copies.kept(moments, rules, {v.id for v in good if v.pinned})
    return [v for v in reversed(lacking) if reasons[v.id]]


def look_after(state: State, config: Config, cancelled: Cancelled) -> list[str]:
    """What is due at the targets: copies by their `when`, and reading back by `verify_days`.

    For the engine's keeper, every minute. Returns a hint for each target that is in trouble.
    """
    for name, rules in config.backups.items():
        if cancelled():
            break
        known = targets.remembered(state, name)
        if known.get("failures") and known.get("next", 0.0) > time.time():
            continue
        today = time.strftime("%Y-%m-%d")
        daily = rules.when == "daily" and known.get("copied_on") != today
        if rules.when == "version" or daily:
            if pending(state, rules, name) or _begun(state, name):
                failed = run(state, config, name=name, cancelled=cancelled)[0]["error"]
                if failed:
                    continue
            if daily:
                targets.remember(state, name, copied_on=today)
        if stale := _stale(state, rules, name):
            run(state, config, name=name, action="verify", only=stale.version, cancelled=cancelled)
    return hints(state, config)


def hints(state: State, config: Config) -> list[str]:
    """A line for each target that could not be used the last time."""
    found = []
    for name in config.backups:
        error = targets.remembered(state, name).get("error", "")
        if error:
            found.append(f"backup {name}: {error}")
    return found


def notes(results: list[Json], state: State) -> list[str]:
    """What a person should know beside the result: no copy elsewhere, or one on the same disk."""
    said = [f"{r['target']}: {SAME_DISK}" for r in results if r["same_disk"]]
    if not any(copy.state == VERIFIED for copy in copies.copies(state)):
        said.append(HARD_LINKS)
    return said


def holders(state: State, version_id: int) -> list[str]:
    """The targets that have a verified copy of a version, the newest verified first."""
    found = [c for c in copies.copies(state, version=version_id) if c.state == VERIFIED]
    return [c.target for c in sorted(found, key=lambda c: -(c.verified_at or 0))]


def _copy(
    state: State,
    target: Target,
    rules: Backup,
    wanted: Version | None,
    result: Json,
    progress: Progress,
    cancelled: Cancelled,
) -> None:
    targets.ready(state, target)
    transfer.finish(state, target)
    name = target.place.name
    chosen = pending(state, rules, name) if wanted is None else [wanted]
    if wanted is not None:
        have = copies.copies(state, name, wanted.id)
        chosen = [] if have and have[0].state == VERIFIED else chosen
    failed: TrainctlError | None = None
    for version in chosen:
        try:
            transfer.copy(state, target, rules, version, progress, cancelled)
            result["copied"].append(version.name)
        except VerificationFailed as error:
            # This one is damaged, here or on its way; the others may be well.
            result["damaged"].append({"version": version.name, "problem": str(error)})
            failed = error
    spared = {version.id for version in chosen} if wanted is not None else set()
    if failed is None:
        result["removed"] = transfer.retain(state, target, rules, spared)
    else:
        raise failed


def _verify(
    state: State, target: Target, only: int | None, result: Json, cancelled: Cancelled
) -> None:
    targets.ready(state, target)
    for row in copies.copies(state, target.place.name):
        if cancelled():
            raise BrokenOff("broken off: the engine is ending")
        if only not in (None, row.version) or row.state not in (VERIFIED, DAMAGED):
            continue
        problems = transfer.verify(state, target, row, cancelled)
        if problems:
            result["damaged"].append({"version": row.name, "problem": problems[0]})
        else:
            result["verified"].append(row.name)


def _fetch(
    state: State,
    target: Target,
    name: str | None,
    alone: bool,
    result: Json,
    progress: Progress,
    cancelled: Cancelled,
) -> None:
    if alone:
        targets.adopt_home(state, target)
    targets.ready(state, target)
    for one in fetching.fetchable(target) if name is None else [_spelled(state, name)]:
        fetching.fetch(state, target, one, progress, alone=alone, cancelled=cancelled)
        result["fetched"].append(one)


def _spelled(state: State, name: str) -> str:
    """v012 for 12 and for a tag that is known here."""
    if name.isdecimal():
        return f"v{int(name):03}"
    try:
        return get(state, name).name
    except NotFound:
        return name


class _turn:
    """One run a target at a time; others wait for it, and break off when they must."""

    def __init__(self, state: State, target: Target, cancelled: Cancelled) -> None:
        key = (str(state.home.store), target.place.name)
        with _busy_guard:
            self._lock = _busy.setdefault(key, threading.Lock())
        self._cancelled = cancelled

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=programs.POLL_SECONDS):
            if self._cancelled():
                raise BrokenOff("broken off: the engine is ending")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _well(state: State, target: Target) -> None:
    known = targets.remembered(state, target.place.name)
    if known.get("error"):
        with state.transaction():
            text = f"backup target {target.place.name} works again"
            journal.record(state, "backup.back", text, data={"target": target.place.name})
            targets.remember(state, target.place.name, error="", failures=0, next=0.0)


def _unwell(state: State, target: Target, why: str) -> None:
    """Told once in the journal while the reason stays the same; the next try comes later."""
    name = target.place.name
    known = targets.remembered(state, name)
    failures = int(known.get("failures", 0)) + 1
    wait = min(RETRY_SECONDS * 2 ** min(failures - 1, 20), RETRY_MOST)
    with state.transaction():
        if known.get("error") != why:
            journal.record(
                state, "backup.failed", f"backup target {name}: {why}", data={"target": name}
            )
        targets.remember(state, name, error=why, failures=failures, next=time.time() + wait)


def _begun(state: State, name: str) -> bool:
    return any(c.state == copies.DELETING for c in copies.copies(state, name))


def _stale(state: State, rules: Backup, name: str) -> copies.Copy | None:
    """The copy whose reading back is the longest due, if one is."""
    if not rules.verify_days:
        return None
    due = time.time() - rules.verify_days * DAY
    found = [
        c for c in copies.copies(state, name) if c.state == VERIFIED and (c.verified_at or 0) < due
    ]
    return min(found, key=lambda c: c.verified_at or 0, default=None)


def _empty(target: Target) -> Json:
    return {
        "target": target.place.name,
        "place": str(target),
        "same_disk": False,
        "copied": [],
        "removed": [],
        "verified": [],
        "damaged": [],
        "fetched": [],
        "error": "",
    }
