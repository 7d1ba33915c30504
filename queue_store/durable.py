"""The one module that makes, syncs, renames, links and deletes files of a home.

A promise about a file on disk is kept here or nowhere: data first, then its name, then the
folder that holds the name. After a failed fsync the kernel marks the pages clean, so nothing
here retries one: the caller discards the file. `crash_point` lets tests kill the process
between any two of these acts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from queue_store.home import Home

CRASH_VARIABLE = "TRAINCTL_CRASH_AT"
_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_crash_counts: dict[str, int] = {}


def crash_point(name: str) -> None:
    """SIGKILL this process if `$TRAINCTL_CRASH_AT` is `name`, or `name:n` at the nth pass."""
    wanted = os.environ.get(CRASH_VARIABLE)
    if not wanted:
        return
    point, _, nth = wanted.partition(":")
    if point != name:
        return
    _crash_counts[name] = _crash_counts.get(name, 0) + 1
    if _crash_counts[name] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def fsync_file(path: Path) -> None:
    """Bring a file's data and size to the medium. Raises OSError: then discard the file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_folder(path: Path) -> None:
    """Bring a folder's names to the medium."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> Path:
    """The folder `path`, the user's alone, made with its parents where missing."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def new_tmp(home: Home, prefix: str) -> Path:
    """A fresh folder under store/tmp; what a crash leaves there is swept at the next start."""
    make_folder(home.tmp)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=home.tmp))


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write and sync a file that does not exist yet. Raises FileExistsError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes, mode: int = 0o600, sync: bool = True) -> None:
    """Put `data` at `path`: readers see the old bytes or the new ones, never a mixture.

    `sync=False` is for files that are only hints (status.json): atomic, but not synced.
    """
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        crash_point("atomic.written")
        Path(name).replace(path)
        crash_point("atomic.renamed")
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if sync:
        fsync_folder(path.parent)


def allocate(path: Path, size: int, home: Home) -> None:
    """A file of `size` bytes that the disk has really set aside, in place of one at `path`.

    Raises OSError where they are not there: then nothing of it is left.
    """
    tmp = new_tmp(home, "allocate")
    try:
        fd = os.open(tmp / "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            os.fsync(fd)
        finally:
            os.close(fd)
        crash_point("allocate.synced")
        (tmp / "file").replace(path)
        crash_point("allocate.renamed")
        fsync_folder(path.parent)
    finally:
        discard(tmp, home)


def rename_no_replace(source: Path, target: Path) -> None:
    """Rename within a filesystem; raises FileExistsError where `target` exists in any form."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "renameat2", None)
    if call is not None:
        done = call(
            _AT_FDCWD,
            os.fsencode(source),
            _AT_FDCWD,
            os.fsencode(target),
            ctypes.c_uint(_RENAME_NOREPLACE),
        )
        if done == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(code, os.strerror(code), str(source), None, str(target))
    # No renameat2 here. One engine holds the home, so the window between the look and the
    # rename is only open to a person who works in the store by hand.
    if target.exists() or target.is_symlink():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def publish(tmp_folder: Path, final_folder: Path, *, synced: Iterable[str] = ()) -> None:
    """Give a finished folder its final name: files synced, folders synced, renamed without
    replacing, both parents synced.

    `synced` are relative names that the caller has synced already. Raises FileExistsError.
    """
    done = set(synced)
    for folder, _, names in os.walk(tmp_folder, topdown=False):
        for name in names:
            path = Path(folder) / name
            if str(path.relative_to(tmp_folder)) not in done:
                fsync_file(path)
        fsync_folder(Path(folder))
    crash_point("publish.synced")
    rename_no_replace(tmp_folder, final_folder)
    crash_point("publish.renamed")
    fsync_folder(final_folder.parent)
    if tmp_folder.parent != final_folder.parent:
        fsync_folder(tmp_folder.parent)
    crash_point("publish.done")


def take_file(source: Path, target: Path) -> None:
    """Move a file to `target` (which must not exist, on the same filesystem) and sync it and both
    folders."""
    rename_no_replace(source, target)
    crash_point("take.renamed")
    fsync_file(target)
    fsync_folder(target.parent)
    fsync_folder(source.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes to `target` (which must not exist), synced, mode 0600."""
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with source.open("rb") as reader, os.fdopen(fd, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)


def open_to_continue(path: Path, size: int, block: int) -> BinaryIO:
    """A file opened for writing where a killed copy of `size` bytes stopped: after its last whole
    `block`, or at its end where it is complete. Made where it is missing. Never follows a link."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    file = os.fdopen(fd, "wb")
    have = os.fstat(fd).st_size
    file.seek(have if have == size else min(have, size) // block * block)
    if have != size:
        file.truncate()
    return file


def link_file(source: Path, target: Path) -> None:
    """A second name for the same bytes (no new disk); copies where links are not possible."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        copy_file(source, target)


def link_tree(source: Path, target: Path, names: Iterable[str]) -> None:
    """Link the files `names` (relative) of `source` into the existing folder `target`."""
    for name in names:
        place = target / name
        make_folder(place.parent)
        link_file(source / name, place)
        crash_point("link.linked")


def make_read_only(folder: Path) -> None:
    """Take the write permission from every file under `folder` (shared inodes included)."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            mode = stat.S_IMODE(path.lstat().st_mode)
            if not path.is_symlink() and mode & 0o222:
                path.chmod(mode & ~0o222)


def remove_file(path: Path) -> None:
    """Unlink a file, if there is one, and sync its folder."""
    if path.exists() or path.is_symlink():
        path.unlink()
        fsync_folder(path.parent)


def discard(path: Path, home: Home) -> int:
    """Remove a file or tree under the store that no row refers to any more.

    Returns the bytes truly freed: a file with other links frees nothing.
    Raises ValueError for a path outside the store.
    """
    if not path.resolve().is_relative_to(home.store.resolve()) or path == home.store:
        raise ValueError(f"{path} is not in {home.store}")
    if not path.exists() and not path.is_symlink():
        return 0
    freed = freed_bytes(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    fsync_folder(path.parent)
    return freed


def rotate(path: Path, keep: int) -> None:
    """Rename a log to `path.1`, older ones to `.2` and on, of which `keep` stay. Not synced: a log
    is no promise."""
    for n in range(keep, 0, -1):
        older = path.with_name(f"{path.name}.{n}")
        newer = path if n == 1 else path.with_name(f"{path.name}.{n - 1}")
        if newer.exists():
            newer.replace(older)


def move_tree(source: Path, target: Path) -> None:
    """Rename a folder or file to `target` (which must not exist) and sync both parents."""
    rename_no_replace(source, target)
    crash_point("move.renamed")
    fsync_folder(target.parent)
    fsync_folder(source.parent)


def inodes(path: Path) -> list[tuple[int, int]]:
    """(device, inode) of every regular file under `path`; [] where it is not there."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            info = (Path(folder) / name).lstat()
            if stat.S_ISREG(info.st_mode):
                found.append((info.st_dev, info.st_ino))
    return found


def freed_bytes(path: Path) -> int:
    """Bytes that unlinking a file or tree would give back: those that no other name holds."""
    if path.is_file() and not path.is_symlink():
        places = [path]
    else:
        places = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    links: dict[tuple[int, int], list[int]] = {}
    for place in places:
        info = place.lstat()
        entry = links.setdefault((info.st_dev, info.st_ino), [0, info.st_nlink, info.st_blocks])
        entry[0] += 1
    return sum(blocks * 512 for seen, named, blocks in links.values() if seen == named)


def discard_beside(path: Path, root: Path) -> None:
    """Remove a file or tree that lies directly in `root`, a folder outside of any store.

    Raises ValueError for another place, OSError.
    """
    if path.parent != root or path.name in ("", ".", ".."):
        raise ValueError(f"{path} is not in {root}")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        fsync_folder(root)
    else:
        remove_file(path)


def free_bytes(path: Path) -> int:
    """Bytes that this user can still write on the filesystem of `path`."""
    return shutil.disk_usage(path).free


def size_of(folder: Path) -> int:
    """Bytes of all files under `folder`, as their length."""
    return sum((Path(f) / n).lstat().st_size for f, _, ns in os.walk(folder) for n in ns)


def make_private(path: Path) -> None:
    """Put a copy in the place of a file that others can change (another owner, other links)."""
    copy = path.with_name(f".{path.name}.{os.getpid()}.part")
    remove_file(copy)
    copy_file(path, copy)
    crash_point("private.copied")
    copy.replace(path)
    crash_point("private.renamed")
    fsync_folder(path.parent)
