"""A backup target on another host: rsync over SSH moves the bytes, sha256sum there reads them.

The remote side needs a POSIX shell, rsync and coreutils, nothing of ours. What runs there are
the constant scripts below; paths reach them as quoted arguments, never as text of a script.
Must never ask a person for anything, nor accept a host key that nobody has seen.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from queue_store import programs, ssh
from queue_store.errors import Refused, TrainctlError
from queue_store.places import Place
from queue_store.programs import Cancelled, Ended
from queue_store.safe import safe_line
from snapshots.remote import MARKER, TRASH, Sums, TargetDown

Progress = Callable[[int], None]
SHORT = 120.0
"""Seconds for what moves no bytes."""
MISSING, TAKEN = 44, 43

LOOK = 'if [ -e "$1/$2" ]; then cat -- "$1/$2"; elif [ -e "$1" ] && [ ! -d "$1" ]; then exit 45; \
else exit 44; fi'
MARK = 'umask 077; mkdir -p -- "$1" && set -C && \
cat > "$1/$2" && { sync "$1/$2" "$1" 2>/dev/null || sync; }'
NAMES = 'cd -- "$1" && ls -1A'
FREE = 'df -Pk -- "$1"'
WRITABLE = '[ -w "$1" ] && command -v rsync >/dev/null && command -v sha256sum >/dev/null'
FOLDER = 'umask 077; mkdir -p -- "$1/$2"'
LINK = 'cd -- "$1" || exit 1; from=$2 to=$3; shift 3; for name do \
if [ ! -e "$to/$name" ]; then ln -- "$from/$name" "$to/$name" || exit 1; fi; done'
# `sync` writes the pages out and `dd iflag=nocache count=0` asks the kernel to drop them, so that
# the sums are those of the medium; without root on a host nobody can force that.
SUMS = 'cd -- "$1/$2" || exit 44; find . -exec sync {} + 2>/dev/null || sync; \
find . ! -type d ! -type f -exec echo odd {} \\; ; \
find . -type f -exec dd if={} iflag=nocache count=0 of=/dev/null \\; 2>/dev/null; \
I=; command -v ionice >/dev/null 2>&1 && I="ionice -c 3"; \
$I nice -n 10 find . -type f -exec sha256sum -b {} +'
PUBLISH = 'cd -- "$1" || exit 1; if [ -e "$3" ] || [ -L "$3" ]; then exit 43; fi; \
mv -- "$2" "$3" && { sync . 2>/dev/null || sync; }'
RETIRE = 'cd -- "$1" || exit 1; rm -rf -- "$3" && mv -- "$2" "$3" && \
{ sync . 2>/dev/null || sync; }'
DISCARD = 'rm -rf -- "$1/$2"'


class SshTarget:
    """The acts of a target, done on a host. Each raises TargetDown (no answer), TrainctlError."""

    checked = "every byte was read back on the host (its page cache dropped as far as a user may)"
    needs_sums = True

    def __init__(self, place: Place) -> None:
        self.place = place

    def marker(self) -> bytes | None:
        ended = self._do(LOOK, MARKER, allowed=(0, MISSING))
        return ended.out if ended.status == 0 else None

    def write_marker(self, data: bytes) -> None:
        self._do(MARK, MARKER, stdin=data)

    def names(self) -> set[str]:
        return set(self._do(NAMES).out.decode("utf-8", "replace").splitlines())

    def free(self) -> int:
        fields = self._do(FREE).out.decode("utf-8", "replace").splitlines()[-1].split()
        try:
            return int(fields[3]) * 1024
        except (IndexError, ValueError):
            raise TrainctlError("df gave no free space", where=str(self)) from None

    def writable(self) -> bool:
        return self._do(WRITABLE, allowed=(0, 1, 127)).status == 0

    def link(self, part: str, version: str, names: Sequence[str]) -> None:
        self._do(FOLDER, part)
        # Folders within a version are made by rsync; only what lies at its top is linked.
        top = [name for name in names if "/" not in name]
        if top:
            self._do(LINK, version, part, *top)

    def send(
        self,
        source: Path,
        part: str,
        names: Sequence[str],
        progress: Progress,
        cancelled: Cancelled,
    ) -> None:
        self._do(FOLDER, part)
        told = "\0".join(names).encode()
        self._rsync([f"{source}/", self._remote(part)], told, progress, cancelled)

    def fetch(self, name: str, into: Path, progress: Progress, cancelled: Cancelled) -> None:
        self._rsync([self._remote(name), f"{into}/"], None, progress, cancelled)

    def problems(self, name: str, expected: str, sums: Sums, cancelled: Cancelled) -> list[str]:
        """By SHA-256: a NAS has sha256sum and no BLAKE3. `sums` are those of the source, read
        with the manifest's digests in the same pass."""
        ended = self._do(SUMS, name, allowed=(0, 1, MISSING), cancelled=cancelled, timeout=None)
        if ended.status == MISSING:
            return ["it is not there"]
        found, wrong = {}, []
        for line in ended.out.decode("utf-8", "replace").splitlines():
            digest, _, path = line.partition(" ")
            path = path[1:].removeprefix("./")
            if digest == "odd" or path not in sums:
                wrong.append(f"{safe_line(line)[-80:]} does not belong there")
            found[path] = digest
        for path, digest in sums.items():
            if path not in found:
                wrong.append(f"{path} is missing")
            elif found[path] != digest:
                wrong.append(f"{path} differs from what was written")
        if not wrong and ended.status:
            wrong.append(ssh.last_line(ended.err))
        return wrong

    def publish(self, part: str, name: str) -> None:
        ended = self._do(PUBLISH, part, name, allowed=(0, TAKEN))
        if ended.status == TAKEN:
            raise Refused(f"{name} is there already", where=str(self))

    def retire(self, name: str) -> None:
        self._do(RETIRE, name, TRASH + name)

    def discard(self, name: str) -> None:
        self._do(DISCARD, name, timeout=None)

    def _remote(self, name: str) -> str:
        path = self.place.path.rstrip("/")
        return f"{self.place.host}:{path}/{name}/"

    def _ssh(self) -> list[str]:
        config = self.place.ssh_config
        return ["ssh", *ssh.OPTIONS, *(["-F", config] if config else [])]

    def _do(
        self,
        script: str,
        *arguments: str,
        stdin: bytes = b"",
        allowed: tuple[int, ...] = (0,),
        cancelled: Cancelled = programs.never,
        timeout: float | None = SHORT,
    ) -> Ended:
        """Run a constant script there with the target's folder and `arguments` as "$1", "$2" …"""
        host = self.place.host.replace("[", "").replace("]", "")
        remote = shlex.join(["sh", "-c", script, "trainctl", self.place.path, *arguments])
        command = [*self._ssh(), "--", host, remote]
        ended = programs.run(command, stdin=stdin, cancelled=cancelled, timeout=timeout)
        if ended.status not in allowed:
            raise self._failure(ended)
        return ended

    def _rsync(
        self, paths: list[str], names: bytes | None, progress: Progress, cancelled: Cancelled
    ) -> None:
        # A quote in the path of ssh_config is refused when it is parsed.
        shell = ssh.rsync_shell(self._ssh())
        command = [
            *("rsync", "--recursive", "--times", "--partial", "-s"),
            *("--info=progress2", "--outbuf=L", "--timeout=300", "-e", shell),
            *(["--from0", "--files-from=-"] if names is not None else []),
            *("--", *paths),
        ]

        def told(line: bytes) -> None:
            first = line.split(maxsplit=1)[:1]
            number = first[0].replace(b",", b"") if first else b""
            if number.isdigit():
                progress(int(number))

        ended = programs.run(command, stdin=names or b"", cancelled=cancelled, on_line=told)
        if ended.status:
            raise self._failure(ended)

    def _failure(self, ended: Ended) -> TrainctlError:
        text, where = ended.err, str(self)
        kind = ssh.meaning(text)
        if kind == ssh.HOST_KEY:
            return Refused(
                "the host's key is not the one known here; nothing was sent",
                where=where,
                mend=f"compare it by hand: ssh {self.place.host}",
            )
        if kind == ssh.NOT_LET_IN:
            return Refused(
                "the host lets us not in without a password",
                where=where,
                mend="put this user's public key into its authorized_keys",
            )
        if kind == ssh.FULL:
            return TrainctlError("the target is full", where=where, mend="free some there")
        if kind == ssh.NO_RSYNC:
            return TrainctlError("rsync is not installed there", where=where, mend="install it")
        if ended.status in (255, 10, 12, 30, 35) or ended.status < 0:
            return TargetDown(
                f"not reached: {ssh.last_line(text)}", where=where, mend="tried again later"
            )
        return TrainctlError(f"failed there: {ssh.last_line(text)}", where=where)

    def __str__(self) -> str:
        return str(self.place)
