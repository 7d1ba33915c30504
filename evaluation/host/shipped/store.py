"""The weight store of a host: one folder a model, named by the digest of what it holds.

A model comes by rsync into `.incoming-DIGEST`. Before each loading every byte is read and
compared with the manifest that came in a frame; what is right gets its name and is read-only
from then on. The store is marked at its making. Must never touch a folder without that mark,
nor anything in it that is not named by a digest, but for the two names of what is deployed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.host.shipped.frames import Trouble

MARKER = "trainctl-store.json"
INCOMING = ".incoming-"
PARTIAL = ".rsync-partial"
DIGEST = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
BEST, BEST_FACTS = "best", "best.json"
"""The deployed model: a link to its folder, and a file that says which it is."""
MARGIN = 64 << 20
"""Bytes that are to stay free on the host's disk."""

Files = list[dict[str, Any]]


def digest_of(files: Files, base: str = "") -> str:
    """What a set of files is, as 64 hex digits: SHA-256 over sorted names, sizes and SHA-256s, and
    over the digest of the base where it is an adapter. SHA-256, as a host has no BLAKE3."""
    listing = [base, *sorted([f["name"], f["size"], f["sha256"]] for f in files)]
    return hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises OSError."""
    hasher = hashlib.sha256()
    block = memoryview(bytearray(4 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            hasher.update(block[:count])
    return hasher.hexdigest()


def checked(message: dict[str, Any]) -> tuple[str, Files, str]:
    """Digest, files and base's digest of a frame, nothing of them believed. Raises Trouble."""
    digest, files, base = message.get("digest"), message.get("files"), message.get("base", "")
    named = isinstance(digest, str) and isinstance(base, str)
    if named and base:
        named = DIGEST.fullmatch(base) is not None
    if not named or not DIGEST.fullmatch(str(digest)) or not isinstance(files, list) or not files:
        raise Trouble("digest", "no digest of 64 hexadecimal digits, or no files")
    for file in files:
        fits = isinstance(file, dict) and isinstance(file.get("name"), str)
        if not fits or not NAME.fullmatch(file["name"]):
            raise Trouble("digest", "a file's name is not allowed")
        if type(file.get("size")) is not int or not DIGEST.fullmatch(str(file.get("sha256"))):
            raise Trouble("digest", f"{file['name']} has no size or digest")
    if len({file["name"] for file in files}) != len(files):
        raise Trouble("digest", "a file is named twice")
    if digest_of(files, base) != digest:
        raise Trouble("digest", "the digest is not that of the files it names")
    return str(digest), files, base


def differing(folder: Path, files: Files) -> list[str]:
    """The names of files that are not there as listed, every byte read, and of those too many."""
    listed = {file["name"]: file for file in files}
    wrong = [
        path.name for path in folder.iterdir() if path.name not in listed and path.name != PARTIAL
    ]
    for name, file in listed.items():
        try:
            info = (folder / name).stat()
            same = stat.S_ISREG(info.st_mode) and info.st_size == file["size"]
            if not same or sha256_of(folder / name) != file["sha256"]:
                wrong.append(name)
        except OSError:
            wrong.append(name)
    return sorted(wrong)


class Store:
    """The store at `path`, relative to the login folder. Nothing is made before `prepare`."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser().absolute()
        self._lock = -1

    def facts(self) -> dict[str, Any]:
        """{path, held[{digest, bytes, used}], deployed, free, total, error} for the other side;
        `used` in seconds since the epoch."""
        found: dict[str, Any] = {"path": str(self.path), "held": [], "deployed": {}, "error": ""}
        place = self.path
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            room = shutil.disk_usage(place)
            found |= {"free": room.free, "total": room.total}
            if self.path.exists():
                self._ours()
                found |= {"held": self.held(), "deployed": self.deployed()}
        except Trouble as trouble:
            found["error"] = trouble.text
        except OSError as error:
            found["error"] = f"{error.filename}: {error.strerror}"
        return found

    def held(self) -> list[dict[str, Any]]:
        """The models, the one used last first."""
        found = []
        for folder in self._folders(DIGEST):
            used = folder.stat().st_mtime
            found.append({"digest": folder.name, "bytes": _size(folder), "used": used})
        return sorted(found, key=lambda one: -one["used"])

    def holder(self) -> str:
        """Who has the lock, in words; "" for nobody. Makes nothing."""
        try:
            fd = os.open(self.path / ".lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return ""
        except OSError:
            return os.read(fd, 200).decode("utf-8", "replace") or "another worker"
        finally:
            os.close(fd)

    def open(self, who: str) -> None:
        """Make the store where there is none, and take its lock. Raises Trouble."""
        try:
            if not self.path.exists() or not any(self.path.iterdir()):
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                marker = {"made_by": "trainctl", "created": time.time()}
                (self.path / MARKER).write_text(json.dumps(marker))
            self._ours()
            fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _disk(error, self.path) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            who = os.read(fd, 200).decode("utf-8", "replace") or "another worker"
            os.close(fd)
            raise Trouble("busy", f"the store is in use by {who}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, who.encode()[:200], 0)
        self._lock = fd

    def prepare(self, digest: str, size: int, keep: int, spare: Iterable[str]) -> dict[str, Any]:
        """Make room for a model of `size` bytes: {have, partial, previous, folder}.

        `have`: it is here, none of its bytes looked at yet; `partial`: a transfer was broken off;
        `previous`: a model whose equal files rsync may link. The models used longest ago go, while
        more than `keep` would stay or the disk is short; never those in `spare`, nor what is
        deployed, which does not count. Raises Trouble.
        """
        if not DIGEST.fullmatch(digest):
            raise Trouble("digest", "no digest of 64 hexadecimal digits")
        final, coming = self.path / digest, self.path / (INCOMING + digest)
        if final.is_dir():
            return {"have": True, "partial": False, "previous": "", "folder": str(final)}
        spared = {digest, *spare}
        for folder in self._folders(re.compile(re.escape(INCOMING) + DIGEST.pattern)):
            if folder.name.removeprefix(INCOMING) not in spared:
                self._remove(folder)
        here = _size(coming) if coming.is_dir() else 0
        told = self.deployed()
        spared |= {told.get("digest", ""), told.get("base", "")}
        old = [one["digest"] for one in self.held() if one["digest"] not in spared]
        while len(old) > max(keep - 1, 0) or (old and self._short(size - here)):
            self._remove(self.path / old.pop())
        if self._short(size - here):
            free = shutil.disk_usage(self.path).free
            what = f"{size:,} bytes are to come and {free:,} are free in {self.path}"
            raise Trouble("disk_full", what)
        partial = (coming / PARTIAL).is_dir()
        try:
            coming.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise _disk(error, self.path) from None
        newest = next((one["digest"] for one in self.held()), "")
        return {"have": False, "partial": partial, "previous": newest, "folder": str(coming)}

    def verified(self, digest: str, files: Files) -> Path:
        """The folder of a model whose every byte is as listed. Raises Trouble where that is not
        so: what differs is removed, so that it can come again."""
        final, coming = self.path / digest, self.path / (INCOMING + digest)
        folder = final if final.is_dir() else coming
        if not folder.is_dir():
            raise Trouble("digest", f"the model {digest[:12]} is not on this host")
        wrong = differing(folder, files)
        if wrong:
            if folder == final:
                self._remove(folder)
            for name in wrong if folder == coming else ():
                self._remove(folder / name)
            raise Trouble("digest", f"{wrong[0]} is not what was sent", tuple(wrong))
        if folder == coming:
            self._remove(coming / PARTIAL)
            for path in coming.iterdir():
                path.chmod(0o400)
            coming.rename(final)
            final.chmod(0o500)
        os.utime(final)
        return final

    def deploy(self, digest: str, base: str, about: Any) -> dict[str, Any]:
        """Make a verified model, and the base of an adapter, the one that is served from here:
        what `deployed` says. First the file, then the link, each exchanged in one step: whoever
        follows one of them at any moment finds a whole model. Raises Trouble, OSError."""
        told = {"digest": digest, "base": base, "time": time.time()}
        for key in ("version", "weights_digest"):
            value = about.get(key) if isinstance(about, dict) else None
            if not isinstance(value, str) or len(value) > 200:
                raise Trouble("config", f"no {key} is named")
            told[key] = value
        coming = self.path / f".{BEST_FACTS}"
        with coming.open("w") as file:
            json.dump(told, file)
            file.flush()
            os.fsync(file.fileno())
        coming.replace(self.path / BEST_FACTS)
        link = self.path / f".{BEST}"
        self._remove_link(link)
        link.symlink_to(digest)
        there = self.path / BEST
        if there.exists() and not there.is_symlink():
            raise Trouble("store", f"{there} is not the link that trainctl made")
        link.replace(there)
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return self.deployed()

    def deployed(self) -> dict[str, Any]:
        """{digest, base, version, weights_digest, time} of the deployed model, {} without one."""
        try:
            told = json.loads((self.path / BEST_FACTS).read_bytes()[:4096])
        except (OSError, ValueError):
            return {}
        fits = isinstance(told, dict) and DIGEST.fullmatch(str(told.get("digest")))
        return told if fits else {}

    def _remove_link(self, path: Path) -> None:
        """What a deployment that was broken off left."""
        if path.is_symlink():
            path.unlink()

    def _ours(self) -> None:
        if not (self.path / MARKER).is_file():
            raise Trouble("store", f"{self.path} has no {MARKER}: it is not a store of trainctl")

    def _short(self, more: int) -> bool:
        return shutil.disk_usage(self.path).free < more + MARGIN

    def _folders(self, pattern: re.Pattern[str]) -> list[Path]:
        """Real folders of the store whose whole name fits; a link is not one."""
        with os.scandir(self.path) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if pattern.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]

    def _remove(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise Trouble("store", f"{path} lies outside of the store")
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()


@contextmanager
def linked(files: Files) -> Iterator[Path]:
    """For a worker on the training machine: a folder in which each file is a link to its `path`,
    once every byte was compared. Nothing is copied. Raises Trouble."""
    with tempfile.TemporaryDirectory(prefix="trainctl-worker-") as made:
        folder = Path(made)
        for file in files:
            (folder / file["name"]).symlink_to(str(file["path"]))
        wrong = differing(folder, files)
        if wrong:
            raise Trouble("digest", f"{wrong[0]} is not what was recorded", tuple(wrong))
        yield folder


def _size(folder: Path) -> int:
    return sum((Path(f) / n).lstat().st_size for f, _, names in os.walk(folder) for n in names)


def _disk(error: OSError, path: Path) -> Trouble:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Trouble("disk_full" if full else "store", f"{path}: {error.strerror}")
