"""What kind of failure an exception in an item is: its cause, in the words of the attempts.

Causes in queue_store.transitions.TRANSIENT_CAUSES are tried again; all others fail the item.
"""

from __future__ import annotations

import errno

import torch

from engine.controls import NonFinite
from queue_store.errors import ConfigError, DataError, TrainctlError


def classify(error: BaseException) -> tuple[str, str]:
    """(cause, one-line message) of an exception that ended an item."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, NonFinite):
        return "not a number", message
    if isinstance(error, DataError):
        return "data", message
    if isinstance(error, ConfigError):
        return "configuration", message
    if isinstance(error, TrainctlError):
        return "refused", message
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "out of memory", message
    if isinstance(error, RuntimeError) and "out of memory" in message.lower():
        return "out of memory", message
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in message:
        return "CUDA error", message
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "disk full", message
        return "I/O error", message
    return "unexpected", f"{type(error).__name__}: {message}"
