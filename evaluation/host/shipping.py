"""Weights on their way to a host's store: rsync over ssh, only what the store lacks.

Full fine-tuning changes every byte of the weights, so rsync compares nothing (`--whole-file`, a
third of the time) unless a broken transfer is gone on with; equal small files become links to the
model before. Whether what arrived is right is the worker's to say: it reads every byte.
"""

from __future__ import annotations

from collections.abc import Callable

from evaluation.host.channel import Channel, expect
from evaluation.host.errors import HostFailure, ended
from evaluation.host.machine import Machine
from evaluation.host.shipment import Shipment
from evaluation.host.shipped.store import DIGEST, INCOMING, PARTIAL
from queue_store import programs, ssh
from queue_store.programs import Cancelled

ANSWER_SECONDS = 120.0
LINK_DOWN = (255, 10, 12, 30, 35)
"""Exit codes of rsync for a connection that failed."""

Progress = Callable[[int, int], None]
"""Hears how many bytes were sent, of how many."""


def ship(
    machine: Machine,
    channel: Channel,
    shipment: Shipment,
    *,
    linked: bool = True,
    cancelled: Cancelled = programs.never,
    progress: Progress | None = None,
) -> int:
    """Bring the shipment, and the base of an adapter, to the host's store; bytes that had to go.

    Without `linked` no file becomes a link to that of another model, as rsync makes them where
    size and second are the same: the bytes may differ all the same. Nothing of it is believed
    there before the worker read it. Raises HostFailure, BrokenOff.
    """
    parts = [part for part in (shipment.base, shipment) if part is not None]
    spare = [part.digest for part in parts]
    sent = 0
    for part in parts:
        channel.send(
            {"kind": "prepare", "digest": part.digest, "bytes": part.bytes, "spare": spare}
        )
        ready = expect(channel, "prepared", ANSWER_SECONDS)
        if ready.get("have") is not True:
            previous = str(ready.get("previous", "")) if linked else ""
            whole = ready.get("partial") is not True
            _send(machine, part, previous, whole, cancelled, progress)
            sent += part.bytes
    return sent


def _send(
    machine: Machine,
    part: Shipment,
    previous: str,
    whole: bool,
    cancelled: Cancelled,
    progress: Progress | None,
) -> None:
    assert machine.place is not None
    path = machine.place.path.rstrip("/")
    # The store's files are read-only and keep their times: only then can rsync link them.
    command = [
        *("rsync", "--times", "--perms", "--chmod=F0400", "--copy-links", "-s"),
        *("--whole-file" if whole else "--no-whole-file", f"--partial-dir={PARTIAL}"),
        *([f"--link-dest=../{previous}"] if DIGEST.fullmatch(previous) else []),
        *("--info=progress2", "--outbuf=L", "--timeout=120"),
        *("-e", ssh.rsync_shell(machine.ssh())),
        *("--", *(file["path"] for file in part.files)),
        f"{machine.place.host}:{path}/{INCOMING}{part.digest}/",
    ]

    def told(line: bytes) -> None:
        first = line.split(maxsplit=1)[:1]
        number = first[0].replace(b",", b"") if first else b""
        if progress is not None and number.isdigit():
            progress(int(number), part.bytes)

    done = programs.run(command, cancelled=cancelled, on_line=told)
    if done.status == 0:
        return
    if done.status == 127:
        raise HostFailure("no_rsync", "rsync is not installed there", where=machine.where)
    failure = ended(done.status, done.err, started=False, where=machine.where, host=machine.name)
    if failure.code in ("no_python", "unreachable") and done.status not in LINK_DOWN:
        what = f"rsync failed: {ssh.last_line(done.err)}"
        failure = HostFailure("failed", what, where=machine.where)
    raise failure
