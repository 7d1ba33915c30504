"""Weights that trained elsewhere, taken over as versions: copied, verified, never pruned by rule.

Such a version is weights alone, on a branch of its own at its own step. The checkpoint that it is
of never lay on this disk: its row is there for the line, marked as gone. `restore` trains on from
one with an optimizer that begins anew. Under the home's lock. Must never write into the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from queue_store import durable, journal, records
from queue_store.database import State, now
from queue_store.errors import VerificationFailed
from queue_store.records import Progress
from snapshots import versions
from snapshots.checkpoints import require_space, sync_and_digest
from snapshots.digest import file_digest, weight_files
from snapshots.publishing import publish
from snapshots.versions import IMPORTED, WEIGHTS, Version


@dataclass(frozen=True)
class Source:
    """A folder with the weights of an older system. `files` are the names in it to copy, `name`
    what it was called there, `step` the optimizer steps that it had trained (0: unknown),
    `created` when it was made there, as that system wrote it; `method` full or lora."""

    folder: Path
    files: tuple[str, ...]
    name: str
    description: str
    step: int
    created: str
    loss: float | None
    val_loss: float | None
    method: str
    base: str
    weights_digest: str

    @property
    def size(self) -> int:
        """Bytes to copy."""
        return sum((self.folder / name).lstat().st_size for name in self.files)


def known(state: State, weights_digest: str) -> Version | None:
    """The version that these weights were taken over as, if they were."""
    return next(
        (
            version
            for version in versions.versions(state)
            if version.kind == IMPORTED and version.weights_digest == weights_digest
        ),
        None,
    )


def take_in(state: State, source: Source) -> Version:
    """Copy the weights into a version of their own and verify it.

    Raises Refused (no room), OSError, VerificationFailed (what was copied is not what was read
    before: nothing of it is left; or it did not read back).
    """
    require_space(state.home, source.size, f"the import of {source.name}")
    number = versions.reserve(state)
    name = f"v{number:03}"
    branch, checkpoint = _line(state, source, name)
    durable.crash_point("import.reserved")
    info = {
        **{"id": number, "name": name, "kind": IMPORTED, "scope": WEIGHTS},
        **{"checkpoint": checkpoint, "checkpoint_name": f"imported-{name}"},
        **{"branch": branch, "step": source.step, "created": now(), "pinned": False},
        **{"description": source.description, "loss": source.loss, "val_loss": source.val_loss},
        "weights_digest": source.weights_digest,
        "model": {"base": source.base, "method": source.method, "base_digest": ""},
        "imported": {"name": source.name, "from": str(source.folder), "created": source.created},
    }
    home = state.home
    tmp = durable.new_tmp(home, "import")
    try:
        for file in source.files:
            durable.copy_file(source.folder / file, tmp / file)
            durable.crash_point("import.copied")
        digests, _, weights = sync_and_digest(tmp)
        _same(source, tmp, digests, weights)
        publish(state, tmp, info, digests)
    except BaseException:
        durable.discard(tmp, home)
        raise
    return versions.verify(state, name)


def _line(state: State, source: Source, name: str) -> tuple[int, int]:
    """The branch and the checkpoint of the version, which no folder here ever held."""
    with state.transaction():
        why = f"imported from {source.name}"
        branch = records.new_branch(state, None, None, source.step, why)
        row = records.insert_checkpoint(
            state,
            name=f"imported-{name}",
            kind=IMPORTED,
            branch=branch,
            step=source.step,
            progress=Progress({}, frozenset()),
            loss=source.loss,
            val_loss=source.val_loss,
            weights_digest=source.weights_digest,
            deleted=now(),
        )
        text = f"checkpoint imported-{name} is elsewhere: {name} has its weights"
        data = {"checkpoint": row, "from": str(source.folder)}
        journal.record(
            state, "checkpoint.removed", text, branch=branch, step=source.step, data=data
        )
    return branch, row


def _same(source: Source, tmp: Path, digests: dict[str, str], weights: str) -> None:
    """Raise VerificationFailed where the copy is not what was looked at. The weights' own digest
    was taken before; the small files are read again."""
    if weights != source.weights_digest:
        raise VerificationFailed("its weights changed while they were copied", where=source.name)
    heavy = {path.name for path in weight_files(tmp)}
    for name, digest in digests.items():
        if name not in heavy and file_digest(source.folder / name) != digest:
            raise VerificationFailed(f"{name} changed while it was copied", where=source.name)
