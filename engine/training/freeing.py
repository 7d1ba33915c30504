"""Memory back to where it came from: the card's, the host's, and the pages between the two."""

from __future__ import annotations

import ctypes
import gc
from collections import defaultdict
from typing import Any

import torch


def free_memory() -> None:
    """Give back what nothing refers to any more: the allocators keep it else, the card's for the
    next tensor, the host's for the next small object."""
    gc.collect()
    if torch.cuda.is_initialized():
        # cuBLAS's scratch comes from torch's allocator (32 MB a stream on a Hopper card), and is
        # made again when it is next needed.
        clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if clear is not None:
            clear()
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


class Pages:
    """Paged memory of optimizers that are gone. bitsandbytes has no call that frees it: each
    optimizer made anew (after a park, a rollback, a failure) would leave one more set of states
    behind, so the next optimizer of the same shapes takes these."""

    def __init__(self) -> None:
        self._free: dict[tuple[Any, ...], list[torch.Tensor]] = defaultdict(list)

    def give(self, optimizer: torch.optim.Optimizer) -> None:
        """The paged states of an optimizer that will not be used again, while no kernel runs."""
        for state in optimizer.state.values():
            for value in state.values():
                if getattr(value, "is_paged", False):
                    # A page goes to whoever writes on it: this brings all of them to the host.
                    # bitsandbytes's own `prefetch_tensor(to_cpu=True)` ends the process (0.50.2:
                    # it asks the driver about device -1, and `exit(1)` is its answer to an error).
                    value.zero_()
                    self._free[value.dtype, tuple(value.shape)].append(value)
        optimizer.state.clear()

    def take(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor | None:
        """A buffer of zeros, None where none of that form is free."""
        free = self._free[dtype, tuple(shape)]
        return free.pop() if free else None


PAGES = Pages()
"""The process's, as bitsandbytes' own list of them."""


def give_pages(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer's paged states go, if it has any; it is not used again. Writes all of them
    once: seconds for a large model."""
    if not getattr(optimizer, "is_paged", False) or not torch.cuda.is_initialized():
        return
    torch.cuda.synchronize()
    PAGES.give(optimizer)


def use_pages(optimizer: Any) -> None:
    """Let a paged optimizer of bitsandbytes take free pages before it makes new ones."""
    make = optimizer.get_state_buffer

    def get_state_buffer(parameter: torch.Tensor, dtype: torch.dtype = torch.float32) -> Any:
        found = PAGES.take(parameter.shape, dtype)
        return make(parameter, dtype=dtype) if found is None else found

    optimizer.get_state_buffer = get_state_buffer
