"""Digests of files and of weights: BLAKE3, read with `readinto`, several files at once.

A digest of a file is over its bytes. `weights_digest` is over what a model *is*: its tensors'
names, dtypes, shapes and bytes, and never file metadata, the order inside a file or the number
of shards. The safetensors header is parsed here in plain Python.

Must never import torch or numpy, and never map a file into memory: a mapped file that is cut
meanwhile kills the process with SIGBUS, where a read says so.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from queue_store.errors import NotFound, VerificationFailed

BLOCK = 4 << 20
"""Bytes a read asks for: large enough that BLAKE3 and the read run without the interpreter."""

THREADS = 2
"""Readers at once: one BLAKE3 thread is already faster than most disks."""

HEADER_LIMIT = 100 << 20
"""Bytes of the largest safetensors header that the format allows."""

DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's bytes lie: `start` and `size` in bytes from the beginning of `path`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    size: int


def file_digest(
    path: Path, *, from_medium: bool = False, seen: Callable[[int], None] | None = None
) -> str:
    """BLAKE3 of a file's bytes, 64 hex digits. `seen` hears how many bytes each block had.

    `from_medium` writes out and drops the file's pages first, so that what is read comes from
    the disk: a byte that rotted there passes a read from the page cache.
    Raises OSError; a symbolic link or anything but a regular file is refused with one.
    """
    with open_regular(path) as file:
        if from_medium:
            drop_pages(file)
        hasher = blake3()
        _feed(hasher, file, None, seen)
    return hasher.hexdigest()


def file_digests(paths: Sequence[Path], *, threads: int = THREADS) -> list[str]:
    """The digests of several files, in their order, `threads` at a time. Raises OSError."""
    with ThreadPoolExecutor(threads, thread_name_prefix="digest") as pool:
        return list(pool.map(file_digest, paths))


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; never follows a link and never blocks on a FIFO."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is not a regular file")
        return os.fdopen(fd, "rb", buffering=0)
    except BaseException:
        os.close(fd)
        raise


def drop_pages(file: BinaryIO) -> None:
    """Drop a file's clean pages from the cache, so that the next read is one of the disk.

    Dirty pages stay where they are: whoever wrote them has to sync first (`durable` does).
    """
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def weight_files(folder: Path) -> list[Path]:
    """The files in `folder` that hold weights: model*.safetensors, or a LoRA adapter's."""
    return sorted([*folder.glob("model*.safetensors"), *folder.glob("adapter_model.safetensors")])


def tensors(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file, from its header alone.

    Raises VerificationFailed where the header does not fit the file: cut, torn, or no
    safetensors at all.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8) or b"", "little")
            if size < 8 or length > min(HEADER_LIMIT, size - 8):
                raise ValueError("its header is cut")
            header = json.loads(_exactly(file, length))
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        found = [
            _tensor(path, name, entry, 8 + length)
            for name, entry in header.items()
            if name != "__metadata__"
        ]
        end = max((tensor.start + tensor.size for tensor in found), default=8 + length)
        if end != size:
            raise ValueError(f"its tensors end at byte {end}, the file at {size}")
    except (ValueError, KeyError, TypeError) as error:
        raise VerificationFailed(
            f"no complete safetensors file: {error}",
            where=str(path),
            mend="use another checkpoint or version",
        ) from None
    return found


def weights_digest(folder: Path, *, threads: int = THREADS) -> str:
    """What the weights in a checkpoint's, version's or model's folder are, as 64 hex digits.

    The same for one file and for shards of it. Raises NotFound where the folder has no
    safetensors weights, VerificationFailed where they are cut, OSError where they cannot be read.
    """
    files = weight_files(folder)
    if not files:
        raise NotFound(
            "no weights here (model*.safetensors or adapter_model.safetensors)", where=str(folder)
        )
    found = sorted(
        (tensor for path in files for tensor in tensors(path)), key=lambda tensor: tensor.name
    )
    for one, other in pairwise(found):
        if one.name == other.name:
            raise VerificationFailed(
                f"the tensor {one.name} stands in {one.path.name} and in {other.path.name}",
                where=str(folder),
                mend="keep the shards or the single file, not both",
            )
    with ThreadPoolExecutor(threads, thread_name_prefix="digest") as pool:
        digests = list(pool.map(_tensor_digest, found))
    return combine((t.name, t.dtype, t.shape, d) for t, d in zip(found, digests, strict=True))


def combine(parts: Iterable[tuple[str, str, Sequence[int], bytes]]) -> str:
    """The weights' digest of (name, safetensors dtype, shape, BLAKE3 of the bytes), any order."""
    hasher = blake3()
    for name, dtype, shape, digest in sorted(parts, key=lambda part: part[0]):
        # JSON keeps the parts apart: a name that ends like a dtype cannot pass for another.
        hasher.update(json.dumps([name, dtype, [int(n) for n in shape]]).encode())
        hasher.update(digest)
    return hasher.hexdigest()


def _tensor(path: Path, name: str, entry: dict[str, Any], base: int) -> Tensor:
    start, end = entry["data_offsets"]
    shape = tuple(int(n) for n in entry["shape"])
    dtype = str(entry["dtype"])
    elements = 1
    for n in shape:
        elements *= n
    if start < 0 or end < start or min(shape, default=0) < 0:
        raise ValueError(f"the place of the tensor {name} makes no sense")
    if dtype in DTYPE_BITS and elements * DTYPE_BITS[dtype] != (end - start) * 8:
        raise ValueError(f"the tensor {name} has {end - start} bytes, not those of its shape")
    return Tensor(name, dtype, shape, path, base + start, end - start)


def _tensor_digest(tensor: Tensor) -> bytes:
    hasher = blake3()
    with open_regular(tensor.path) as file:
        file.seek(tensor.start)
        _feed(hasher, file, tensor.size)
    return hasher.digest()


def _feed(
    hasher: Any, file: BinaryIO, size: int | None, seen: Callable[[int], None] | None = None
) -> None:
    """Hash `size` bytes from the file's position on, or all there are.

    The next block is read while this one is hashed: alone, neither would keep the disk busy.
    Raises VerificationFailed where the file ends early.
    """
    left = os.fstat(file.fileno()).st_size - file.tell() if size is None else size
    if left <= 2 * BLOCK:
        data = memoryview(bytearray(max(left, 1)))
        count = _fill(file, data, left)
        hasher.update(data[:count])
        left -= count
        if seen is not None:
            seen(count)
    else:
        buffers = [memoryview(bytearray(BLOCK)) for _ in range(2)]
        with ThreadPoolExecutor(1, thread_name_prefix="read") as pool:
            coming = pool.submit(_fill, file, buffers[0], left)
            while count := coming.result():
                left -= count
                block = buffers[0][:count]
                buffers.reverse()
                coming = pool.submit(_fill, file, buffers[0], left)
                hasher.update(block)
                if seen is not None:
                    seen(count)
    if left:
        raise VerificationFailed(f"the file ends {left} bytes early", where=str(file.name))


def _fill(file: BinaryIO, block: memoryview, left: int) -> int:
    """Read into the block until it, `left` bytes or the file are full or over; bytes read."""
    wanted, done = min(len(block), left), 0
    while done < wanted:
        count = file.readinto(block[done:wanted])  # type: ignore[attr-defined]
        if not count:
            break
        done += count
    return done


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = file.read(size - len(data))
        if not block:
            raise ValueError("its header is cut")
        data += block
    return data
