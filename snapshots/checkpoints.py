"""Checkpoints on disk: written beside, digested, synced, published, and then one transaction.

    with CheckpointWriter(state, needed=bytes) as writer:
        save_state(writer.folder, ...)             # the engine's files
        writer.commit(branch=..., step=..., ...)   # from here on it is the head

At every moment the head is either the old checkpoint or the new one, complete: what was not
committed is a leftover under store/tmp, or a published folder that `upkeep.recover` adopts.
Must never write into a published folder, and never call a folder good that it did not read.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from queue_store import durable, records
from queue_store.database import CommitUnknown, State, now
from queue_store.errors import NotFound, Refused, VerificationFailed
from queue_store.home import Home
from queue_store.records import Checkpoint
from snapshots import ledger_line, manifest
from snapshots.digest import file_digests, weights_digest

LEDGER = ".ledger.json"
LEDGER_VERSION = 3
MARGIN = 64 << 20
"""Bytes that stay free beside a checkpoint, for the databases and their logs."""

_in_use: Counter[int] = Counter()
_in_use_lock = threading.Lock()


@dataclass(frozen=True)
class Ledger:
    """The .ledger.json of a checkpoint: what one reads on the disk without any database, and
    what `upkeep.recover` needs to finish a commit that a kill cut off.

    `item_cursor` is the cursor of `item`, `cursors` {item id: [cursor in rows, step]} those of
    all unfinished items, `rows` how many rows this branch has trained; `finished`, `frozen` and
    `line` are those of ledger_line, empty in ledgers of before version 3; `rendering` is that of
    records.Progress. Other names as in the checkpoint's row and in older ledgers.
    """

    id: int
    kind: str
    canonical_name: str
    timestamp: str
    branch: int
    step: int
    run: int | None
    parent: int | None
    item: int | None
    item_cursor: int
    cursors: dict[int, tuple[int, int]]
    train_loss: float | None
    val_loss: float | None
    learning_rate: float | None
    training_file: str
    total_examples_trained: int
    size_bytes: int
    has_optimizer: bool
    weights_digest: str
    files: dict[str, dict[str, Any]]
    created_by: str
    finished: str = ""
    frozen: dict[str, dict[str, Any]] = field(default_factory=dict)
    line: list[list[int]] = field(default_factory=list)
    ledger_version: int = LEDGER_VERSION
    trained: list[int] | None = None
    """Items whose last row is in this checkpoint and that it makes done; None in ledgers of
    before: all that were trained."""
    rendering: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"

    @staticmethod
    def read(folder: Path) -> Ledger:
        """The ledger of a checkpoint's folder. Raises VerificationFailed."""
        try:
            raw = json.loads((folder / LEDGER).read_bytes())
            raw["cursors"] = {int(k): (int(v[0]), int(v[1])) for k, v in raw["cursors"].items()}
            return Ledger(**raw)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise VerificationFailed(f"no usable ledger: {error}", where=str(folder)) from None


def made_by() -> str:
    """The program and its version, as manifests and ledgers name it."""
    try:
        return f"trainctl {version('trainctl')}"
    except PackageNotFoundError:
        return "trainctl"


def folder_of(home: Home, checkpoint: Checkpoint) -> Path:
    """Where a checkpoint's files are. The base model (kind "base") has none of its own."""
    return home.checkpoints / checkpoint.name


def require_space(home: Home, needed: int, what: str) -> None:
    """Raise Refused, with the numbers, where fewer than `needed` bytes and a margin are free."""
    free = durable.free_bytes(home.store)
    if free < needed + MARGIN:
        raise Refused(
            f"not enough disk for {what}: needs {_gb(needed + MARGIN)}, {_gb(free)} are free",
            where=str(home.store),
            mend="free some; nothing was changed",
        )


def free_name(state: State, step: int, checkpoint_id: int) -> str:
    """checkpoint-{step}-{YYYYMMDD}-{HHMM}, local time, with the id where that is taken."""
    name = time.strftime(f"checkpoint-{step}-%Y%m%d-%H%M", time.localtime(now()))
    row = state.db.execute("SELECT 1 FROM checkpoints WHERE name = ?", (name,)).fetchone()
    if row is not None or (state.home.checkpoints / name).exists():
        return f"{name}-{checkpoint_id}"
    return name


class CheckpointWriter:
    """Writes one checkpoint. Made, drafted and registered on the engine's thread, with the home's
    lock held; between the two `publish` may run on another thread, beside training.

    `needed`: estimate of its size in bytes; by default the size of the newest one.
    Raises Refused where that does not fit on the disk, before anything is written.
    """

    def __init__(self, state: State, needed: int | None = None) -> None:
        self._state = state
        self._home = state.home
        self._needed = needed if needed is not None else _newest_size(state)
        self._started = time.monotonic()
        self._target: Path | None = None
        self._done = False
        self.folder: Path

    def __enter__(self) -> CheckpointWriter:
        require_space(self._home, self._needed, "a checkpoint")
        self.folder = durable.new_tmp(self._home, "checkpoint")
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove what was written, unless it is registered. Idempotent, on any thread."""
        if self._done:
            return
        self._done = True
        renamed = self._target is not None and not self.folder.exists()
        durable.discard(self._target if renamed and self._target else self.folder, self._home)

    def draft(
        self,
        *,
        branch: int,
        step: int,
        run: int,
        item: int | None,
        cursors: dict[int, tuple[int, int]],
        loss: float | None,
        val_loss: float | None,
        learning_rate: float | None,
        trained: list[int] | None = None,
        file: str = "",
        rows: int = 0,
        rendering: dict[str, str] | None = None,
    ) -> Ledger:
        """The ledger of the state as it stands at this moment; the files are not known yet.

        `cursors` and `trained` as in records.commit_checkpoint; `file` the current item's name,
        `rows` trained on this branch so far. Until it is registered or discarded the head must
        not move and no other checkpoint may get a row: name, id and parent are taken here.
        """
        before = records.head(self._state)
        checkpoint_id = records.next_checkpoint_id(self._state)
        return Ledger(
            id=checkpoint_id,
            kind="saved",
            canonical_name=free_name(self._state, step, checkpoint_id),
            timestamp=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            branch=branch,
            step=step,
            run=run,
            parent=before.checkpoint.id if before else None,
            item=item,
            item_cursor=cursors.get(item, (0, 0))[0] if item is not None else 0,
            cursors=cursors,
            train_loss=loss,
            val_loss=val_loss,
            learning_rate=learning_rate,
            training_file=file,
            total_examples_trained=rows,
            size_bytes=0,
            has_optimizer=False,
            weights_digest="",
            files={},
            created_by=made_by(),
            trained=trained,
            rendering=rendering or {},
            **ledger_line.of_save(self._state, cursors, run, trained),
        )

    def publish(self, draft: Ledger) -> tuple[Ledger, manifest.Manifest]:
        """Digest, sync and seal what is in `folder` and give it its name. Uses no database, so
        that any thread may do it. Raises OSError: then discard."""
        durable.crash_point("checkpoint.written")
        digests, sizes, weights = sync_and_digest(self.folder)
        durable.crash_point("checkpoint.hashed")
        ledger = replace(
            draft,
            size_bytes=sum(sizes.values()),
            has_optimizer=any(name.startswith("optimizer") for name in sizes),
            weights_digest=weights,
            files={n: {"size": sizes[n], "blake3": digests[n]} for n in sizes},
        )
        sealed = seal(self.folder, ledger, digests)
        self._target = self._home.checkpoints / ledger.canonical_name
        durable.publish(self.folder, self._target, synced=[*sizes, LEDGER, manifest.MANIFEST])
        return ledger, sealed

    def register(
        self, ledger: Ledger, sealed: manifest.Manifest, *, stall: float | None = None
    ) -> Checkpoint:
        """Make what was published the head. Raises sqlite3.Error, TrainctlError: then nothing of
        it is left; and CommitUnknown, which leaves its files for the next start to judge."""
        seconds = time.monotonic() - self._started
        try:
            found = register(self._state, ledger, sealed, seconds=seconds, stall=stall)
        except CommitUnknown:
            self._done = True
            raise
        except BaseException:
            self.discard()
            raise
        self._done = True
        return found

    def commit(self, **moment: Any) -> Checkpoint:
        """Make what is in `folder` the head: draft (which takes `moment`), publish, register.

        Raises OSError, sqlite3.Error, TrainctlError: then the old head stands and nothing of
        the new one is left.
        """
        ledger, sealed = self.publish(self.draft(**moment))
        return self.register(ledger, sealed)


def register(
    state: State,
    ledger: Ledger,
    sealed: manifest.Manifest,
    *,
    seconds: float = 0.0,
    stall: float | None = None,
) -> Checkpoint:
    """The one transaction that makes a published checkpoint the head."""
    return records.commit_checkpoint(
        state,
        name=ledger.canonical_name,
        branch=ledger.branch,
        step=ledger.step,
        run=ledger.run or 0,
        item=ledger.item,
        cursors=ledger.cursors,
        size_bytes=sealed.size_bytes,
        loss=ledger.train_loss,
        val_loss=ledger.val_loss,
        learning_rate=ledger.learning_rate,
        manifest_digest=sealed.digest,
        weights_digest=sealed.weights_digest,
        seconds=seconds,
        stall=stall,
        trained=ledger.trained,
        rendering=ledger.rendering,
    )


def seal(folder: Path, ledger: Ledger, digests: dict[str, str]) -> manifest.Manifest:
    """Write the ledger and then the manifest, both synced; `digests` of the other files."""
    durable.write_new(folder / LEDGER, ledger.to_json())
    made = manifest.build(
        folder,
        kind="checkpoint",
        id=ledger.id,
        made_by=ledger.created_by,
        created=ledger.timestamp,
        digests=digests,
        weights=ledger.weights_digest,
    )
    durable.write_new(folder / manifest.MANIFEST, made.to_json())
    durable.crash_point("checkpoint.sealed")
    return made


def sync_and_digest(folder: Path) -> tuple[dict[str, str], dict[str, int], str]:
    """Sync every file of the folder and hash it meanwhile: digests and sizes by name, and the
    weights' digest. The disk is what takes the time; the hashes read the page cache."""
    names = manifest.file_names(folder)
    paths = [folder / name for name in names]
    with ThreadPoolExecutor(1, thread_name_prefix="fsync") as pool:
        syncs = [pool.submit(durable.fsync_file, path) for path in paths]
        digests = dict(zip(names, file_digests(paths), strict=True))
        weights = weights_digest(folder)
        for sync in syncs:
            sync.result()
    return digests, {name: (folder / name).stat().st_size for name in names}, weights


def open_checkpoint(state: State, checkpoint: Checkpoint, *, deep: bool = True) -> Path:
    """The folder of a checkpoint whose files are as recorded.

    Raises NotFound (the base model, or removed by rule) and VerificationFailed.
    """
    if checkpoint.kind == "base":
        raise NotFound("checkpoint 0 is the base model; it has no files of its own")
    if checkpoint.deleted is not None:
        raise NotFound(
            f"checkpoint {checkpoint.name} was removed by rule",
            mend="trainctl checkpoints lists those that are there",
        )
    folder = folder_of(state.home, checkpoint)
    problems = manifest.check(folder, deep=deep, expected=checkpoint.manifest_digest)
    manifest.refuse(problems, folder, "the newest good one is used; this one can be set apart")
    return folder


def newest_verified(state: State) -> tuple[Checkpoint, list[tuple[Checkpoint, str]]]:
    """The newest complete checkpoint on the head's line (every byte read), and the damaged ones
    that were passed over, each with what is wrong. The base model ends every line.

    Raises NotFound in a home that has no head.
    """
    head = records.head(state)
    if head is None:
        raise NotFound("nothing has trained here yet")
    damaged: list[tuple[Checkpoint, str]] = []
    for checkpoint in line(state, head.checkpoint):
        if checkpoint.deleted is not None:
            continue
        if checkpoint.kind == "base":
            return checkpoint, damaged
        try:
            open_checkpoint(state, checkpoint)
            return checkpoint, damaged
        except VerificationFailed as error:
            damaged.append((checkpoint, str(error)))
    raise VerificationFailed("no checkpoint of this line is complete", where=str(state.home.store))


def line(state: State, checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """A checkpoint and those that it came from, newest first, down to the base model."""
    while True:
        yield checkpoint
        if checkpoint.parent is None:
            return
        checkpoint = records.checkpoint(state, checkpoint.parent)


@contextmanager
def using(checkpoint: Checkpoint) -> Iterator[None]:
    """While the block runs no thread of this process removes the checkpoint."""
    with _in_use_lock:
        _in_use[checkpoint.id] += 1
    try:
        yield
    finally:
        with _in_use_lock:
            _in_use[checkpoint.id] -= 1


@contextmanager
def claimed_for_removal(checkpoint: Checkpoint) -> Iterator[bool]:
    """Whether nobody uses the checkpoint; nobody can begin to until the block ends."""
    with _in_use_lock:
        yield _in_use[checkpoint.id] == 0


def _newest_size(state: State) -> int:
    row = state.db.execute("SELECT size_bytes FROM checkpoints ORDER BY id DESC").fetchone()
    return 0 if row is None else int(row[0])


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
