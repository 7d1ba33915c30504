"""What kind of failure an exception is: its cause, in the words of queue_store.failures.

Transient causes are tried again; all others fail the item. Two ends concern the whole process:
a CUDA error leaves its context broken, and a disk with I/O errors must not be trusted further.
"""

from __future__ import annotations

import errno
import sqlite3

import torch

from engine.training.controls import NonFinite
from queue_store.config import Training
from queue_store.errors import ConfigError, DataError, ProcessEnd, TrainctlError
from queue_store.failures import Cause

_NO_THREAD = "lower training.threads, or raise the limit of processes and threads: ulimit -u"

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Caused(TrainctlError):
    """A failure whose `cause` is known, in the words of queue_store.failures."""

    def __init__(self, cause: str, what: str, *, where: str = "", mend: str = "") -> None:
        self.cause = cause
        super().__init__(what, where=where, mend=mend)


class StepMemory(Caused):
    """A step did not fit the memory. `where` names the longest row of its batch, `cause` which
    memory it was."""


def out_of_memory(
    cause: str, error: Exception, settings: Training, *, size: int, row: tuple[str, int, int]
) -> StepMemory:
    """What to say where a step of `size` packs at once does not fit: `row` is the (file, tokens,
    line) that made its batch as long as it is."""
    name, tokens, line = row
    mend = f"lower training.batch_size (now {size})"
    if size == 1:
        mend = f"lower training.max_length (now {settings.max_length})"
    if not settings.gradient_checkpointing:
        mend += ", or set training.gradient_checkpointing"
    return StepMemory(
        cause,
        " ".join(str(error).split()) or cause,
        where=f"{name}:{line}, {tokens} tokens",
        mend=mend,
    )


def classify(error: BaseException) -> tuple[str, str]:
    """(cause, one-line message) of an exception that ended an item."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, NonFinite):
        return Cause.NOT_A_NUMBER, message
    if isinstance(error, Caused):
        return error.cause, message
    if isinstance(error, DataError):
        return Cause.DATA, message
    if isinstance(error, ConfigError):
        return Cause.CONFIGURATION, message
    if isinstance(error, TrainctlError):
        return Cause.REFUSED, message
    if isinstance(error, torch.OutOfMemoryError):
        return Cause.CUDA_MEMORY, message
    if isinstance(error, RuntimeError) and "out of memory" in message.lower():
        return (Cause.CUDA_MEMORY if "cuda" in message.lower() else Cause.MEMORY), message
    if "_STATUS_ALLOC_FAILED" in message:  # cuBLAS and cuDNN have words of their own for it
        return Cause.CUDA_MEMORY, message
    if isinstance(error, MemoryError):
        return Cause.MEMORY, message
    if _poisons(error):
        return Cause.CUDA, message
    if isinstance(error, OSError):
        return (Cause.DISK_FULL if error.errno in _FULL else Cause.IO), message
    if isinstance(error, sqlite3.OperationalError):
        if "is full" in message:
            return Cause.DISK_FULL, message
        if "I/O error" in message:
            return Cause.IO, message
    if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in message:
        return Cause.MEMORY, message
    if no_thread(error):
        return Cause.UNKNOWN, f"{message} ({_NO_THREAD})"
    return Cause.UNKNOWN, f"{type(error).__name__}: {message}"


def lacks_memory(error: BaseException) -> str:
    """Which memory was too small (a cause), "" where it was not memory."""
    cause = classify(error)[0]
    return cause if cause in (Cause.CUDA_MEMORY, Cause.MEMORY) else ""


def of_the_machine(error: BaseException) -> bool:
    """Whether memory, device, disk or threads failed: not the fault of what was being loaded."""
    if no_thread(error):
        return True
    if isinstance(error, OSError):
        return error.errno in (*_FULL, errno.EIO, errno.ENOMEM)
    return classify(error)[0] in (Cause.CUDA_MEMORY, Cause.MEMORY, Cause.CUDA)


def no_thread(error: BaseException) -> bool:
    """Whether the machine gave no more threads, in the words of Python or of the C library."""
    words = ("can't start new thread", "Resource temporarily unavailable")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _poisons(error: BaseException) -> bool:
    words = ("CUDA error", "cuDNN error")
    return isinstance(error, torch.AcceleratorError) or any(word in str(error) for word in words)


def ends_process(error: BaseException, log: str) -> ProcessEnd | None:
    """The end that this exception means for the process, None where it can go on."""
    cause, message = classify(error)
    if cause == Cause.CUDA and not isinstance(error, Caused):  # else that of another process
        return ProcessEnd(
            f"the CUDA context is broken: {message}",
            cause=cause,
            mend=f"a new process is needed: start trainctl again (the reason is in {log})",
        )
    hard = isinstance(error, OSError) and error.errno == errno.EIO
    if hard or (cause == Cause.IO and isinstance(error, sqlite3.Error)):
        return ProcessEnd(
            f"the disk reports an I/O error: {message}",
            cause=cause,
            mend="see dmesg; nothing more is written by this process",
        )
    return None
