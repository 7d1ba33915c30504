"""A backup target that is a folder of this machine: another disk, or one mounted from elsewhere.

Files are copied and read back by children of the lowest priority; names are given here, through
`durable`. Must never write outside its folder, nor follow a link there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from queue_store import durable, programs
from queue_store.errors import Refused, TrainctlError
from queue_store.places import Place
from queue_store.programs import Cancelled
from snapshots.manifest import read_manifest
from snapshots.remote import MARKER, TRASH, Sums, TargetDown
from snapshots.verify import MISMATCH

Progress = Callable[[int], None]


class FolderTarget:
    """The acts of a target, done in a folder. Each raises TargetDown (not there), TrainctlError."""

    checked = "every byte was read back from the disk"
    needs_sums = False

    def __init__(self, place: Place) -> None:
        self.place = place
        self.root = place.folder

    def marker(self) -> bytes | None:
        """The marker's bytes; None where the folder is there without one, or can be made."""
        if not self.root.is_dir():
            if self.root.parent.is_dir() and not self.root.exists():
                return None
            raise TargetDown(
                "the folder is not there", where=str(self.root), mend="is the disk mounted?"
            )
        try:
            return (self.root / MARKER).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure("cannot be read", error) from None

    def write_marker(self, data: bytes) -> None:
        try:
            if not self.root.exists():
                self.root.mkdir(mode=0o700)
                durable.fsync_folder(self.root.parent)
            durable.write_new(self.root / MARKER, data)
            durable.fsync_folder(self.root)
        except OSError as error:
            raise self._failure("cannot be written", error) from None

    def names(self) -> set[str]:
        """What lies in the target."""
        try:
            return {entry.name for entry in os.scandir(self.root)}
        except OSError as error:
            raise self._failure("cannot be read", error) from None

    def free(self) -> int:
        return durable.free_bytes(self.root)

    def writable(self) -> bool:
        return os.access(self.root, os.W_OK | os.X_OK)

    def link(self, part: str, version: str, names: Sequence[str]) -> None:
        """Give files of a copy that is there a second name in `part`."""
        for name in names:
            place = self.root / part / name
            source = self.root / version / name
            if place.exists() or place.is_symlink() or source.is_symlink():
                continue
            durable.make_folder(place.parent)
            durable.link_file(source, place)

    def send(
        self,
        source: Path,
        part: str,
        names: Sequence[str],
        progress: Progress,
        cancelled: Cancelled,
    ) -> None:
        """Bring files into `part`, going on where a killed one stopped; synced."""
        durable.make_folder(self.root / part)
        ended = programs.run(
            programs.python("snapshots.copying", "copy", str(source), str(self.root / part)),
            stdin="\0".join(names).encode(),
            cancelled=cancelled,
            on_line=lambda line: progress(int(line)),
        )
        if ended.status:
            mend = "free some there" if "No space" in ended.err else ""
            raise TrainctlError(f"the copy failed: {_last(ended.err)}", where=str(self), mend=mend)

    def problems(self, name: str, expected: str, sums: Sums, cancelled: Cancelled) -> list[str]:
        """What is wrong with a folder of the target, read from its medium; [] is a good copy."""
        command = programs.python("snapshots.verify", str(self.root / name), expected)
        ended = programs.run(command, cancelled=cancelled)
        try:
            answer = json.loads(ended.out)
            if ended.status not in (0, MISMATCH) or answer["ok"] != (ended.status == 0):
                raise ValueError(f"exit status {ended.status}")
        except (ValueError, KeyError, TypeError) as error:
            raise TrainctlError(
                f"reading the copy back did not finish: {error}", where=str(self), mend="again"
            ) from None
        return [str(problem["text"]) for problem in answer["problems"]]

    def publish(self, part: str, name: str) -> None:
        """Give a finished part its name; refuses to replace."""
        durable.make_read_only(self.root / part)
        try:
            durable.publish(self.root / part, self.root / name, synced=self._files(part))
        except FileExistsError:
            raise Refused(f"{name} is there already", where=str(self)) from None

    def _files(self, part: str) -> list[str]:
        # The copying child has synced what it wrote, and a link's bytes are those of a copy.
        return [entry.name for entry in read_manifest(self.root / part).files]

    def retire(self, name: str) -> None:
        """Take a copy's name from it: what is half removed must not pass for a copy."""
        self.discard(TRASH + name)
        durable.rename_no_replace(self.root / name, self.root / (TRASH + name))
        durable.fsync_folder(self.root)

    def discard(self, name: str) -> None:
        """Remove a part or a retired copy, if it is there."""
        if name in self.names():
            durable.discard_beside(self.root / name, self.root)

    def fetch(self, name: str, into: Path, progress: Progress, cancelled: Cancelled) -> None:
        """Bring a copy's files into an existing folder of ours; the caller checks them."""
        source = self.root / name
        names = [entry.name for entry in read_manifest(source).files]
        ended = programs.run(
            programs.python("snapshots.copying", "copy", str(source), str(into)),
            stdin="\0".join([*names, "manifest.json"]).encode(),
            cancelled=cancelled,
            on_line=lambda line: progress(int(line)),
        )
        if ended.status:
            raise TrainctlError(f"the copy failed: {_last(ended.err)}", where=str(self))

    def _failure(self, what: str, error: OSError) -> TrainctlError:
        return TargetDown(f"{what}: {error.strerror or error}", where=str(self.root))

    def __str__(self) -> str:
        return str(self.place)


def _last(text: str) -> str:
    lines = text.splitlines()
    return lines[-1] if lines else "it was killed"
