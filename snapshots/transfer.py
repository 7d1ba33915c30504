"""A version to a target, read back, and away from there again.

    beside (.part-v012)  ->  read back by digest  ->  its name  ->  one transaction
    an event and `deleting`  ->  its name taken from it  ->  removed  ->  the row

A copy has a version's name only after its bytes were read back there. A kill at any point leaves
a part that the next try goes on with, or a named copy without a row, which is read and adopted.
Must never replace a good copy, nor remove one that is not an event first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from queue_store import durable, journal, programs
from queue_store.config import Backup
from queue_store.database import State
from queue_store.errors import Refused, TrainctlError, VerificationFailed
from queue_store.programs import Cancelled
from snapshots import copies, inuse, manifest
from snapshots.checkpoints import MARGIN
from snapshots.copies import DAMAGED, DELETING, FAILED, VERIFIED, Copy
from snapshots.remote import PART, TRASH, Sums
from snapshots.targets import VERSION, Target
from snapshots.versions import BASE, INFO, TRAINING_ONLY, Version, version_folder, versions

FRESH_SECONDS = 24 * 3600.0
"""A copy goes by rule only while a newer one was read back within this time."""
LINK_FROM = 5
"""How many copies are looked through for files that need not be sent again."""
Progress = Callable[[str, int, int], None]
"""(version, bytes done, bytes in all), from any thread, a few times a second."""


@dataclass(frozen=True)
class Source:
    """What is copied: a folder with its manifest, and the files' names, the manifest's last."""

    folder: Path
    sealed: manifest.Manifest

    @property
    def names(self) -> list[str]:
        return [*(entry.name for entry in self.sealed.files), manifest.MANIFEST]


def copy(
    state: State,
    target: Target,
    rules: Backup,
    version: Version,
    progress: Progress,
    cancelled: Cancelled = programs.never,
) -> None:
    """Bring a verified version to a target that is `ready`, and read it back there.

    Raises TrainctlError (also TargetDown, BrokenOff), OSError; the row then says why.
    """
    name = target.place.name
    if version.state != "verified":
        raise Refused(
            f"{version.name} is {version.state}: only verified versions are copied",
            mend=f"trainctl verify {version.name}",
        )
    with inuse.holding(version.name), _source(state, version, rules.what) as source:
        try:
            _copy(state, target, version, source, progress, cancelled)
        except (TrainctlError, OSError) as error:
            if not isinstance(error, programs.BrokenOff):
                _failed(state, name, version, source, str(error))
            raise


def _copy(
    state: State,
    target: Target,
    version: Version,
    source: Source,
    progress: Progress,
    cancelled: Cancelled,
) -> None:
    digest, size = source.sealed.digest, source.sealed.size_bytes
    sums = _sums(state, target, version.id, source, cancelled)
    row = _row(state, target, version.id)
    there = target.names()
    named = version.name in there and (row is None or row.state != DAMAGED)
    # Killed between its name and its row, or back on a disk that was away.
    if named and not target.problems(version.name, digest, sums, cancelled):
        _commit(state, target, version, source)
        return
    part = PART + version.name
    if part not in there and target.free() < size + MARGIN:
        raise Refused(
            f"not enough room for {version.name}: needs {_gb(size + MARGIN)}, "
            f"{_gb(target.free())} are free",
            where=str(target),
            mend="free some there, or keep fewer copies",
        )
    told = _telling(progress, version.name, size)
    linked = _link(state, target, version, source, part)
    durable.crash_point("backup.linked")
    left = [name for name in source.names if name not in linked]
    target.send(source.folder, part, left, told, cancelled)
    durable.crash_point("backup.sent")
    problems = target.problems(part, digest, sums, cancelled)
    if problems:
        # What a killed try or a bad cable left is not gone on with twice.
        target.discard(part)
        durable.crash_point("backup.again")
        target.send(source.folder, part, source.names, told, cancelled)
        problems = target.problems(part, digest, sums, cancelled)
    if problems:
        target.discard(part)
        raise VerificationFailed(
            f"{version.name} arrived damaged twice: {problems[0]}",
            where=str(target),
            mend="the disk, the cable or the memory there is not to be trusted",
        )
    durable.crash_point("backup.verified")
    if version.name in there:
        with state.transaction():
            text = f"the damaged copy of {version.name} at {target.place.name} is replaced"
            journal.record(state, "backup.replaced", text, data=_data(target, version.name))
        durable.crash_point("backup.replacing")
        target.retire(version.name)
        durable.crash_point("backup.retired")
    target.publish(part, version.name)
    durable.crash_point("backup.published")
    _commit(state, target, version, source)
    durable.crash_point("backup.committed")


def _commit(state: State, target: Target, version: Version, source: Source) -> None:
    with state.transaction():
        copies.put(
            state,
            target.place.name,
            version.id,
            as_state=VERIFIED,
            created=version.created,
            size_bytes=source.sealed.size_bytes,
            digest=source.sealed.digest,
        )
        text = f"{version.name} copied to {target.place.name}: {target.checked}"
        journal.record(
            state,
            "backup.copied",
            text,
            branch=version.branch,
            step=version.step,
            data=_data(target, version.name),
        )


def _failed(state: State, name: str, version: Version, source: Source, why: str) -> None:
    """A try that failed is in the row, unless a copy stands there already."""
    found = [c for c in copies.copies(state, name) if c.version == version.id]
    if found and found[0].state != FAILED:
        return
    with state.transaction():
        copies.put(
            state,
            name,
            version.id,
            as_state=FAILED,
            created=version.created,
            size_bytes=source.sealed.size_bytes,
            digest=source.sealed.digest,
            error=why,
        )


def verify(
    state: State, target: Target, row: Copy, cancelled: Cancelled = programs.never
) -> list[str]:
    """Read a copy back again and record the outcome; what is wrong with it, [] for nothing."""
    if target.needs_sums:
        sums = state.meta_get(_sums_key(row.version, row.manifest_digest))
        if sums is None:
            sums = _sums_of_version(state, row, cancelled)
    else:
        sums = {}
    problems = target.problems(row.name, row.manifest_digest, sums, cancelled)
    with state.transaction():
        if problems:
            copies.mark(state, row, DAMAGED, problems[0])
            text = f"the copy of {row.name} at {row.target} is damaged: {problems[0]}"
            journal.record(state, "backup.damaged", text, data=_data(target, row.name))
        else:
            copies.mark(state, row, VERIFIED)
            text = f"the copy of {row.name} at {row.target} verified: {target.checked}"
            journal.record(state, "backup.verified", text, data=_data(target, row.name))
    return problems


def retain(state: State, target: Target, rules: Backup, spared: set[int]) -> list[str]:
    """Remove the copies that no rule of the target keeps, but those `spared`; their names.

    A copy goes only while a newer one at that target was read back in the last day.
    """
    name = target.place.name
    pinned = {version.id for version in versions(state) if version.pinned}
    good = [c for c in copies.copies(state, name) if c.state == VERIFIED]
    reasons = copies.kept([(c.version, c.created) for c in good], rules, pinned)
    fresh = [c.version for c in good if (c.verified_at or 0) > time.time() - FRESH_SECONDS]
    removed = []
    for row in good:
        if reasons[row.version] or row.version in spared or row.version >= max(fresh, default=0):
            continue
        with state.transaction():
            copies.mark(state, row, DELETING)
            text = f"the copy of {row.name} at {name} is removed: no rule keeps it"
            journal.record(state, "backup.removed", text, data=_data(target, row.name))
        durable.crash_point("backup.deleting")
        removed.append(row.name)
    finish(state, target)
    return removed


def finish(state: State, target: Target) -> None:
    """Finish the removals that were begun, and what a kill left half removed. Idempotent."""
    there = target.names()
    for row in copies.copies(state, target.place.name):
        if row.state == DELETING:
            if row.name in there:
                target.retire(row.name)
            durable.crash_point("backup.gone")
            with state.transaction():
                copies.drop(state, row)
                if not copies.copies(state, version=row.version):
                    key = _sums_key(row.version, row.manifest_digest)
                    state.db.execute("DELETE FROM meta WHERE key = ?", (key,))
            there = target.names()
    for name in sorted(there):
        if name.startswith(TRASH) and VERSION.fullmatch(name.removeprefix(TRASH)):
            target.discard(name)
            durable.crash_point("backup.discarded")
    ours = {version.name for version in versions(state)}
    for name in sorted(there):
        version = name.removeprefix(PART)
        if name.startswith(PART) and VERSION.fullmatch(version) and version not in ours:
            target.discard(name)  # its version is gone: nobody goes on with it


@contextmanager
def _source(state: State, version: Version, what: str) -> Iterator[Source]:
    """The folder that is copied: the version's, or one of links to its weights."""
    folder = version_folder(state.home, version)
    sealed = manifest.read_manifest(folder)
    if sealed.digest != version.manifest_digest:
        raise VerificationFailed(
            f"the manifest of {version.name} is not the one recorded",
            where=str(folder),
            mend=f"trainctl verify {version.name}",
        )
    if any(ord(c) < 0x20 or c == "\\" for entry in sealed.files for c in entry.name):
        raise Refused(f"{version.name} has a file whose name no copy can carry", where=str(folder))
    if what == "whole" or version.scope in ("weights", BASE):
        yield Source(folder, sealed)
        return
    tmp = durable.new_tmp(state.home, "backup")
    try:
        chosen = [e for e in sealed.files if not TRAINING_ONLY.fullmatch(e.name)]
        digests = {entry.name: entry.blake3 for entry in chosen if entry.name != INFO}
        durable.link_tree(folder, tmp, digests)
        info = {**json.loads((folder / INFO).read_bytes()), "scope": "weights"}
        durable.write_new(tmp / INFO, json.dumps(info, indent=1, sort_keys=True).encode() + b"\n")
        # The same words each time: a killed copy is gone on with by the next folder of links.
        made = manifest.build(
            tmp,
            kind=sealed.kind,
            id=sealed.id,
            made_by=sealed.made_by,
            created=sealed.created,
            digests=digests,
            weights=sealed.weights_digest,
        )
        durable.write_new(tmp / manifest.MANIFEST, made.to_json())
        yield Source(tmp, made)
    finally:
        durable.discard(tmp, state.home)


def _link(state: State, target: Target, version: Version, source: Source, part: str) -> set[str]:
    """Files that a verified copy at the target has too (by digest) get a second name there."""
    wanted = {(e.blake3, e.size): e.name for e in source.sealed.files if "/" not in e.name}
    linked: set[str] = set()
    good = [
        c
        for c in copies.copies(state, target.place.name)
        if c.state == VERIFIED and c.version != version.id
    ]
    for row in good[-LINK_FROM:]:
        folder = state.home.versions / row.name
        try:
            have = {(e.blake3, e.size): e.name for e in manifest.read_manifest(folder).files}
        except VerificationFailed:
            continue  # gone here, so its files are not known
        same = [
            name for key, name in wanted.items() if have.get(key) == name and name not in linked
        ]
        if same:
            try:
                target.link(part, row.name, same)
            except (TrainctlError, OSError):
                continue  # a disk without links: they are sent
            linked.update(same)
    return linked


def _sums(state: State, target: Target, version: int, source: Source, cancelled: Cancelled) -> Sums:
    """SHA-256 of a source's files, read together with the manifest's digests; kept."""
    if not target.needs_sums:
        return {}
    key = _sums_key(version, source.sealed.digest)
    found = state.meta_get(key)
    if found is None:
        command = programs.python("snapshots.copying", "sums", str(source.folder))
        ended = programs.run(command, cancelled=cancelled)
        if ended.status:
            raise VerificationFailed(
                ended.err.splitlines()[-1] if ended.err else "reading the version did not finish",
                where=str(source.folder),
                mend="trainctl verify looks at it",
            )
        found = json.loads(ended.out)
        with state.transaction():
            state.meta_set(key, found)
    return {str(name): str(digest) for name, digest in found.items()}


def _sums_of_version(state: State, row: Copy, cancelled: Cancelled) -> Sums:
    folder = state.home.versions / row.name
    problems = manifest.check(folder, deep=False, expected=row.manifest_digest)
    if problems:
        raise Refused(
            f"the sums of {row.name} are not known here any more",
            mend=f"trainctl backup {row.target} --fetch {row.name} reads it back whole",
        )
    command = programs.python("snapshots.copying", "sums", str(folder))
    found: Sums = json.loads(programs.run(command, cancelled=cancelled).out)
    return found


def _sums_key(version: int, digest: str) -> str:
    return f"sums.{version}.{digest[:16]}"


def _row(state: State, target: Target, version: int) -> Copy | None:
    found = copies.copies(state, target.place.name, version)
    return found[0] if found else None


def _telling(progress: Progress, name: str, size: int) -> Callable[[int], None]:
    def told(done: int) -> None:
        progress(name, min(done, size), size)

    return told


def _data(target: Target, name: str) -> dict[str, str]:
    return {"version": name, "target": target.place.name}


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
