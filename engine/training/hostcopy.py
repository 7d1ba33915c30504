"""Copies of a training state in host memory, so that it can be written while training goes on.

Where a GPU trains, into page-locked memory, which the card fills at the speed of the bus. The
buffers are used again by the next save, because making them (pages that are touched for the
first time, locking them) costs more than filling them; `drop` gives them back.
Must never return before every byte is copied: the next step changes them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import psutil
import torch

log = logging.getLogger("trainctl.engine")
SPARE = 1.5
"""Free host memory that a copy asks for, in sizes of the state."""

CGROUP = Path("/sys/fs/cgroup")
_Key = tuple[object, ...]


def _key(tensor: torch.Tensor) -> _Key:
    """The same for two names of the same memory (tied weights): they are copied once."""
    if not tensor.numel():
        return (id(tensor),)
    place = (tensor.device, tensor.data_ptr(), tensor.dtype)
    return (*place, tuple(tensor.shape), tensor.stride())


def size_of(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of all tensors, shared ones once."""
    return sum({_key(t): t.nbytes for t in tensors.values()}.values())


def free_memory(cgroup: Path = CGROUP) -> int:
    """Bytes of host memory that this process can still take: what the machine has available, or
    less where a control group (a container, a unit with MemoryMax) allows less."""
    free = int(psutil.virtual_memory().available)
    try:
        own = Path("/proc/self/cgroup").read_text().split("::", 1)[1].splitlines()[0]
    except (OSError, IndexError):
        return free
    group = cgroup / own.lstrip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(cgroup):
            break
        try:
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            fields = dict(x.split() for x in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue  # "max", or the root group, which has no such file
        # Cached files count as used, and go when memory is needed.
        free = min(free, limit - used + int(fields.get("inactive_file", 0)))
    return max(0, free)


class HostBuffers:
    """Host memory for one copy of a state. The engine thread's; never for two copies at once."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    @property
    def held(self) -> int:
        """Bytes that are held from the last copy."""
        return sum(b.nbytes for b in self._buffers.values())

    def fit(self, size: int) -> bool:
        """Whether `size` bytes may be copied: SPARE times as much is free, what is held counted."""
        return free_memory() + self.held >= SPARE * size

    def trim(self) -> None:
        """Give the memory back where others may need it: less than SPARE times as much is free."""
        if self._buffers and free_memory() < SPARE * self.held:
            self.drop()

    def drop(self) -> None:
        """Give the memory back."""
        pinned = any(b.is_pinned() for b in self._buffers.values()) if self._buffers else False
        self._buffers = {}
        empty = getattr(torch._C, "_host_emptyCache", None)
        if pinned and empty is not None:  # torch keeps page-locked memory that is freed
            empty()

    def copy(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Every tensor in host memory, under its name; names of the same memory share the copy.

        The copies hold until the next `copy`. Raises RuntimeError or MemoryError where there is
        no memory; then nothing is held.
        """
        try:
            return self._copy(tensors)
        except BaseException:
            self.drop()
            raise

    def _copy(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        on_gpu = torch.cuda.is_initialized()
        if on_gpu:
            # Paged optimizer states are host memory that kernels write: all must have ended.
            torch.cuda.synchronize()
        old, self._buffers = self._buffers, {}
        copies: dict[_Key, torch.Tensor] = {}
        found: dict[str, torch.Tensor] = {}
        # What the host reads goes first: some machines let it touch no page while the card works,
        # and a copy from the card is work.
        order = sorted(tensors, key=lambda name: tensors[name].is_cuda)
        with torch.no_grad():
            for name in order:
                tensor = tensors[name]
                key = _key(tensor)
                if key not in copies:
                    buffer = _fitting(old.pop(name, None), tensor)
                    buffer.copy_(tensor, non_blocking=tensor.is_cuda)
                    self._buffers[name] = copies[key] = buffer
                found[name] = copies[key]
        if on_gpu:
            torch.cuda.synchronize()
        return {name: found[name] for name in tensors}


def _fitting(buffer: torch.Tensor | None, tensor: torch.Tensor) -> torch.Tensor:
    """The buffer of the last time, or a new one where the tensor is of another form."""
    if buffer is not None and buffer.shape == tensor.shape and buffer.dtype == tensor.dtype:
        return buffer
    if tensor.is_cuda:
        try:
            return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError as error:
            # Locked memory has limits of its own (ulimit -l, the driver): slower, and no harm.
            log.info("no page-locked memory: %s", error)
    return torch.empty(tensor.shape, dtype=tensor.dtype)
