"""How a host fails, by name: what the channel saw, in words a person can act on.

An exit status of 255 alone says little (ssh, or the worker killed by a signal), so the tail of
stderr and what came before decide. Must never repeat a host's words unfiltered to a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from queue_store import ssh
from queue_store.errors import TrainctlError
from queue_store.safe import safe_line

TRANSIENT = {"unreachable", "worker_died", "session_ended", "frozen", "busy"}
"""Kinds that a later try may not meet."""

MENDS = {
    "unreachable": "tried again later",
    "host_key": "",
    "not_let_in": "put this user's public key into its authorized_keys",
    "no_python": "set python of the host in config.toml to one that has torch and transformers",
    "no_rsync": "install rsync there",
    "no_packages": "install torch, transformers and safetensors for that Python",
    "worker_died": "tried again; what it answered so far is kept",
    "session_ended": "tried again; what it answered so far is kept",
    "frozen": "tried again; what it answered so far is kept",
    "disk_full": "free some there, or set store of the host to another disk",
    "store": "set store of the host to a folder of its own",
    "digest": "verify the version here: trainctl verify",
    "protocol": "is the program at the other end really the worker?",
    "busy": "tried again later",
    "probe": "nothing it answered was kept: restart the worker, or look at the host's packages",
    "no_memory": "a card with more memory, or evaluate elsewhere",
}


class HostFailure(TrainctlError):
    """A host could not do it. `code` is the kind: one of MENDS, "config", "model", "failed".
    It says nothing of the model: no answer is wrong because of it."""

    def __init__(self, kind: str, what: str, *, where: str = "", names: Sequence[str] = ()) -> None:
        super().__init__(safe_line(what)[:500], where=where, mend=MENDS.get(kind, ""))
        self.code = kind
        self.names = tuple(names)

    @property
    def transient(self) -> bool:
        return self.code in TRANSIENT


def ended(status: int, complaint: str, *, started: bool, where: str, host: str) -> HostFailure:
    """What the end of a channel means. `complaint` is the tail of stderr; `started`: the worker
    had said its first word; `host` is the host's name in config.toml."""
    said = ssh.last_line(complaint)
    kind = ssh.meaning(complaint)
    if kind == ssh.HOST_KEY:
        failure = HostFailure(
            "host_key",
            "the host's key is not one that is known here; nothing was sent",
            where=where,
        )
        failure.mend = f"look at it and accept it: trainctl hosts trust {host}"
        return failure
    if kind == ssh.NOT_LET_IN:
        return HostFailure("not_let_in", "the host lets us not in without a password", where=where)
    if kind == ssh.FULL:
        return HostFailure("disk_full", "the host's disk is full", where=where)
    if kind == ssh.NO_RSYNC:
        return HostFailure("no_rsync", "rsync is not installed there", where=where)
    if not started:
        if status in (126, 127):
            return HostFailure("no_python", f"no such Python there: {said}", where=where)
        if status in (1, 2):
            return HostFailure("no_python", f"that Python cannot be used: {said}", where=where)
        return HostFailure("unreachable", f"not reached: {said}", where=where)
    if "closed by" in complaint or "onnection reset" in complaint or "Broken pipe" in complaint:
        return HostFailure("session_ended", f"the connection ended: {said}", where=where)
    if "not responding" in complaint:
        return HostFailure("frozen", "the host does not answer any more", where=where)
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    tail = f": {said}" if complaint.strip() else ""
    return HostFailure("worker_died", f"the worker ended ({how}){tail}", where=where)
