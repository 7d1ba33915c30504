"""The classes of failures, in the words of the attempts, and what a person can do about each.

One table for exceptions inside an engine and for ends of its process. Plain data: who finds out
which class it was is the engine's and the supervisor's affair.
"""

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why a try of an item, or the process that trained it, ended by itself."""

    CUDA_MEMORY = "CUDA out of memory"
    MEMORY = "out of memory"
    CUDA = "CUDA error"
    OOM_KILLER = "killed by the kernel's OOM killer"
    KILLED = "killed"
    HANG = "hang"
    DISK_FULL = "disk full"
    IO = "I/O error"
    DATA = "data"
    CONFIGURATION = "configuration"
    NOT_A_NUMBER = "not a number"
    REFUSED = "refused"
    UNKNOWN = "unknown"


TRANSIENT = frozenset(
    {
        *(Cause.CUDA_MEMORY, Cause.MEMORY, Cause.CUDA, Cause.IO, Cause.DISK_FULL),
        *(Cause.KILLED, Cause.HANG),
    }
)
"""Failures that may not come again: tried `queue.max_attempts` times, with backoff."""

ADVICE: dict[str, str] = {
    Cause.CUDA_MEMORY: "lower training.batch_size or training.max_length, or set"
    " training.gradient_checkpointing; see whether another process holds the card (nvidia-smi)",
    Cause.MEMORY: "lower training.batch_size or training.max_length, or end what else holds memory",
    Cause.CUDA: "see dmesg and nvidia-smi for the card's own errors; one that stays is the"
    " driver's or the card's",
    Cause.OOM_KILLER: "the host ran out of memory: end what else holds it, or train a smaller"
    " configuration",
    Cause.KILLED: "somebody or something ended the process; training went on from the newest"
    " checkpoint",
    Cause.HANG: "read where every thread stood in the stack file; a disk, a driver or a network"
    " folder that does not answer is the usual reason",
    Cause.DISK_FULL: "free some disk: trainctl prune --dry-run shows what the rules would remove",
    Cause.IO: "the disk reports errors: see dmesg and its SMART values, and make a backup now",
    Cause.DATA: "trainctl validate FILE names the lines; mend the file and add it anew",
    Cause.CONFIGURATION: "trainctl config show --origin tells where the setting comes from",
    Cause.NOT_A_NUMBER: "lower training.learning_rate, or look at the rows of this file",
    Cause.UNKNOWN: "the log has the traceback; trainctl retry queues the item again",
    "restart": "the engine ended without a word, as a power cut does; nothing is to be done",
    "crashes": "it ended the engine three times at the same place: look at the file, then retry",
}


def advice(cause: str) -> str:
    """What to do about a cause as it stands on an attempt; "" where there is nothing to say."""
    return ADVICE.get(cause.removesuffix(", retried"), "")
