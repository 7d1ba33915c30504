"""Children of a backup: `python -m snapshots.copying copy SOURCE TARGET` and `… sums FOLDER`.

`copy` brings the named files (NUL-separated on stdin) from folder to folder, going on where a
killed one stopped, and syncs them; a line with the bytes done comes now and then. `sums` reads
a folder against its manifest and prints the SHA-256 of every file, for hosts without BLAKE3.
Must never judge a copy: what went on from a cut file is read back by whoever asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from queue_store import durable
from queue_store.errors import TrainctlError
from snapshots.digest import BLOCK, open_regular
from snapshots.manifest import MANIFEST, read_manifest

TELL_SECONDS = 0.5
FAILED = 5


def copy(source: Path, target: Path, names: list[str]) -> None:
    """Copy `names` into the existing folder `target`. A file that is there is gone on with from
    its last whole block. Raises OSError."""
    done = 0
    for name in names:
        place = target / name
        durable.make_folder(place.parent)
        with open_regular(source / name) as reader:
            size = os.fstat(reader.fileno()).st_size
            if place.is_file() and place.stat().st_size == size:
                done += size  # whole already, perhaps read-only; whoever asked reads it back
                continue
            writer = durable.open_to_continue(place, size, BLOCK)
            reader.seek(writer.tell())
            done += writer.tell()
            with writer:
                done = _pump(reader, writer, done)
        durable.fsync_file(place)
    for folder in {(target / name).parent for name in names} | {target}:
        durable.fsync_folder(folder)
    print(done, flush=True)


def _pump(reader: BinaryIO, writer: BinaryIO, done: int) -> int:
    told = time.monotonic()
    while block := reader.read(BLOCK):
        writer.write(block)
        done += len(block)
        if time.monotonic() > told + TELL_SECONDS:
            print(done, flush=True)
            told = time.monotonic()
    return done


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 by name, of files whose BLAKE3 is that of the manifest. Raises TrainctlError."""
    found = {MANIFEST: hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()}
    for entry in read_manifest(folder).files:
        ours, theirs = blake3(), hashlib.sha256()
        with open_regular(folder / entry.name) as file:
            while block := file.read(BLOCK):
                ours.update(block)
                theirs.update(block)
        if ours.hexdigest() != entry.blake3:
            raise TrainctlError(f"{entry.name} differs from what was written", where=str(folder))
        found[entry.name] = theirs.hexdigest()
    return found


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["copy", source, target]:
                names = sys.stdin.buffer.read().decode().split("\0")
                copy(Path(source), Path(target), [name for name in names if name])
            case ["sums", folder]:
                print(json.dumps(sums(Path(folder))))
            case _:
                print("usage: python -m snapshots.copying copy|sums FOLDER …", file=sys.stderr)
                return 2
    except OSError as error:
        print(f"{error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return FAILED
    except TrainctlError as error:
        print(error, file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
